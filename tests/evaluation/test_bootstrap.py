"""Bootstrap intervals against a loop over resamples and patients, against scipy, and against theory."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from symile_clin.errors import CohortError
from symile_clin.evaluation import bootstrap
from symile_clin.evaluation.bootstrap import (
    Interval,
    Method,
    PatientResamples,
    bootstrap_interval,
    paired_difference,
    resample_clusters,
    resample_queries,
)
from symile_clin.rng import stream


def loop_over_resamples(
    values: NDArray[np.float64], clusters: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> list[float]:
    """The definition: draw as many patients as there are, take all their queries, average."""
    patients = sorted(set(clusters.tolist()))
    means = []
    for _ in range(resamples):
        drawn = [patients[i] for i in rng.integers(len(patients), size=len(patients))]
        queries = [value for patient in drawn for value in values[clusters == patient]]
        means.append(sum(queries) / len(queries))
    return means


def unequal_clusters(rng: np.random.Generator, patients: int) -> NDArray[np.int64]:
    return np.repeat(rng.permutation(patients) * 7 + 3, rng.integers(1, 6, size=patients))


@pytest.mark.parametrize("chunk", [1, 100, 1 << 18])
def test_resampling_equals_the_loop(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS_PER_CHUNK", chunk)
    rng = np.random.default_rng(0)
    clusters = rng.permutation(unequal_clusters(rng, 23))
    values = rng.normal(size=len(clusters))
    expected = loop_over_resamples(values, clusters, 40, np.random.default_rng(1))
    np.testing.assert_allclose(resample_clusters(values, clusters, 40, np.random.default_rng(1)), expected)


def test_the_interval_is_the_percentiles_around_the_plain_mean() -> None:
    rng = np.random.default_rng(0)
    clusters, values = np.arange(50), rng.random(50)
    interval = bootstrap_interval(values, clusters, resamples=500, level=0.9, rng=np.random.default_rng(3))
    means = np.sort(loop_over_resamples(values, clusters, 500, np.random.default_rng(3)))
    assert interval.estimate == values.mean()
    assert (interval.low, interval.high) == pytest.approx(np.quantile(means, [0.05, 0.95]))


def test_patients_who_agree_with_themselves_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    patient_value = (rng.random(100) < 0.4).astype(float)
    values, clusters = np.repeat(patient_value, 4), np.repeat(np.arange(100), 4)
    clustered = bootstrap_interval(values, clusters, rng=np.random.default_rng(1))
    naive = bootstrap_interval(values, np.arange(400), rng=np.random.default_rng(1))
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(2.0, rel=0.1)  # sqrt(4): four copies of a query are one query


def test_width_is_that_of_the_normal_theory() -> None:
    values = (np.arange(464) % 10 < 4).astype(float)
    interval = bootstrap_interval(values, np.arange(464), rng=stream(0, "test"))
    half = 1.96 * np.sqrt(values.var() / 464)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)


def test_a_difference_of_equal_models_is_exactly_zero() -> None:
    values = np.random.default_rng(0).random(30)
    zero = paired_difference(values, values.copy(), np.arange(30) // 2, rng=np.random.default_rng(0))
    assert zero == Interval(0.0, 0.0, 0.0)


def test_a_paired_difference_is_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    hard, clusters = rng.random(200), np.arange(200) // 2
    a, b = hard + 0.05 * rng.random(200) + 0.1, hard
    paired = paired_difference(a, b, clusters, rng=np.random.default_rng(1))
    alone = bootstrap_interval(a, clusters, rng=np.random.default_rng(1))
    assert 0 < paired.low < paired.estimate < paired.high
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_different_queries_do_not_pair() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        paired_difference(np.ones(3), np.ones(1), np.arange(3), rng=np.random.default_rng(0))


@pytest.mark.parametrize("queries", [0, 5])
def test_one_patient_has_no_interval(queries: int) -> None:
    with pytest.raises(CohortError, match="at least 2 patients"):
        bootstrap_interval(np.ones(queries), np.zeros(queries), rng=np.random.default_rng(0))


def test_the_papers_way_resamples_queries() -> None:
    values = np.random.default_rng(0).random(60)
    accuracies = resample_queries(values, 5, np.random.default_rng(2))
    again = np.random.default_rng(2)
    np.testing.assert_allclose(accuracies, [values[again.integers(60, size=60)].mean() for _ in range(5)])
    many = resample_queries(values, 20_000, np.random.default_rng(3))
    assert many.std(ddof=1) == pytest.approx(values.std() / np.sqrt(60), rel=0.03)


def test_same_seed_same_interval_whatever_the_patients_are_called() -> None:
    values, clusters = np.random.default_rng(0).random(40), np.arange(40) // 3
    first = bootstrap_interval(values, clusters, rng=stream(7, "bootstrap"))
    assert first == bootstrap_interval(values, clusters + 1000, rng=stream(7, "bootstrap"))
    assert first != bootstrap_interval(values, clusters, rng=stream(8, "bootstrap"))


def loop_bca(
    values: NDArray[np.float64], clusters: NDArray[np.int64], means: NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Efron and Tibshirani (1993), equations 14.9 to 14.15, with a patient left out at a time."""
    normal, estimate = NormalDist(), values.mean()
    share = sum(1.0 if mean < estimate else 0.5 if mean == estimate else 0.0 for mean in means) / len(means)
    bias = normal.inv_cdf(share)
    without = [values[clusters != patient].mean() for patient in sorted(set(clusters.tolist()))]
    off = [sum(without) / len(without) - one for one in without]
    acceleration = sum(d**3 for d in off) / (6 * sum(d**2 for d in off) ** 1.5)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(tail)
        ends.append(np.quantile(means, normal.cdf(bias + shifted / (1 - acceleration * shifted))))
    return float(ends[0]), float(ends[1])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_bca_equals_the_loop(level: float) -> None:
    rng = np.random.default_rng(0)
    clusters = rng.permutation(unequal_clusters(rng, 31))
    values = rng.exponential(size=len(clusters)) ** 2
    means = np.array(loop_over_resamples(values, clusters, 999, np.random.default_rng(1)))
    found = bootstrap_interval(values, clusters, resamples=999, level=level, method="bca", rng=np.random.default_rng(1))
    assert (found.low, found.high) == pytest.approx(loop_bca(values, clusters, means, level))
    plain = bootstrap_interval(values, clusters, resamples=999, level=level, rng=np.random.default_rng(1))
    assert found.estimate == plain.estimate
    assert found.low > plain.low  # skewed to the right: both ends move to the right
    assert found.high > plain.high


@pytest.mark.parametrize("share", [0.02, 0.4])
def test_bca_is_scipys_where_every_query_is_of_another_patient(share: float) -> None:
    values = (np.random.default_rng(5).random(120) < share).astype(np.float64)
    resamples = PatientResamples(np.arange(120), rng=stream(1, "test"))
    peer = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=10_000, rng=np.random.default_rng(9))
    same_draws = stats.bootstrap(  # none of its own: the interval of our resamples, by scipy's formula
        (values,),
        np.mean,
        method="BCa",
        n_resamples=0,
        bootstrap_result=peer.__class__(peer.confidence_interval, resamples.means(values), 0.0),
    ).confidence_interval
    found = resamples.interval(values, method="bca")
    assert (found.low, found.high) == pytest.approx(tuple(same_draws))
    own_draws = peer.confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(own_draws), abs=1 / 120)  # one query: the values' grid


def test_many_values_share_their_resamples() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.permutation(unequal_clusters(rng, 40))
    values = rng.random((len(clusters), 3))
    resamples = PatientResamples(clusters, resamples=300, rng=np.random.default_rng(4))
    methods: tuple[Method, ...] = ("percentile", "bca")
    for method in methods:
        for column, together in zip(values.T, resamples.intervals(values, method=method), strict=True):
            alone = bootstrap_interval(column, clusters, resamples=300, method=method, rng=np.random.default_rng(4))
            assert list(vars(together).values()) == pytest.approx(list(vars(alone).values()))
    np.testing.assert_allclose(resamples.means(values)[:, 1], resamples.means(values[:, 1]))
    np.testing.assert_allclose(
        resamples.totals(values), resamples.means(values) * resamples.totals(np.ones(len(values)))[:, None]
    )


def test_draws_that_are_not_kept_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    clusters = unequal_clusters(rng, 40)
    values = rng.random((len(clusters), 2))
    kept, rng_of_kept = PatientResamples(clusters, resamples=200, rng=(first := np.random.default_rng(4))), first
    monkeypatch.setattr(bootstrap, "_KEPT_BYTES", 0)
    monkeypatch.setattr(bootstrap, "_DRAWS_PER_CHUNK", 1000)
    repeated = PatientResamples(clusters, resamples=200, rng=(second := np.random.default_rng(4)))
    for _ in range(2):
        np.testing.assert_allclose(repeated.means(values), kept.means(values), rtol=1e-14)
    np.testing.assert_array_equal(np.concatenate(list(repeated.counts())), np.concatenate(list(kept.counts())))
    assert rng_of_kept.random() == second.random()  # either way the generator moves on as far


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_values_that_are_all_equal_have_an_interval_without_width(method: Method, value: float) -> None:
    found = bootstrap_interval(np.full(50, value), np.arange(50) // 2, method=method, rng=np.random.default_rng(0))
    assert (found.estimate, found.low, found.high) == pytest.approx((value,) * 3, abs=1e-12)


def test_bca_falls_back_to_percentiles_where_nothing_can_be_corrected() -> None:
    values, clusters = np.array([0.0, 0.0, 0.0, 10.0]), np.arange(4)
    seed = next(
        seed  # two resamples, both on the same side
        for seed in range(100)
        if (resample_clusters(values, clusters, 2, np.random.default_rng(seed)) < 2.5).all()
    )
    plain = bootstrap_interval(values, clusters, resamples=2, rng=np.random.default_rng(seed))
    assert bootstrap_interval(values, clusters, resamples=2, method="bca", rng=np.random.default_rng(seed)) == plain


def test_by_hand_of_two_patients() -> None:
    # Patients with sums 3 and 1 of 3 and 1 queries: resamples are 6/6, 4/4, 2/2, all 1; and with values 1, 0 instead:
    values, clusters = np.array([1.0, 1.0, 1.0, 0.0]), np.array([7, 7, 7, 9])
    means = PatientResamples(clusters, resamples=4_000, rng=np.random.default_rng(0)).means(values)
    found, counts = np.unique(means, return_counts=True)
    np.testing.assert_array_equal(found, [0.0, 0.75, 1.0])  # 0/2, 3/4, 6/6: not 0, 0.5, 1
    assert counts / 4_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def loop_p_value(means: NDArray[np.float64]) -> float:
    """The definition, end of the percentile interval by end: the smallest level at which 0 is left out."""
    below, above = 1, 1
    for mean in means:
        below += mean <= 0
        above += mean >= 0
    return min(1.0, 2 * min(below, above) / (len(means) + 1))


@pytest.mark.parametrize("shift", [-0.4, -0.05, 0.0, 0.1, 0.2, 3.0])
def test_p_value_equals_the_loop_and_agrees_with_the_interval(shift: float) -> None:
    rng = np.random.default_rng(0)
    clusters = unequal_clusters(rng, 40)
    differences = rng.integers(-1, 2, size=len(clusters)) + shift
    resamples = PatientResamples(clusters, resamples=999, rng=np.random.default_rng(2))
    p = resamples.p_value(differences)
    assert p == pytest.approx(loop_p_value(resamples.means(differences)))
    for level in (0.5, 0.9, 0.99):
        interval = resamples.interval(differences, level=level)
        if abs(p - (1 - level)) > 3 / 1000:
            assert (p < 1 - level) == (not interval.low <= 0 <= interval.high)


def test_p_value_of_no_difference_and_of_a_sure_one() -> None:
    resamples = PatientResamples(np.arange(30), resamples=999, rng=np.random.default_rng(0))
    assert resamples.p_value(np.zeros(30)) == 1.0
    assert resamples.p_value(np.ones(30)) == 2 / 1000
    assert resamples.p_value(-np.ones(30)) == 2 / 1000


def test_means_that_are_zero_but_for_rounding_count_on_both_sides() -> None:
    differences = np.tile([0.1, 0.2, -0.3], 10)  # 0.1 + 0.2 - 0.3 is 5.6e-17
    clusters = np.arange(30) // 3
    assert PatientResamples(clusters, resamples=99, rng=np.random.default_rng(0)).p_value(differences) == 1.0


def test_p_values_of_equal_models_are_below_five_percent_about_as_often() -> None:
    rng = np.random.default_rng(3)
    resamples = PatientResamples(np.arange(400) // 2, resamples=499, rng=rng)
    differences = np.repeat(rng.normal(size=(200, 600)), 2, axis=0)
    below = np.mean([resamples.p_value(column) <= 0.05 for column in differences.T])
    assert below == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 600))


def test_values_of_other_queries_are_refused() -> None:
    resamples = PatientResamples(np.arange(5), resamples=9, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="4 values for 5 queries"):
        resamples.means(np.ones(4))
