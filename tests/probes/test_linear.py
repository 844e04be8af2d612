"""Linear probes against scikit-learn's own pipeline, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from symile_clin.probes.linear import PENALTIES, Probe, fit_probe, standard

Data = tuple[NDArray[np.float64], NDArray[np.bool_]]


def _data(seed: int, n: int = 300, *, signal: float = 1.0) -> Data:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    x = rng.standard_normal((n, 12)) * np.geomspace(0.01, 50, 12) + 5
    x[:, 3] += signal * x[:, 3].std() * y
    return x, y


def _fit(train: Data, val: Data) -> Probe:
    standardised = standard(train[0])
    return fit_probe(standardised(train[0]), train[1], standardised(val[0]), val[1], standardised=standardised)


def test_it_is_the_best_of_scikit_learns_pipelines_on_val() -> None:
    train, val = _data(0), _data(1)
    losses, forecasts = {}, {}
    for penalty in PENALTIES:
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=1 / (penalty * len(train[0])), tol=1e-8, max_iter=10_000)
        ).fit(*train)
        forecasts[penalty] = model.predict_proba(val[0])[:, 1]
        losses[penalty] = sklearn_log_loss(val[1], forecasts[penalty])
    best = min(losses, key=lambda penalty: losses[penalty])
    found = _fit(train, val)
    assert found.penalty == best
    given = 1 / (1 + np.exp(-found.logit(val[0])))
    np.testing.assert_allclose(given, forecasts[best], atol=2e-4)


def test_nothing_is_drawn() -> None:
    first, second = (_fit(_data(0), _data(1)) for _ in range(2))
    assert first.intercept == second.intercept
    np.testing.assert_array_equal(first.weights, second.weights)


def test_what_tells_nothing_gets_a_strong_penalty_and_the_prevalence() -> None:
    train = _data(0, signal=0.0)
    found = _fit(train, _data(1, signal=0.0))
    assert found.penalty >= 1
    given = 1 / (1 + np.exp(-found.logit(train[0])))
    assert given.mean() == pytest.approx(train[1].mean(), abs=1e-3)  # classes keep their weights
    assert given.std() < 0.05


def test_a_feature_that_never_changes_is_of_no_weight() -> None:
    (x, y), (val_x, val_y) = _data(0), _data(1)
    x[:, 5] = val_x[:, 5] = 1e6
    found = _fit((x, y), (val_x, val_y))
    assert np.isfinite(found.weights).all()
    assert found.weights[5] == pytest.approx(0.0, abs=1e-12)
