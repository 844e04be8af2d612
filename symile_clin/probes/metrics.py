"""How good forecasts of a finding are, worked out for all bootstrap samples of patients at once.

No metric here but the Brier score is a mean, so resamples are weights: a patient drawn twice counts twice. Forecasts
are sorted once; sums over what is sorted then give every metric for a matrix of weights, exactly, ties included. The
estimate is the same function, with every weight 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

METRICS: Final = ("auroc", "auprc", "brier", "brier_skill", "ece")
#: Bins of a calibration curve, and how many samples each must hold if there are few.
BINS: Final = 10
SAMPLES_PER_BIN: Final = 20
#: Drawn outcomes of the expected calibration error of a calibrated forecast.
OUTCOMES: Final = 1000


@dataclass(frozen=True)
class Measures:
    """What `Forecasts.measure` finds.

    Attributes:
        metrics: (5, b) METRICS; AUROC and AUPRC are NaN where the weights leave only one class.
        forecast, observed: (bins, b) mean forecast and share of positives in each bin; NaN where it is empty.
    """

    metrics: Values
    forecast: Values
    observed: Values


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of one finding from one input.

    Attributes:
        patient: (n,) number of each sample's patient: its row in the weights.
        logit: (n,) log-odds that the finding is there.
        truth: (n,) bool.
        reference: what is forecast for everybody by who knows only how often the finding is there in train.
    """

    patient: NDArray[np.int64]
    logit: Values
    truth: NDArray[np.bool_]
    reference: float

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.logit, kind="stable")

    @cached_property
    def _ties(self) -> NDArray[np.int64]:
        """Where in the order a new forecast begins."""
        sorted_logit = self.logit[self._order]
        return np.flatnonzero(np.r_[True, sorted_logit[1:] > sorted_logit[:-1]])

    @cached_property
    def probability(self) -> Values:
        """(n,) forecasts as probabilities."""
        return probability(self.logit)

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """Where in the order each bin of the calibration curve begins: quantiles; equal forecasts share a bin."""
        n = len(self.logit)
        count = max(1, min(BINS, n // SAMPLES_PER_BIN))
        cuts = np.arange(count) * n // count
        return np.unique(self._ties[np.searchsorted(self._ties, cuts, side="right") - 1])

    def measure(self, weights: Values) -> Measures:
        """Everything about these forecasts, under each column of `weights`.

        AUROC is the share of (positive, negative) pairs in the right order, ties counted half; AUPRC the average
        precision, without interpolation; the Brier score the mean squared error of the probabilities, and its skill
        1 − Brier / (Brier of `reference`); ECE the mean over bins of |mean forecast − share of positives|, weighted by
        the samples in each.

        Args:
            weights: (patients, b) how often each patient counts.

        Source:
            Hanley and McNeil (1982), Radiology 143; Brier (1950), Mon. Weather Rev. 78; Naeini, Cooper and Hauskrecht
            (2015), AAAI 29.
        """
        weight = weights[self.patient[self._order]]
        there = weight * self.truth[self._order][:, None]
        positive = np.add.reduceat(there, self._ties, axis=0)
        negative = np.add.reduceat(weight, self._ties, axis=0) - positive
        auroc, auprc = _ranked(positive, negative)
        brier, skill = self._brier(weight)
        mass = np.add.reduceat(weight, self.bins, axis=0)
        forecast = np.add.reduceat(weight * self.probability[self._order][:, None], self.bins, axis=0)
        observed = np.add.reduceat(there, self.bins, axis=0)
        ece = _ratio(np.abs(forecast - observed).sum(axis=0), mass.sum(axis=0))
        return Measures(
            metrics=np.stack([auroc, auprc, brier, skill, ece]),
            forecast=_ratio(forecast, mass),
            observed=_ratio(observed, mass),
        )

    def auroc(self, weights: Values) -> Values:
        """(b,) the AUROC alone."""
        weight = weights[self.patient[self._order]]
        positive = np.add.reduceat(weight * self.truth[self._order][:, None], self._ties, axis=0)
        return _auroc(positive, np.add.reduceat(weight, self._ties, axis=0) - positive)

    def bin_sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Samples and patients in each bin."""
        ends = np.r_[self.bins[1:], len(self.logit)]
        in_order = self.patient[self._order]
        patients = [len(np.unique(in_order[start:end])) for start, end in zip(self.bins, ends, strict=True)]
        return ends - self.bins, np.array(patients, dtype=np.int64)

    def ece_if_calibrated(self, rng: np.random.Generator) -> float:
        """ECE to expect of these forecasts if each were exactly right: it is never 0, for outcomes are drawn.

        Source:
            Bröcker and Smith (2007), Increasing the reliability of reliability diagrams, Weather and Forecasting 22.
        """
        forecast = self.probability[self._order][:, None]
        drawn = rng.random((len(forecast), OUTCOMES)) < forecast
        gap = np.add.reduceat(drawn - forecast, self.bins, axis=0)
        return float(np.abs(gap).sum(axis=0).mean() / len(forecast))

    def _brier(self, weight: Values) -> tuple[Values, Values]:
        """The score and its skill, (b,) each."""
        truth = self.truth[self._order]
        own, reference = (self.probability[self._order] - truth) ** 2 @ weight, (self.reference - truth) ** 2 @ weight
        return _ratio(own, weight.sum(axis=0)), 1 - _ratio(own, reference)


def probability(logit: Values) -> Values:
    """1 / (1 + exp(−logit)) without overflow."""
    found: Values = np.exp(-np.logaddexp(0.0, -logit))
    return found


def log_loss(logit: Values, truth: NDArray[Any]) -> float:
    """Mean of −log of the probability given to what is true, in nats."""
    return float(np.logaddexp(0.0, np.where(truth, -logit, logit)).mean())


def _auroc(positive: Values, negative: Values) -> Values:
    """(b,) from weights of positives and negatives at each distinct forecast, (g, b), lowest first."""
    below = np.cumsum(negative, axis=0)
    pairs = positive.sum(axis=0) * below[-1]
    return _ratio((positive * (below - negative / 2)).sum(axis=0), pairs)


def _ranked(positive: Values, negative: Values) -> tuple[Values, Values]:
    """AUROC and average precision, (b,) each; arguments as in `_auroc`."""
    auroc = _auroc(positive, negative)
    found = np.cumsum(positive[::-1], axis=0)
    taken = np.cumsum((positive + negative)[::-1], axis=0)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    average = _ratio((precision * positive[::-1]).sum(axis=0), found[-1])
    average[np.isnan(auroc)] = np.nan  # without negatives it would be 1, whatever the forecasts
    return auroc, average


def _ratio(upper: Values, lower: Values) -> Values:
    """upper / lower, NaN where that is 0 / 0."""
    return np.divide(upper, lower, out=np.full_like(lower, np.nan), where=lower > 0)
