"""Runs with ranks made by hand: what `compare` reads, without a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.ranked import Ranked
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.evaluation.scored_runs import Scored

QUERIES = 60
LENGTH = 10


def ranked(
    n_greater: Sequence[int] | NDArray[Any], n_tied: Sequence[int] | NDArray[Any] | None = None, **changes: Any
) -> Ranked:
    """Queries of rows 100, 101, ...; two of a patient."""
    above = np.asarray(n_greater, dtype=np.int64)
    tied = np.zeros_like(above) if n_tied is None else np.asarray(n_tied, dtype=np.int64)
    rows = np.arange(len(above))
    values: dict[str, Any] = {
        "target": "blue",
        "protocol": "candidates",
        "query": ("green", "red"),
        "query_row": 100 + rows,
        "patient": rows // 2,
        "ranks": Ranks(n_greater=above, n_tied=tied),
        "n_candidates": np.full(len(above), LENGTH),
    }
    return Ranked(**{**values, **changes})


def drawn(rng: np.random.Generator, *, hit: float, ties: float = 0.1) -> Ranked:
    """Ranks of a model that puts so many truths first, some of them level with others."""
    right = rng.random(QUERIES) < hit
    above = np.where(right, 0, rng.integers(1, LENGTH, size=QUERIES))
    tied = np.where(rng.random(QUERIES) < ties, np.minimum(2, LENGTH - 1 - above), 0)
    return ranked(above, tied)


def scored(run: str, one: Ranked, *, config: Mapping[str, object] | None = None, **changes: Any) -> Scored:
    """A run of the config {dim: 8, seed: 0}, on the test split of cohort small."""
    values: dict[str, Any] = {"trained_on": ("small", "0" * 64), "cohort": ("small", "0" * 64), "split": "test"}
    return Scored(run=run, ranked=one, config={"dim": 8, "seed": 0, **(config or {})}, **{**values, **changes})
