"""How sure a mean over queries is: bootstrap intervals that resample whole patients, and the paper's own resampling.

Queries of one patient are alike, so resampling queries as if they were independent gives intervals that are too narrow.
scripts/simulate_coverage.py counts how often either interval holds the truth.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import CohortError

Values = NDArray[np.float64]
Method = Literal["percentile", "bca"]

#: They leave an endpoint's Monte Carlo error near 0.001.
RESAMPLES: Final = 10_000
#: Drawn indices held at once (of 8 bytes).
_DRAWS_PER_CHUNK = 1 << 18
#: How often each patient was drawn is kept if it fits in so many bytes; otherwise the draws are repeated for each use.
_KEPT_BYTES = 1 << 27
#: Means that differ by less than so much of the largest value differ by rounding only, and count as equal.
_ROUNDING: Final = 1e-12
_NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval."""

    estimate: float
    low: float
    high: float


@final
class PatientResamples:
    """Bootstrap samples of patients, drawn once and used for any number of values of the same queries.

    What is worked out from the same resamples belongs together: differences and gaps follow draw by draw.

    Args:
        clusters: (q,) which patient each query is of.
        resamples: bootstrap samples B. Each draws as many patients as there are, with replacement.

    Raises:
        CohortError: fewer than two patients.

    Source:
        Field and Welsh (2007), Bootstrapping clustered data, J. R. Stat. Soc. B 69(3).
    """

    def __init__(self, clusters: NDArray[Any], *, resamples: int = RESAMPLES, rng: np.random.Generator) -> None:
        patients, self._patient = np.unique(clusters, return_inverse=True)
        if len(patients) < 2:
            raise CohortError(f"an interval needs queries of at least 2 patients, found {len(patients)}")
        self._sizes = np.bincount(self._patient).astype(np.float64)
        self._resamples = resamples
        small = np.min_scalar_type(len(patients))
        self._start = copy.deepcopy(rng)
        self._kept: list[NDArray[Any]] | None = None
        drawn = _counts(len(patients), resamples, rng)
        if resamples * len(patients) * small.itemsize <= _KEPT_BYTES:
            self._kept = [counts.astype(small) for counts in drawn]
            self._drawn_sizes = self._drawn(self._sizes)
        else:
            self._drawn_sizes = np.concatenate([counts @ self._sizes for counts in drawn])

    def counts(self) -> Iterator[NDArray[Any]]:
        """How often each patient, in ascending order, is in each resample: (b, patients), some resamples at a time.

        For what is no mean: a metric of weighted queries, with each query weighted as its patient.
        """
        if self._kept is not None:
            return iter(self._kept)
        return _counts(len(self._sizes), self._resamples, copy.deepcopy(self._start))

    def totals(self, values: NDArray[Any]) -> Values:
        """Sums over the drawn queries, (B,) for `values` (q,) and (B, m) for (q, m): one column a metric."""
        return self._drawn(self._patient_sums(values))

    def means(self, values: NDArray[Any]) -> Values:
        """Means over the drawn queries, (B,) for `values` (q,) and (B, m) for (q, m).

        The ratio of the drawn patients' sum to their number of queries: patients of unequal size keep their weight.
        """
        totals = self.totals(values)
        return totals / (self._drawn_sizes if totals.ndim == 1 else self._drawn_sizes[:, None])

    def interval(self, values: NDArray[Any], *, level: float = 0.95, method: Method = "percentile") -> Interval:
        """Interval of the mean of `values` (q,); see `intervals`."""
        return self.intervals(np.asarray(values)[:, None], level=level, method=method)[0]

    def intervals(self, values: NDArray[Any], *, level: float = 0.95, method: Method = "percentile") -> list[Interval]:
        """One interval for the mean of each column of `values` (q, m).

        Args:
            level: nominal coverage.
            method: "percentile" takes the (1 ± level) / 2 quantiles of the resampled means. "bca" moves these two
                probabilities by a bias correction z0 (the normal quantile of the share of resampled means below the
                estimate, equal ones counted half) and an acceleration a (from the skewness of the estimates with one
                patient left out), so that skewed values get a skewed interval.

        Returns:
            The plain means with their intervals. Where all values are equal, every resample repeats them and either
            interval has no width: the bootstrap knows no values but those it was given. Where all resampled means lie
            on the same side of the estimate, which takes a handful of resamples, z0 would be infinite: nothing can be
            corrected, and "bca" returns the percentile interval.

        Source:
            Davison and Hinkley (1997), Bootstrap Methods and their Application, section 5.3; Efron (1987), Better
            bootstrap confidence intervals, JASA 82(397); Efron and Tibshirani (1993), An Introduction to the
            Bootstrap, section 14.3.
        """
        means, estimates = self.means(values), [float(np.mean(column)) for column in values.T]
        tails = (1 - level) / 2, (1 + level) / 2
        if method == "percentile":
            lows, highs = np.quantile(means, tails, axis=0)
        else:
            accelerations, scale = self._accelerations(values), np.abs(values).max(axis=0, initial=0.0)
            ends = []
            for column, estimate in enumerate(estimates):
                bias = _bias(means[:, column], estimate, scale[column])
                ends.append(
                    np.quantile(means[:, column], [_moved(tail, bias, accelerations[column]) for tail in tails])
                )
            lows, highs = np.array(ends).reshape(-1, 2).T
        return [Interval(*map(float, found)) for found in zip(estimates, lows, highs, strict=True)]

    def p_value(self, differences: NDArray[Any]) -> float:
        """Two-sided p-value of a mean of 0 for paired `differences` (q,), by turning the percentile interval around.

        One minus the highest level at which the percentile interval still leaves 0 out: twice the smaller share of
        resampled means on either side of 0, those at 0 counted on both, with the estimate itself counted among them:
        (1 + count) / (B + 1), so never below 2 / (B + 1). It says the same as the interval that stands beside it.

        Source:
            Efron and Tibshirani (1993), section 15.4; Davison and Hinkley (1997), section 4.4 on counting the estimate.
        """
        means = self.means(differences)
        at_zero = np.abs(means) <= _ROUNDING * np.abs(differences).max(initial=0.0)
        smaller = min(np.count_nonzero((means < 0) | at_zero), np.count_nonzero((means > 0) | at_zero))
        return min(1.0, 2 * (1 + smaller) / (1 + self._resamples))

    def _patient_sums(self, values: NDArray[Any]) -> Values:
        """Each patient's sum, (patients,) or (patients, m)."""
        if len(values) != len(self._patient):
            raise ValueError(f"{len(values)} values for {len(self._patient)} queries")
        if values.ndim == 1:
            return np.bincount(self._patient, weights=values).astype(np.float64, copy=False)
        sums = np.empty((len(self._sizes), values.shape[1]))
        for column, of_queries in enumerate(values.T):
            sums[:, column] = np.bincount(self._patient, weights=of_queries)
        return sums

    def _drawn(self, sums: Values) -> Values:
        """What resamples sum to, (B,) or (B, m), from each patient's sum."""
        return np.concatenate([counts.astype(np.float64) @ sums for counts in self.counts()])

    def _accelerations(self, values: NDArray[Any]) -> Values:
        """Skewness of the means with one patient left out, over 6; 0 where they are all the same."""
        sums, sizes = self._patient_sums(values), self._sizes[:, None]
        without = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)
        off = without.mean(axis=0) - without
        off[np.abs(off) <= _ROUNDING * np.abs(values).max(axis=0, initial=0.0)] = 0.0
        squares = (off**2).sum(axis=0)
        accelerations: Values = np.zeros_like(squares)
        np.divide((off**3).sum(axis=0), 6 * squares**1.5, out=accelerations, where=squares > 0)
        return accelerations


def _bias(means: Values, estimate: float, scale: float) -> float:
    """z0 of Efron (1987); infinite where all `means` lie on one side of the estimate."""
    equal = np.abs(means - estimate) <= _ROUNDING * scale
    below = np.count_nonzero((means < estimate) & ~equal) + np.count_nonzero(equal) / 2
    share = below / len(means)
    return _NORMAL.inv_cdf(share) if 0 < share < 1 else np.inf


def _moved(tail: float, bias: float, acceleration: float) -> float:
    """The probability at which BCa reads the resampled means, instead of `tail`."""
    if np.isinf(bias):
        return tail
    shifted = bias + _NORMAL.inv_cdf(tail)
    stretch = 1 - acceleration * shifted
    if stretch <= 0:  # beyond the pole the limit holds; |a| <= 1/6 keeps usual levels far from it
        return float(shifted > 0)
    return _NORMAL.cdf(bias + shifted / stretch)


def bootstrap_interval(
    values: NDArray[Any],
    clusters: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    method: Method = "percentile",
    rng: np.random.Generator,
) -> Interval:
    """Interval of the mean of `values` (q,), resampling whole `clusters` (q,), the patient of each query.

    `PatientResamples` explains the arguments and errors, and is cheaper where several values share their queries.
    """
    return PatientResamples(clusters, resamples=resamples, rng=rng).interval(values, level=level, method=method)


def paired_difference(
    a: NDArray[Any],
    b: NDArray[Any],
    clusters: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    method: Method = "percentile",
    rng: np.random.Generator,
) -> Interval:
    """Interval of mean(a) − mean(b), where `a` and `b` (q,) belong to the same queries in the same order.

    Args and raises are those of `bootstrap_interval`. What makes a query hard is shared by both and cancels, so the
    interval is narrower than two separate ones suggest.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired values of different shapes {a.shape} and {b.shape}")
    return bootstrap_interval(a - b, clusters, resamples=resamples, level=level, method=method, rng=rng)


def resample_clusters(values: NDArray[Any], clusters: NDArray[Any], resamples: int, rng: np.random.Generator) -> Values:
    """Means (resamples,) of bootstrap samples that draw whole clusters with replacement.

    Raises:
        CohortError: fewer than two clusters.
    """
    return PatientResamples(clusters, resamples=resamples, rng=rng).means(values)


def resample_queries(values: NDArray[Any], resamples: int, rng: np.random.Generator) -> Values:
    """Means (resamples,) over queries drawn with replacement as if each were of another patient: the paper's way.

    Their standard deviation is a standard error that ignores clustering, itself known only to about
    1 / sqrt(2 (resamples − 1)) of its value (24 % for the paper's 10).
    """
    return np.concatenate([values[drawn].mean(axis=1) for drawn in _draws(len(values), resamples, rng)])


def _counts(count: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """How often each of `count` indices is in each bootstrap sample, a matrix (some, count) at a time."""
    for drawn in _draws(count, resamples, rng):
        drawn += np.arange(len(drawn))[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def _draws(count: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`resamples` bootstrap samples of `count` indices, a matrix (some, count) at a time to bound memory."""
    step = max(1, _DRAWS_PER_CHUNK // count)
    for start in range(0, resamples, step):
        yield rng.integers(count, size=(min(step, resamples - start), count))
