"""Bootstrap intervals against a loop over resamples and patients, and against theory."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from symile_clin.errors import CohortError
from symile_clin.evaluation import bootstrap
from symile_clin.evaluation.bootstrap import (
    Interval,
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


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
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


def test_ten_thousand_resamples_of_464_queries_take_under_a_second() -> None:
    values = np.random.default_rng(0).random(464)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        bootstrap_interval(values, np.arange(464), rng=np.random.default_rng(0))
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1.0
