"""How often the intervals of symile_clin.evaluation.bootstrap hold the truth, where the truth is known.

    python scripts/simulate_coverage.py [--repetitions 4000] [--seed 0]

Every repetition is a test set: hits and misses of queries, correlated within a patient as in a beta-binomial
distribution. Its intervals come from the very code of the evaluation, with its 10,000 resamples. One draw of resamples
serves the repetitions of a block (200), as one serves all metrics of an evaluation; each block draws the patients'
numbers of queries and the resamples anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import RESAMPLES, Interval, PatientResamples
from symile_clin.rng import stream

QUERIES: Final = 464
CORRELATION: Final = 0.33
BLOCK: Final = 200
WAYS: Final = ("percentile", "bca", "queries resampled")

#: How many patients in a hundred have 1, 2, 3, ... queries: 1.3 on average, as admissions of a cohort.
AS_IN_COHORTS: Final = (80, 13, 4.5, 1.5, 1)
#: 4 on average, from 1 to 16: few patients make up most of the queries.
UNEQUAL: Final = (40, 10, 8, 6, 6, 6, 6, 4, 4, 3, 2, 1, 1, 1, 1, 1)


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        share: of patients with 1, 2, 3, ... queries, up to a factor.
        p: true accuracy.
    """

    name: str
    queries: int
    share: Sequence[float]
    p: float


SETTINGS: Final = (
    Setting("as in cohorts", QUERIES, AS_IN_COHORTS, 0.3),
    Setting("as in cohorts", QUERIES, AS_IN_COHORTS, 0.5),
    Setting("many queries of some", QUERIES, UNEQUAL, 0.3),
    Setting("many queries of some", QUERIES, UNEQUAL, 0.5),
    Setting("few patients", 52, AS_IN_COHORTS, 0.3),
    Setting("fewer", 26, AS_IN_COHORTS, 0.3),
    Setting("very few", 13, AS_IN_COHORTS, 0.3),
    Setting("few hits", QUERIES, AS_IN_COHORTS, 0.01),
)


@dataclass(frozen=True)
class Coverage:
    """What became of one way of making intervals.

    Attributes:
        held: share of repetitions whose interval holds the truth.
        below: share whose interval lies wholly below it.
        above: share whose interval lies wholly above it.
        width: mean width.
    """

    held: float
    below: float
    above: float
    width: float


def patients(setting: Setting, rng: np.random.Generator) -> NDArray[np.int64]:
    """(queries,) the patient of each query, ascending; the last patient's queries may be cut."""
    share = np.array(setting.share, dtype=np.float64)
    sizes = 1 + rng.choice(len(share), size=setting.queries, p=share / share.sum())
    return np.repeat(np.arange(setting.queries), sizes)[: setting.queries]


def hits(patient: NDArray[np.int64], p: float, repetitions: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(queries, repetitions) of 0 and 1 with mean `p`, correlated by CORRELATION within a patient.

    Each patient's own accuracy is drawn from Beta(p c, (1 − p) c), c = 1 / CORRELATION − 1.
    """
    c = 1 / CORRELATION - 1
    own = rng.beta(p * c, (1 - p) * c, size=(patient.max() + 1, repetitions))
    return (rng.random((len(patient), repetitions)) < own[patient]).astype(np.float64)


def simulate(setting: Setting, *, repetitions: int, seed: int, resamples: int = RESAMPLES) -> Mapping[str, Coverage]:
    """Coverage of nominal 95 % intervals, by way of making them."""
    found: dict[str, list[Interval]] = {way: [] for way in WAYS}
    for block in range(-(-repetitions // BLOCK)):
        rng = stream(seed, "coverage", setting.name, str(setting.p), block)
        patient = patients(setting, rng)
        values = hits(patient, setting.p, min(BLOCK, repetitions - block * BLOCK), rng)
        clustered = PatientResamples(patient, resamples=resamples, rng=rng)
        alone = PatientResamples(np.arange(setting.queries), resamples=resamples, rng=rng)
        found["percentile"] += clustered.intervals(values)
        found["bca"] += clustered.intervals(values, method="bca")
        found["queries resampled"] += alone.intervals(values)
    return {way: _coverage(intervals, setting.p) for way, intervals in found.items()}


def _coverage(intervals: Sequence[Interval], truth: float) -> Coverage:
    lows, highs = (np.array([getattr(one, end) for one in intervals]) for end in ("low", "high"))
    below, above = float((highs < truth).mean()), float((lows > truth).mean())
    return Coverage(1 - below - above, below, above, float((highs - lows).mean()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table of docs/evaluation.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    error = 100 * np.sqrt(0.95 * 0.05 / asked.repetitions)
    print(f"{asked.repetitions:,} repetitions: standard error {error:.2f} points at 95 %; in brackets: below, above")
    print("| setting | queries | patients | p | " + " | ".join(WAYS) + " |\n|" + "---|" * (4 + len(WAYS)))
    for setting in SETTINGS:
        number = len(np.unique(patients(setting, stream(asked.seed, "coverage", setting.name, str(setting.p), 0))))
        found = simulate(setting, repetitions=asked.repetitions, seed=asked.seed)
        cells = [
            f"{100 * one.held:.1f} ({100 * one.below:.1f}, {100 * one.above:.1f})"
            for one in map(found.get, WAYS)
            if one
        ]
        print(
            f"| {setting.name} | {setting.queries} | {number} | {setting.p} | " + " | ".join(cells) + " |", flush=True
        )


if __name__ == "__main__":
    main()
