"""How sure a mean over queries is: bootstrap intervals that resample whole patients, and the paper's own resampling.

Queries of one patient are alike, so resampling queries as if they were independent gives intervals that are too narrow:
at a within-patient correlation of 0.33 nominal 95 % intervals cover 87-89 %, against 94-97 % with patients resampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import CohortError

Values = NDArray[np.float64]

#: They leave an endpoint's Monte Carlo error near 0.001.
RESAMPLES: Final = 10_000
#: Drawn indices held at once (of 8 bytes).
_DRAWS_PER_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval."""

    estimate: float
    low: float
    high: float


def bootstrap_interval(
    values: NDArray[Any],
    clusters: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Interval:
    """Percentile interval of the mean of `values`, resampling whole clusters.

    Args:
        values: (q,) one number per query.
        clusters: (q,) which patient each query is of.
        resamples: bootstrap samples.

    Returns:
        The plain mean, and the percentiles of the resampled means. A resampled mean is the ratio of the drawn
        clusters' sum to their number of queries: clusters of unequal size keep their weight.

    Raises:
        CohortError: fewer than two clusters.

    Source:
        Field and Welsh (2007), Bootstrapping clustered data, J. R. Stat. Soc. B 69(3); Davison and Hinkley (1997),
        Bootstrap Methods and their Application, section 5.3 on percentile intervals.
    """
    means = resample_clusters(values, clusters, resamples, rng)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate=float(np.mean(values)), low=float(low), high=float(high))


def paired_difference(
    a: NDArray[Any],
    b: NDArray[Any],
    clusters: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Interval:
    """Percentile interval of mean(a) − mean(b), where `a` and `b` (q,) belong to the same queries in the same order.

    Args and raises are those of `bootstrap_interval`. What makes a query hard is shared by both and cancels, so the
    interval is narrower than two separate ones suggest.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired values of different shapes {a.shape} and {b.shape}")
    return bootstrap_interval(a - b, clusters, resamples=resamples, level=level, rng=rng)


def resample_clusters(values: NDArray[Any], clusters: NDArray[Any], resamples: int, rng: np.random.Generator) -> Values:
    """Means (resamples,) of bootstrap samples that draw whole clusters with replacement.

    Raises:
        CohortError: fewer than two clusters.
    """
    _, member_of = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(member_of, weights=values), np.bincount(member_of)
    if len(sizes) < 2:
        raise CohortError(f"an interval needs queries of at least 2 patients, found {len(sizes)}")
    return np.concatenate(
        [sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1) for drawn in _draws(len(sizes), resamples, rng)]
    )


def resample_queries(values: NDArray[Any], resamples: int, rng: np.random.Generator) -> Values:
    """Means (resamples,) over queries drawn with replacement as if each were of another patient: the paper's way.

    Their standard deviation is a standard error that ignores clustering, itself known only to about
    1 / sqrt(2 (resamples − 1)) of its value (24 % for the paper's 10).
    """
    return np.concatenate([values[drawn].mean(axis=1) for drawn in _draws(len(values), resamples, rng)])


def _draws(count: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`resamples` bootstrap samples of `count` indices, a matrix (some, count) at a time to bound memory."""
    step = max(1, _DRAWS_PER_CHUNK // count)
    for start in range(0, resamples, step):
        yield rng.integers(count, size=(min(step, resamples - start), count))
