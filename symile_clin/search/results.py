"""What a search found, as a table: rows and groups of samples; ids only where they are asked for."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from symile_clin.data.store import Cohort
from symile_clin.modalities.base import Modality
from symile_clin.schema import HADM_ID, ROW, SPLIT, SUBJECT_ID
from symile_clin.search.question import Answer, Query
from symile_clin.search.searcher import Searcher

RANK: Final = "rank"
SCORE: Final = "score"
#: Whether a hit is the query's own sample, another one of its patient, or neither (empty).
OWN: Final = "own"
ITSELF: Final = "the query itself"


def results(
    answer: Answer, query: Query, *, searcher: Searcher, cohort: Cohort, target: Modality, with_ids: bool
) -> pd.DataFrame:
    """One line for each hit, best first; equal scores in the order of their rows.

    Returns:
        rank, row, split, score, `own` where the query is a sample, the target's groups, and with ids subject_id and
        hadm_id.
    """
    rows = answer.hits.rows
    samples = cohort.samples.iloc[rows]
    found = pd.DataFrame(
        {
            RANK: np.arange(1, len(rows) + 1),
            ROW: rows,
            SPLIT: samples[SPLIT].to_numpy(),
            SCORE: answer.hits.scores,
        }
    )
    if query.row is not None:
        patient = np.where(searcher.of_same_patient(query)[rows], "same patient", "")
        found[OWN] = np.where(rows == query.row, ITSELF, patient)
    for title, group in target.groups(samples).items():
        found[title] = group.astype("string").fillna("").to_numpy()
    if with_ids:
        for column in (SUBJECT_ID, HADM_ID):
            found[column] = samples[column].to_numpy()
    return found


def described(answer: Answer, query: Query, *, k: int) -> list[str]:
    """What one has to know to read the table, a line each."""
    asked = " and ".join(answer.query)
    of = "" if query.row is None else f" of row {query.row}"
    lines = [f"{asked}{of} asked for {answer.target}: the best {len(answer.hits.rows)} of {answer.candidates:,}."]
    if answer.absent:
        lines.append(f"{' and '.join(answer.absent)} not asked with: {answer.method}.")
    if len(answer.hits.rows) < k:
        lines.append(f"There are no {k:,} candidates: all are shown.")
    scores = answer.hits.scores
    if len(np.unique(scores)) < len(scores) or answer.hits.level:
        lines.append("Equal scores are in the order of their rows.")
    if answer.hits.level:
        lines.append(f"{answer.hits.level:,} more score exactly as the last one.")
    way = "one inner product each" if answer.one_product else "each candidate scored by the objective"
    read = f"; reading and encoding the files {1000 * query.seconds:,.0f} ms" if query.row is None else ""
    lines.append(f"Exact, {way}: {1000 * answer.seconds:,.1f} ms{read}.")
    return lines
