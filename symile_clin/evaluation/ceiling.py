"""What is reachable on the very candidate lists of a synthetic cohort, by one who knows all planted factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.evaluation.retrieval import Ranks, rank
from symile_clin.synthetic.truth import read_planting, scores


def ceilings(*, truth: pd.DataFrame, planted: Mapping[str, Any], lists: CandidateLists) -> dict[str, float]:
    """Bayes-optimal recall_at_1 over the planted target's lists.

    Args:
        truth: planted factors in row order, columns `<modality>_<j>`.
        planted: how they were planted, as the cohort's manifest records it.

    Returns:
        `recall_at_1_ceiling` with the synergy, and `recall_at_1_ceiling_pairs` of a model that sees only pairs.
    """
    return {
        "recall_at_1_ceiling": _recall(truth, planted, lists, synergy=True),
        "recall_at_1_ceiling_pairs": _recall(truth, planted, lists, synergy=False),
    }


def _recall(truth: pd.DataFrame, planted: Mapping[str, Any], lists: CandidateLists, *, synergy: bool) -> float:
    return float(bayes_ranks(truth=truth, planted=planted, lists=lists, synergy=synergy).recall_at(1).mean())


def bayes_ranks(*, truth: pd.DataFrame, planted: Mapping[str, Any], lists: CandidateLists, synergy: bool) -> Ranks:
    """Ranks by the log-likelihood ratio of each candidate's planted factors; equal evidence ties."""
    planting = read_planting(planted)

    def factors(name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        columns = [f"{name}_{j}" for j in range(planting.factors[name])]
        return truth[columns].to_numpy(dtype=np.int64)[rows]

    # Factors are few bits, so the candidates show few patterns: score those, however long the lists are.
    listed = factors(planting.target, lists.candidate_rows.ravel())
    patterns, pattern_of = np.unique(listed, axis=0, return_inverse=True)
    queries = {name: factors(name, lists.query_row) for name in planting.queries}
    score = scores(queries, patterns, planted, synergy=synergy)
    return rank(np.take_along_axis(score, pattern_of.reshape(lists.candidate_rows.shape), axis=1))
