"""The best candidates of one query, exactly: of inner products by a proven bound on rounding, of other scores by all.

A pass over all candidates in float32 is as fast as memory; what it could have rounded wrongly is scored again in
float64. Let a candidate x (of norm at most m) have the product s with the unit query q, and s' what is computed for it
in float32. With u = 2^-24 and dimension d, whatever the order of summation,

    |s' - s| <= e = m (γ + u (1 + γ)) + d 2^-126,   γ = d u / (1 - d u)

(Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 3.1; the last term is underflow's). Let
t be the k-th largest s'. At least k candidates have s >= t - e, so each of the true best k has s >= t - e and
s' >= t - 2 e: those are scored again, and no member of the best k is among the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import TrainingError

Scores = NDArray[np.float64]
Matrix = NDArray[np.float32]
#: Scores (c,) of candidates (c, d), in float64.
Score = Callable[[Matrix], Scores]

#: Numbers of a matrix taken at once, where it is not read in one pass.
CHUNK_NUMBERS: Final = 1 << 22
#: Scores nearer to the last one than this share of the largest are looked at again for equal embeddings: far more than
#: float64 rounds.
LEVEL_WITHIN: Final = 1e-6


@dataclass(frozen=True)
class Leading:
    """The best candidates, best first; where scores are equal, the lower row first.

    Attributes:
        rows: (k,) rows of the matrix; fewer where there are not so many candidates.
        scores: (k,) float64.
        level: how many further candidates score exactly as the last of them.
        rescored: candidates whose scores were computed in float64.
    """

    rows: NDArray[np.int64]
    scores: Scores
    level: int
    rescored: int


def largest_products(
    matrix: Matrix, query: Scores, *, k: int, allowed: NDArray[np.bool_], largest_norm: float
) -> Leading:
    """The rows with the largest inner products with a query.

    Args:
        matrix: (n, d) float32, best memory-mapped in C order.
        query: (d,) float64.
        k: at least 1.
        allowed: (n,) which rows are candidates; the others may hold anything, NaN too.
        largest_norm: no candidate is longer.

    Raises:
        TrainingError: a product is not finite.
    """
    length = float(np.linalg.norm(query))
    unit = query / length if length > 0 else query  # its products neither overflow nor underflow where scores do not
    with np.errstate(invalid="ignore", over="ignore"):
        rough = matrix @ unit.astype(np.float32)
    _require_finite(rough[allowed] if not allowed.all() else rough)
    rough[~allowed] = -np.inf
    k = min(k, int(allowed.sum()))
    if not k:
        return Leading(np.empty(0, dtype=np.int64), np.empty(0), level=0, rescored=0)
    last = float(np.partition(rough, len(rough) - k)[len(rough) - k])
    cut = last - 2 * rounding(len(query), largest_norm)
    rows = np.flatnonzero(rough.astype(np.float64) >= cut)
    scores = np.empty(len(rows))
    for here in _chunks(len(rows), len(query)):
        # summed row by row, so that equal rows have equal scores wherever they stand
        scores[here] = (matrix[rows[here]].astype(np.float64) * query).sum(axis=1)
    return _leading(rows, scores, k=k)


def rounding(dim: int, largest_norm: float) -> float:
    """How far a float32 product of a unit query with a candidate of that norm can be off: e, and float64's own."""
    single, double = (_relative(dim, 2.0**-24), _relative(dim, 2.0**-53))
    return largest_norm * (single + double) + dim * 2.0**-126


def _relative(dim: int, unit_roundoff: float) -> float:
    gamma = dim * unit_roundoff / (1 - dim * unit_roundoff)
    return gamma + unit_roundoff * (1 + gamma)


def largest_scores(score: Score, matrix: Matrix, *, k: int, allowed: NDArray[np.bool_]) -> Leading:
    """The rows with the largest scores, all of which are computed, a chunk of candidates at a time.

    Args:
        score: of any kind.
        matrix, k, allowed: as of `largest_products`.

    Raises:
        TrainingError: a score is not finite.
    """
    candidates = np.flatnonzero(allowed)
    k = min(k, len(candidates))
    scores = np.empty(len(candidates))
    for here in _chunks(len(candidates), matrix.shape[1]):
        scores[here] = score(matrix[candidates[here]])
    _require_finite(scores)
    if not k:
        return Leading(candidates, scores, level=0, rescored=0)
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    short = np.flatnonzero(scores >= last - LEVEL_WITHIN * np.abs(scores).max())
    # equal embeddings get the score of the first of them: a matrix product may sum its last columns in another order
    rows = candidates[short]
    vectors = np.ascontiguousarray(matrix[rows]) + np.float32(0)  # -0.0 becomes 0.0
    _, first, own = np.unique(vectors.view(f"V{vectors.itemsize * vectors.shape[1]}").ravel(), return_index=True,
                              return_inverse=True)  # fmt: skip
    found = _leading(rows, scores[short][first][own], k=k)
    return Leading(found.rows, found.scores, level=found.level, rescored=len(candidates))


def _leading(rows: NDArray[np.int64], scores: Scores, *, k: int) -> Leading:
    order = np.lexsort((rows, -scores))[:k]
    last = scores[order[-1]]
    level = int((scores == last).sum() - (scores[order] == last).sum())
    return Leading(rows[order], scores[order], level=level, rescored=len(rows))


def _chunks(count: int, dim: int) -> list[slice]:
    step = max(1, CHUNK_NUMBERS // dim)
    return [slice(start, start + step) for start in range(0, count, step)]


def _require_finite(scores: NDArray[np.floating[Any]]) -> None:
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise TrainingError(f"{bad:,} of {len(scores):,} candidates have a score that is not finite")
