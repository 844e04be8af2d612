"""A linear probe: logistic regression on standardised embeddings, as strong a penalty as the val split asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.probes.metrics import log_loss

Matrix = NDArray[np.float64]

#: Strengths λ that are tried, strongest first: mean log loss + λ/2 · |weights|², on standardised features.
PENALTIES: Final = (10.0, 1.0, 0.1, 0.01, 0.001)
#: Where the gradient is taken for zero, and steps until then at most.
_TOLERANCE, _STEPS = 1e-5, 20_000


@dataclass(frozen=True)
class Probe:
    """A fitted probe, in the embedding's own units: logit = x · weights + intercept.

    Attributes:
        weights: (d,)
        penalty: the λ that was chosen.
    """

    weights: Matrix
    intercept: float
    penalty: float

    def logit(self, x: Matrix) -> Matrix:
        """(n,) log-odds for features (n, d)."""
        found: Matrix = x @ self.weights + self.intercept
        return found


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of each feature over the training samples; a constant one is only centred."""

    mean: Matrix
    scale: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        """(n, d) standardised."""
        return (x - self.mean) / self.scale


def standard(x: Matrix) -> Standard:
    """Of training samples (n, d)."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    constant = scale <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
    return Standard(mean, np.where(constant, 1.0, scale))


def fit_probe(
    x: Matrix, y: NDArray[np.bool_], val_x: Matrix, val_y: NDArray[np.bool_], *, standardised: Standard
) -> Probe:
    """The probe with the smallest log loss on val, of one fit for each of PENALTIES; the stronger penalty of equals.

    Nothing is drawn, so the same numbers give the same probe. Classes keep their weights: a probe that was told of
    other prevalences would forecast them, and its probabilities are to be judged.

    Args:
        x: (n, d) training samples, standardised.
        val_x: the same of val samples.
        standardised: how they were, to give weights in the features' own units.
    """
    from sklearn.linear_model import LogisticRegression

    chosen, best = None, np.inf
    model = LogisticRegression(solver="lbfgs", tol=_TOLERANCE, max_iter=_STEPS, warm_start=True)
    for penalty in PENALTIES:
        # scikit-learn's C multiplies the sum of losses, not their mean
        model.set_params(C=1 / (penalty * len(x))).fit(x, y)
        weights, intercept = model.coef_[0].copy(), float(model.intercept_[0])
        loss = log_loss(val_x @ weights + intercept, val_y)
        if loss < best:
            chosen, best = (weights, intercept, penalty), loss
    assert chosen is not None
    weights, intercept, penalty = chosen
    own = weights / standardised.scale
    return Probe(weights=own, intercept=intercept - float(own @ standardised.mean), penalty=penalty)
