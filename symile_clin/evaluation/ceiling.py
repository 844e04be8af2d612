"""What is reachable on the very candidate lists of a synthetic cohort, by one who knows all planted factors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.store import Cohort
from symile_clin.evaluation.measures import query_prefix
from symile_clin.evaluation.retrieval import Ranks, rank
from symile_clin.evaluation.ways import query_subsets
from symile_clin.schema import Split, present_column
from symile_clin.synthetic.truth import read_planting, scores

Present = Mapping[str, NDArray[np.bool_]]


def reachable(
    cohort: Cohort, lists: CandidateLists, *, modalities: Collection[str], split: Split, target: str
) -> dict[str, float]:
    """What a perfect model would reach on these lists, from all modalities and from fewer; for synthetic cohorts.

    Returns:
        `<split>/<target>/recall_at_1_ceiling` and `_ceiling_pairs`, and for every smaller query
        `<split>/<target>/candidates/<query>/recall_at_1_ceiling`; nothing where the target was not planted. What was
        planted into a modality that the cohort does not have is unknown to all queries.
    """
    if cohort.truth is None or cohort.planted is None or cohort.planted["target"] != target:
        return {}
    present = {name: np.zeros(len(cohort.samples), dtype=np.bool_) for name in read_planting(cohort.planted).queries}
    present |= {name: cohort.samples[present_column(name)].to_numpy(dtype=np.bool_) for name in modalities}
    found = ceilings(truth=cohort.truth, planted=cohort.planted, lists=lists, present=present)
    metrics = {f"{split}/{target}/{name}": value for name, value in found.items()}
    for query in query_subsets(list(modalities), target)[1:]:
        left = {name: here & (name in query or name == target) for name, here in present.items()}
        reached = ceilings(truth=cohort.truth, planted=cohort.planted, lists=lists, present=left)
        metrics[f"{query_prefix(split, target, query)}recall_at_1_ceiling"] = reached["recall_at_1_ceiling"]
    return metrics


def ceilings(
    *, truth: pd.DataFrame, planted: Mapping[str, Any], lists: CandidateLists, present: Present
) -> dict[str, float]:
    """Bayes-optimal recall_at_1 over the planted target's lists.

    Args:
        truth: planted factors in row order, columns `<modality>_<j>`.
        planted: how they were planted, as the cohort's manifest records it.
        present: by modality (n,), in row order: which samples have it.

    Returns:
        `recall_at_1_ceiling` with the synergy, and `recall_at_1_ceiling_pairs` of a model that sees only pairs.
    """
    return {
        name: float(
            bayes_ranks(truth=truth, planted=planted, lists=lists, present=present, synergy=synergy).recall_at(1).mean()
        )
        for name, synergy in (("recall_at_1_ceiling", True), ("recall_at_1_ceiling_pairs", False))
    }


def bayes_ranks(
    *, truth: pd.DataFrame, planted: Mapping[str, Any], lists: CandidateLists, present: Present, synergy: bool
) -> Ranks:
    """Ranks by the log-likelihood ratio of each candidate's planted factors; equal evidence ties.

    Factors of a modality that a query lacks are unknown: the ratio is of the likelihood's mean over all they could be.
    """
    planting = read_planting(planted)

    def factors(name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        columns = [f"{name}_{j}" for j in range(planting.factors[name])]
        return truth[columns].to_numpy(dtype=np.int64)[rows]

    # Factors are few bits, so the candidates show few patterns: score those, however long the lists are.
    listed = factors(planting.target, lists.candidate_rows.ravel())
    patterns, pattern_of = np.unique(listed, axis=0, return_inverse=True)
    own = {name: factors(name, lists.query_row) for name in planting.queries}
    here = np.stack([present[name][lists.query_row] for name in planting.queries], axis=1)
    score = np.empty((len(lists.query_row), len(patterns)))
    for pattern in np.unique(here, axis=0):
        alike = np.flatnonzero((here == pattern).all(axis=1))
        absent = [name for name, there in zip(planting.queries, pattern, strict=True) if not there]
        known = {name: bits[alike] for name, bits in own.items() if name not in absent}
        possible = [
            scores({**known, **guess}, patterns, planted, synergy=synergy)
            for guess in _guesses(absent, planting.factors, len(alike))
        ]
        score[alike] = possible[0]
        if absent:  # rounded, for sums in another order must not break a tie
            score[alike] = np.round(np.logaddexp.reduce(possible) - math.log(len(possible)), 9)
    return rank(np.take_along_axis(score, pattern_of.reshape(lists.candidate_rows.shape), axis=1))


def _guesses(names: Sequence[str], factors: Mapping[str, int], queries: int) -> Iterator[dict[str, NDArray[np.int64]]]:
    """All that the factors of some modalities could be, for so many queries; all are equally likely."""
    ends = np.cumsum([factors[name] for name in names])
    for bits in itertools.product((0, 1), repeat=int(ends[-1]) if names else 0):
        of = np.split(np.array(bits, dtype=np.int64), ends[:-1])
        yield {name: np.tile(one, (queries, 1)) for name, one in zip(names, of, strict=False)}
