"""Findings of what is retrieved, against a slow oracle that puts ties in every order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import PatientResamples
from symile_clin.probes import zero_shot
from symile_clin.probes.zero_shot import Retrieved, lifts, measure

NAN = float("nan")


def _oracle(
    scores: NDArray[np.float64], label: NDArray[np.float64], others: NDArray[np.bool_], top: int
) -> tuple[float, float, float]:
    """Precision of the first `top`, prevalence and AUROC of one query, averaged over all orders of its candidates."""
    kept = [place for place in range(len(scores)) if others[place] and not np.isnan(label[place])]
    precisions = []
    for order in permutations(kept):
        first = sorted(order, key=lambda place: -scores[place])[:top]  # stable: ties stay in this order
        precisions.append(np.mean([label[place] for place in first]))
    won, pairs = 0.0, 0
    for a in kept:
        for b in kept:
            if label[a] == 1 and label[b] == 0:
                won += 1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0
                pairs += 1
    return float(np.mean(precisions)), float(np.mean(label[kept])), won / pairs if pairs else NAN


@pytest.mark.parametrize("seed", range(6))
def test_every_query_is_measured_as_if_ties_were_put_in_random_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_shot, "TOP", 3)
    rng = np.random.default_rng(seed)
    scores = rng.integers(3, size=(4, 6)).astype(np.float64)
    labels = rng.choice([0.0, 1.0, NAN], p=[0.45, 0.45, 0.1], size=(6, 2))
    others = rng.random((4, 6)) < 0.9
    found = measure(scores, labels, others)
    for query in range(4):
        for column in range(2):
            expected = _oracle(scores[query], labels[:, column], others[query], 3)
            np.testing.assert_allclose(found[:, query, column], expected, rtol=1e-12)


def test_a_model_that_scores_all_alike_retrieves_what_there_is() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((30, 1)) < 0.3).astype(np.float64)
    precision, prevalence, auroc = measure(np.zeros((5, 30)), labels, np.ones((5, 30), dtype=np.bool_))[:, :, 0]
    np.testing.assert_allclose(precision, prevalence)
    np.testing.assert_allclose(auroc, 0.5)


def test_candidates_that_cannot_tell_leave_no_number() -> None:
    labels = np.array([[1.0, NAN], [1.0, NAN]])
    found = measure(np.array([[1.0, 0.0]]), labels, np.ones((1, 2), dtype=np.bool_))
    assert found[0, 0, 0] == found[1, 0, 0] == 1.0
    assert np.isnan(found[2, 0, 0])  # none without it
    assert np.isnan(found[:, 0, 1]).all()


def _retrieved(rng: np.random.Generator, q: int = 120) -> Retrieved:
    labels = (rng.random((q, 1)) < 0.4).astype(np.float64)
    values = np.stack([np.clip(0.4 + 0.4 * labels, 0, 1), np.full((q, 1), 0.4), 0.5 + 0.3 * (labels - 0.5)])
    return Retrieved(values=values, labels=labels, patient=np.arange(q) // 2)


def test_lifts_are_means_over_queries_with_and_without_the_finding() -> None:
    found = _retrieved(np.random.default_rng(0))
    resamples = PatientResamples(found.patient, resamples=500, rng=np.random.default_rng(1))
    (one,) = lifts(found, ["edema"], resamples)
    assert one.queries == int(found.labels.sum())
    assert one.patients == len(np.unique(found.patient[found.labels[:, 0] == 1]))
    assert one.precision.estimate == pytest.approx(0.8)
    assert one.lift.estimate == pytest.approx(2.0)
    assert one.prevalence == pytest.approx(0.4)
    assert one.auroc.estimate == pytest.approx(0.65)
    assert one.auroc_without.estimate == pytest.approx(0.35)
    assert one.auroc_contrast.estimate == pytest.approx(0.3)
    assert one.precision_without.estimate == pytest.approx(0.4)
    assert one.precision_contrast.estimate == pytest.approx(0.4)


def test_intervals_of_lifts_are_over_patients() -> None:
    rng = np.random.default_rng(0)
    found = _retrieved(rng)
    found.values[0, :, 0] = rng.random(60)[found.patient]  # one value a patient
    resamples = PatientResamples(found.patient, resamples=4000, rng=np.random.default_rng(1))
    (one,) = lifts(found, ["edema"], resamples)
    has = found.labels[:, 0] == 1
    sums = np.bincount(found.patient, weights=found.values[0, :, 0] * has)
    sizes = np.bincount(found.patient, weights=has)
    draws = np.random.default_rng(2).integers(60, size=(4000, 60))
    expected = np.quantile(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1), [0.025, 0.975])
    assert [one.precision.low, one.precision.high] == pytest.approx(expected, abs=0.01)


def test_a_finding_that_no_query_lacks_is_not_listed() -> None:
    found = _retrieved(np.random.default_rng(0))
    resamples = PatientResamples(found.patient, resamples=10, rng=np.random.default_rng(1))
    everybody = Retrieved(found.values, np.ones_like(found.labels), found.patient)
    assert lifts(everybody, ["edema"], resamples) == []


def test_samples_that_are_no_queries_change_nothing() -> None:
    found = _retrieved(np.random.default_rng(0), q=20)
    wide = found.among(25, np.arange(3, 23))
    patients = np.r_[[90, 90, 91], found.patient, [91, 92]]
    resamples = PatientResamples(patients, resamples=50, rng=np.random.default_rng(1))
    (one,) = lifts(wide, ["edema"], resamples)
    assert one.precision.estimate == pytest.approx(0.8)
    assert one.queries == int(found.labels.sum())
