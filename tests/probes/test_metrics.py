"""Metrics of forecasts under patient weights, against scikit-learn asked once for every resample."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from symile_clin.evaluation.bootstrap import PatientResamples
from symile_clin.probes.metrics import METRICS, Forecasts, log_loss, probability

PATIENTS = 40


def _forecasts(seed: int = 0, *, n: int = 130, decimals: int = 1) -> Forecasts:
    """Forecasts with many ties, of patients with one to many samples."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    return Forecasts(
        patient=rng.integers(PATIENTS, size=n),
        logit=np.round(rng.standard_normal(n) + 0.8 * truth, decimals).astype(np.float64),
        truth=truth,
        reference=0.35,
    )


def _drawn(resamples: int, seed: int = 1) -> NDArray[np.float64]:
    """(patients, b) how often each patient is drawn."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(PATIENTS, size=(resamples, PATIENTS))
    return np.stack([np.bincount(one, minlength=PATIENTS) for one in draws], axis=1).astype(np.float64)


def _ece(forecasts: Forecasts, weight: NDArray[np.float64]) -> float:
    """In loop form, over the bins of the whole sample."""
    order = np.argsort(forecasts.logit, kind="stable")
    ends = [*forecasts.bins[1:], len(order)]
    total = 0.0
    for start, end in zip(forecasts.bins, ends, strict=True):
        members = [(weight[place], forecasts.probability[place], forecasts.truth[place]) for place in order[start:end]]
        total += abs(sum(w * p for w, p, _ in members) - sum(w * t for w, _, t in members))
    return total / float(weight.sum())


def test_every_resample_is_what_scikit_learn_says_with_these_weights() -> None:
    forecasts, weights = _forecasts(), _drawn(25)
    found = forecasts.measure(weights).metrics
    assert found.shape == (len(METRICS), 25)
    for column, own in enumerate(weights.T):
        weight = own[forecasts.patient]
        kept = weight > 0
        truth, given, w = forecasts.truth[kept], forecasts.probability[kept], weight[kept]
        score = forecasts.logit[kept]
        brier = brier_score_loss(truth, given, sample_weight=w)
        reference = brier_score_loss(truth, np.full_like(given, forecasts.reference), sample_weight=w)
        expected = [
            roc_auc_score(truth, score, sample_weight=w),
            average_precision_score(truth, score, sample_weight=w),
            brier,
            1 - brier / reference,
            _ece(forecasts, weight),
        ]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-12, err_msg=str(METRICS))


def test_weights_of_one_give_the_estimate() -> None:
    forecasts = _forecasts(3)
    found = forecasts.measure(np.ones((PATIENTS, 1)))
    assert found.metrics[0, 0] == pytest.approx(roc_auc_score(forecasts.truth, forecasts.logit))
    assert forecasts.auroc(np.ones((PATIENTS, 1)))[0] == found.metrics[0, 0]


def test_counts_of_the_bootstrap_are_such_weights() -> None:
    clusters = np.repeat(np.arange(PATIENTS), 3)
    resamples = PatientResamples(clusters, resamples=300, rng=np.random.default_rng(0))
    counts = np.concatenate(list(resamples.counts()))
    assert counts.shape == (300, PATIENTS)
    assert (counts.sum(axis=1) == PATIENTS).all()
    values = np.random.default_rng(1).random(len(clusters))
    by_weight = [np.average(values, weights=own[clusters]) for own in counts]
    np.testing.assert_allclose(resamples.means(values), by_weight)


def test_a_hand_worked_case_with_a_tie() -> None:
    # lowest to highest: negative, (positive, negative), positive; patient 2 counts twice
    forecasts = Forecasts(
        patient=np.array([0, 1, 2, 3]),
        logit=np.array([-1.0, 0.0, 0.0, 2.0]),
        truth=np.array([False, True, False, True]),
        reference=0.5,
    )
    weights = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    auroc, auprc, *_ = forecasts.measure(weights).metrics
    assert auroc == pytest.approx([(1.5 + 2) / 4, (1 + 2 / 2 + 3) / 6])
    assert auprc == pytest.approx([0.5 * 1 + 0.5 * 2 / 3, 0.5 * 1 + 0.5 * 2 / 4])


def test_equal_forecasts_tell_nothing() -> None:
    forecasts = _forecasts()
    flat = Forecasts(forecasts.patient, np.zeros(len(forecasts.truth)), forecasts.truth, reference=0.5)
    found = flat.measure(_drawn(5)).metrics
    np.testing.assert_allclose(found[0], 0.5)
    np.testing.assert_allclose(found[3], 0.0, atol=1e-12)  # 1/2 is what the reference says, too
    assert list(flat.bins) == [0]


def test_a_resample_without_either_class_has_no_ranking_but_a_brier_score() -> None:
    forecasts = _forecasts()
    has = np.unique(forecasts.patient[forecasts.truth])
    weights = np.ones((PATIENTS, 2))
    weights[has, 0] = 0.0
    metrics = forecasts.measure(weights).metrics
    assert np.isnan(metrics[:2, 0]).all()
    assert np.isfinite(metrics[2:, 0]).all()
    assert np.isfinite(metrics[:, 1]).all()


def test_bins_are_quantiles_that_never_part_equal_forecasts() -> None:
    apart = _forecasts(n=200, decimals=9)
    assert list(apart.bins) == [20 * place for place in range(10)]
    tied = _forecasts(n=200, decimals=0)
    ordered = np.sort(tied.logit)
    assert (ordered[tied.bins[1:]] > ordered[tied.bins[1:] - 1]).all()
    samples, patients = tied.bin_sizes()
    assert samples.sum() == 200
    assert (patients <= samples).all()
    assert len(_forecasts(n=45).bins) <= 2  # few samples, few bins


def test_the_expected_error_of_a_calibrated_forecast_is_that_of_outcomes_drawn_from_it() -> None:
    rng = np.random.default_rng(0)
    base = _forecasts(n=120, decimals=9)
    errors = []
    for _ in range(300):
        truth = rng.random(120) < base.probability
        errors.append(_ece(Forecasts(base.patient, base.logit, truth, 0.5), np.ones(120)))
    assert base.ece_if_calibrated(np.random.default_rng(1)) == pytest.approx(np.mean(errors), rel=0.05)


def test_extreme_log_odds_stay_finite() -> None:
    assert probability(np.array([-2000.0, 0.0, 2000.0])) == pytest.approx([0.0, 0.5, 1.0])
    assert log_loss(np.array([2000.0, -2000.0]), np.array([True, True])) == pytest.approx(1000.0)
