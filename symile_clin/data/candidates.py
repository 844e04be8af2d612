"""Fixed candidate lists: which X-rays (or other targets) each query is ranked against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.errors import CohortError
from symile_clin.schema import CANDIDATE_ROWS, QUERY_ROW, SAME_SUBJECT


@dataclass(frozen=True)
class CandidateLists:
    """One list of candidates per query, all of the same length.

    Attributes:
        query_row: (q,) int64 sample rows.
        candidate_rows: (q, n) int64 sample rows, the positive in column 0.
        same_subject: (q, n) bool, true where a candidate is of the query's patient (column 0 always is).
    """

    query_row: NDArray[np.int64]
    candidate_rows: NDArray[np.int64]
    same_subject: NDArray[np.bool_]


def read_candidates(path: Path) -> CandidateLists:
    """Read candidates/<split>.parquet."""
    table = pq.read_table(path)
    queries = len(table)

    def matrix(column: str) -> NDArray[np.generic]:
        flat: NDArray[np.generic] = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(queries, -1)

    return CandidateLists(
        query_row=table[QUERY_ROW].to_numpy().astype(np.int64),
        candidate_rows=matrix(CANDIDATE_ROWS).astype(np.int64),
        same_subject=matrix(SAME_SUBJECT).astype(np.bool_),
    )


def draw_candidates(
    rows: NDArray[np.int64],
    subjects: NDArray[np.int64],
    *,
    n: int,
    rng: np.random.Generator,
    split: str,
    other_subjects: bool = False,
) -> CandidateLists:
    """One list of `n` per query: the positive, then negatives drawn uniformly without replacement from the split.

    Args:
        rows: (q,) sample rows of the split; each is a query.
        subjects: (q,) their patients.
        split: its name, for the error.
        other_subjects: negatives are never of the query's own patient.

    Raises:
        CohortError: the split has too few samples for such lists.
    """
    own = int(np.unique(subjects, return_counts=True)[1].max(initial=1)) if other_subjects else 1
    fewest = len(rows) - own
    if fewest < n - 1:
        whose = " of other patients" if other_subjects else ""
        raise CohortError(
            f"split '{split}' has {len(rows):,} samples, which leaves a query {fewest:,} negatives{whose}",
            expected=f"{n - 1:,} for lists of {n:,}",
            remedy=f"Use --set candidates.n={max(fewest + 1, 2)} at most, or a larger split",
        )
    chosen = np.empty((len(rows), n), dtype=np.int64)
    for query in range(len(rows)):
        allowed = np.flatnonzero(subjects != subjects[query]) if other_subjects else None
        if allowed is None:
            drawn = rng.choice(len(rows) - 1, size=n - 1, replace=False)
            drawn += drawn >= query  # step over the query itself
        else:
            drawn = rng.choice(allowed, size=n - 1, replace=False)
        chosen[query] = [query, *drawn]
    return CandidateLists(
        query_row=rows, candidate_rows=rows[chosen], same_subject=subjects[chosen] == subjects[:, None]
    )


def write_candidates(path: Path, lists: CandidateLists) -> None:
    """Write candidates/<split>.parquet."""
    columns = {
        QUERY_ROW: lists.query_row,
        CANDIDATE_ROWS: pa.array(list(lists.candidate_rows)),
        SAME_SUBJECT: pa.array(list(lists.same_subject)),
    }
    with files.atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
