"""Do 95 % intervals hold the truth in 95 % of repetitions? The full tables are scripts/simulate_coverage.py's."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.simulate_coverage import (
    AS_IN_COHORTS,
    CORRELATION,
    QUERIES,
    SETTINGS,
    UNEQUAL,
    Setting,
    hits,
    patients,
    simulate,
    simulate_gaps,
)

ASKED = [setting for setting in SETTINGS if setting.queries == QUERIES and setting.p in (0.3, 0.5)]


def test_the_simulated_hits_are_correlated_within_a_patient_as_said() -> None:
    rng = np.random.default_rng(0)
    pairs = hits(np.repeat(np.arange(400), 2), 0.3, 100, rng).reshape(400, 2, 100)
    assert pairs.mean() == pytest.approx(0.3, abs=0.01)
    assert np.corrcoef(pairs[:, 0].ravel(), pairs[:, 1].ravel())[0, 1] == pytest.approx(CORRELATION, abs=0.02)


@pytest.mark.parametrize(("share", "mean"), [(AS_IN_COHORTS, 1.3), (UNEQUAL, 4.1)])
def test_the_simulated_patients_have_as_many_queries_as_said(share: tuple[float, ...], mean: float) -> None:
    patient = patients(Setting("", 40_000, share, 0.3), np.random.default_rng(0))
    assert len(patient) == 40_000
    assert len(patient) / len(np.unique(patient)) == pytest.approx(mean, rel=0.1)


def test_patients_resampled_hold_the_truth_and_queries_resampled_do_not() -> None:
    """A few repetitions only: standard error 1 point."""
    found = simulate(Setting("", QUERIES, UNEQUAL, 0.5), repetitions=500, seed=1, resamples=500)
    assert 0.92 < found["percentile"].held < 0.98
    assert 0.92 < found["bca"].held < 0.98
    assert found["queries resampled"].held < 0.85
    assert found["queries resampled"].width < 0.8 * found["percentile"].width


def test_gaps_are_held_whether_there_is_one_or_not() -> None:
    nothing = simulate_gaps((0.5, 0.5, 0.5), (0.6, 0.3, 0.1), repetitions=150, seed=0, resamples=200)
    assert nothing.held > 0.88
    assert nothing.naive < 0.2  # percentiles of gaps never come down to a gap of none
    assert nothing.significant < 0.12
    assert nothing.bias == pytest.approx(nothing.null, rel=0.2)
    planted = simulate_gaps((0.2, 0.7), (0.5, 0.5), repetitions=100, seed=0, resamples=200)
    assert planted.held > 0.88
    assert planted.significant > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("setting", ASKED, ids=lambda setting: f"{setting.name}, p {setting.p}")
def test_clustered_intervals_cover_between_93_and_97_percent(setting: Setting) -> None:
    """With 2,000 resamples instead of 10,000, which moves an end by about 0.001."""
    found = simulate(setting, repetitions=4_000, seed=0, resamples=2_000)
    for way in ("percentile", "bca"):
        assert 0.93 <= found[way].held <= 0.97
