"""Metrics of probes with intervals, all over the same bootstrap samples of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import Interval, PatientResamples
from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.probes.metrics import METRICS, Forecasts
from symile_clin.probes.probing import Probed
from symile_clin.progress import Progress
from symile_clin.rng import stream

Values = NDArray[np.float64]

#: AUROC less the baseline's on the same samples.
GAIN: Final = "auroc_gain"
#: What an average over findings is called.
MACRO: Final = "macro"
_LEVEL: Final = (0.025, 0.975)


@dataclass(frozen=True)
class Bin:
    """A point of a calibration curve.

    Attributes:
        forecast: mean forecast.
        observed: share of positives; None where so few patients are in the bin that it is not shown.
    """

    samples: int
    patients: int
    forecast: float
    observed: Interval | None


@dataclass(frozen=True)
class Judged:
    """What a probe is worth, or the average over findings.

    Attributes:
        finding: or MACRO.
        intervals: METRICS, and GAIN unless there is no baseline or this is it.
        ece_if_calibrated: ECE to expect if every forecast were right.
        undefined: resamples without either class, which are left out of the intervals.
    """

    input: str
    finding: str
    samples: int
    patients: int
    positive: int
    patients_positive: int
    patients_negative: int
    prevalence: float
    penalty: float
    intervals: Mapping[str, Interval]
    ece_if_calibrated: float
    undefined: int
    curve: tuple[Bin, ...]


@dataclass(frozen=True)
class Average:
    """The mean of every metric over the findings that all inputs are probed for.

    Attributes:
        findings: how many.
        ece_if_calibrated: the mean of theirs.
    """

    input: str
    findings: int
    intervals: Mapping[str, Interval]
    ece_if_calibrated: float


def judge(
    probed: Sequence[Probed],
    resamples: PatientResamples,
    patients: int,
    *,
    seed: int,
    min_group: int,
    progress: Progress,
) -> tuple[list[Judged], list[Average]]:
    """Estimates and percentile intervals of every probe, and of averages over findings.

    Args:
        resamples: of the `patients` patients that the forecasts number.
        seed: of the outcomes drawn for `ece_if_calibrated`.
        min_group: bins with fewer patients are not shown.
    """
    baselines = _baselines(probed)
    draws = _draw(probed, baselines, resamples, progress=progress)
    once = np.ones((patients, 1))
    judged, pairs = [], []
    for one, baseline, (drawn, curve) in zip(probed, baselines, draws, strict=True):
        found = one.forecasts.measure(once)
        estimate = found.metrics[:, 0]
        if baseline is not None:
            estimate = np.append(estimate, estimate[0] - baseline.auroc(once)[0])
        pairs.append((estimate, drawn))
        judged.append(
            _judged(
                one,
                intervals=_intervals(estimate, drawn),
                curve=_curve(one.forecasts, found.forecast[:, 0], found.observed[:, 0], curve, min_group),
                undefined=int(np.isnan(drawn[0]).sum()),
                seed=seed,
            )
        )
    return judged, _averages(judged, pairs)


def _baselines(probed: Sequence[Probed]) -> list[Forecasts | None]:
    """The baseline's forecasts for the samples of each probe; None for the baseline itself and where there is none."""
    by_finding = {one.finding: one for one in probed if one.input == DEMOGRAPHICS}
    made: dict[tuple[str, bytes], Forecasts] = {}
    found: list[Forecasts | None] = []
    for one in probed:
        baseline = by_finding.get(one.finding)
        if baseline is None or one.input == DEMOGRAPHICS:
            found.append(None)
            continue
        key = (one.finding, one.rows.tobytes())
        if key not in made:
            where = np.searchsorted(baseline.rows, one.rows)  # an input's samples are among all labelled ones
            all_of_it = baseline.forecasts
            made[key] = Forecasts(
                patient=one.forecasts.patient,
                logit=all_of_it.logit[where],
                truth=one.forecasts.truth,
                reference=all_of_it.reference,
            )
        found.append(made[key])
    return found


def _draw(
    probed: Sequence[Probed],
    baselines: Sequence[Forecasts | None],
    resamples: PatientResamples,
    *,
    progress: Progress,
) -> list[tuple[Values, Values]]:
    """Of each probe, its metrics and if it has a baseline the gain, (5 or 6, B), and its curve, (bins, B)."""
    chunks: list[list[tuple[Values, Values]]] = [[] for _ in probed]
    for counts in resamples.counts():
        weights = counts.T.astype(np.float64)
        compared: dict[int, Values] = {}
        with progress.track("resampling patients", len(probed)) as advance:
            for place, (one, baseline) in enumerate(zip(probed, baselines, strict=True)):
                found = one.forecasts.measure(weights)
                drawn = found.metrics
                if baseline is not None:
                    if id(baseline) not in compared:
                        compared[id(baseline)] = baseline.auroc(weights)
                    drawn = np.vstack([drawn, drawn[0] - compared[id(baseline)]])
                chunks[place].append((drawn, found.observed))
                advance(1)
    return [
        (np.hstack([drawn for drawn, _ in parts]), np.hstack([observed for _, observed in parts])) for parts in chunks
    ]


def _intervals(estimate: Values, drawn: Values) -> dict[str, Interval]:
    """Percentile intervals of METRICS and GAIN, over the resamples in which each is defined."""
    low, high = np.nanquantile(drawn, _LEVEL, axis=1)
    names = (*METRICS, GAIN)[: len(estimate)]
    return {name: Interval(*map(float, values)) for name, *values in zip(names, estimate, low, high, strict=True)}


def _curve(forecasts: Forecasts, forecast: Values, observed: Values, drawn: Values, min_group: int) -> tuple[Bin, ...]:
    samples, patients = forecasts.bin_sizes()
    low, high = np.nanquantile(drawn, _LEVEL, axis=1)
    return tuple(
        Bin(
            samples=int(samples[place]),
            patients=int(patients[place]),
            forecast=float(forecast[place]),
            observed=None
            if patients[place] < min_group
            else Interval(float(observed[place]), float(low[place]), float(high[place])),
        )
        for place in range(len(samples))
    )


def _judged(
    one: Probed, *, intervals: Mapping[str, Interval], curve: tuple[Bin, ...], undefined: int, seed: int
) -> Judged:
    truth, patient = one.forecasts.truth, one.forecasts.patient
    return Judged(
        input=one.input,
        finding=one.finding,
        samples=len(truth),
        patients=len(np.unique(patient)),
        positive=int(truth.sum()),
        patients_positive=len(np.unique(patient[truth])),
        patients_negative=len(np.unique(patient[~truth])),
        prevalence=float(truth.mean()),
        penalty=one.probe.penalty,
        intervals=intervals,
        ece_if_calibrated=one.forecasts.ece_if_calibrated(stream(seed, "calibrated outcomes", one.input, one.finding)),
        undefined=undefined,
        curve=curve,
    )


def _averages(judged: Sequence[Judged], pairs: Sequence[tuple[Values, Values]]) -> list[Average]:
    inputs = list(dict.fromkeys(one.input for one in judged))
    by_input = {name: {one.finding for one in judged if one.input == name} for name in inputs}
    common = set.intersection(*by_input.values()) if by_input else set()
    averages = []
    for name in inputs if common else ():
        own = [place for place, one in enumerate(judged) if one.input == name and one.finding in common]
        estimate = np.mean([pairs[place][0] for place in own], axis=0)
        drawn = np.mean([pairs[place][1] for place in own], axis=0)  # NaN where it is for one of them
        expected = float(np.mean([judged[place].ece_if_calibrated for place in own]))
        averages.append(Average(name, len(own), _intervals(estimate, drawn), expected))
    return averages
