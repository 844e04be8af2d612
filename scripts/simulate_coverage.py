"""How often the intervals of symile_clin.evaluation.bootstrap hold the truth, where the truth is known.

    python scripts/simulate_coverage.py [--repetitions 4000] [--seed 0]

Every repetition is a test set: hits and misses of queries, correlated within a patient as in a beta-binomial
distribution. Its intervals come from the very code of the evaluation, with its 10,000 resamples. One draw of resamples
serves the repetitions of a block (200), as one serves all metrics of an evaluation; each block draws the patients'
numbers of queries and the resamples anew. A second table does the same for the gap between groups of patients, with
1,000 resamples and shufflings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import RESAMPLES, Interval, PatientResamples
from symile_clin.evaluation.subgroups import gap_interval, shuffled_gaps
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

#: True accuracy of each group of patients, and its share of them.
GAPS: Final = (
    ((0.5, 0.5), (0.5, 0.5)),
    ((0.4, 0.6), (0.5, 0.5)),
    ((0.5, 0.5, 0.5, 0.5, 0.5), (0.6, 0.2, 0.1, 0.05, 0.05)),
    ((0.5, 0.5, 0.5, 0.5, 0.2), (0.6, 0.2, 0.1, 0.05, 0.05)),
    ((0.3, 0.4, 0.5, 0.6), (0.25, 0.25, 0.25, 0.25)),
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


def hits(
    patient: NDArray[np.int64], p: float | NDArray[np.float64], repetitions: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(queries, repetitions) of 0 and 1 with mean `p`, correlated by CORRELATION within a patient.

    Each patient's own accuracy is drawn from Beta(p c, (1 − p) c), c = 1 / CORRELATION − 1.

    Args:
        p: of all patients, or (patients, 1) of each.
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


@dataclass(frozen=True)
class GapCoverage:
    """What became of the interval and the p-value of gaps.

    Attributes:
        held: share of repetitions whose interval holds the true gap.
        naive: the same for percentiles of the resampled gaps.
        bias: mean of the estimates minus the truth.
        null: mean of the gaps that shuffled patients show.
        significant: share of repetitions with p <= 0.05.
    """

    held: float
    naive: float
    bias: float
    null: float
    significant: float


def simulate_gaps(
    truths: Sequence[float], shares: Sequence[float], *, repetitions: int, seed: int, resamples: int = 1_000
) -> GapCoverage:
    """Coverage of the interval of the largest minus the smallest accuracy of groups."""
    true = max(truths) - min(truths)
    found: list[tuple[float, ...]] = []
    for repetition in range(repetitions):
        rng = stream(seed, "gaps", str(truths), str(shares), repetition)
        patient = patients(Setting("", QUERIES, AS_IN_COHORTS, 0.5), rng)
        group = rng.choice(len(shares), p=shares, size=patient.max() + 1)
        values = hits(patient, np.array(truths)[group][:, None], 1, rng)[:, 0]
        members = group[patient][:, None] == np.arange(len(shares))
        weights = members.astype(np.float64)
        draws = PatientResamples(patient, resamples=resamples, rng=rng)
        means = values @ weights / weights.sum(axis=0)
        hit, n = draws.totals(weights * values[:, None]), draws.totals(weights)
        drawn = np.divide(hit, n, out=np.full_like(hit, np.nan), where=n > 0)
        interval = gap_interval(means, drawn)
        low, high = np.quantile(np.nanmax(drawn, axis=1) - np.nanmin(drawn, axis=1), (0.025, 0.975))
        shuffled = shuffled_gaps(values, members, patient, shuffles=resamples, rng=rng)
        p = (1 + np.count_nonzero(shuffled >= interval.estimate - 1e-12)) / (1 + resamples)
        found.append(
            (
                interval.low <= true <= interval.high,
                low <= true <= high,
                interval.estimate - true,
                float(shuffled.mean()),
                float(p <= 0.05),
            )
        )
    return GapCoverage(*map(float, np.mean(found, axis=0)))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables of docs/evaluation.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4_000)
    parser.add_argument("--gap-repetitions", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    error = 100 * np.sqrt(0.95 * 0.05 / asked.repetitions)
    print(f"{asked.repetitions:,} repetitions: standard error {error:.2f} points at 95 %; in brackets: below, above")
    print("| setting | queries | patients | p | " + " | ".join(WAYS) + " |\n|" + "---|" * (4 + len(WAYS)))
    for setting in SETTINGS:
        number = len(np.unique(patients(setting, stream(asked.seed, "coverage", setting.name, str(setting.p), 0))))
        found = simulate(setting, repetitions=asked.repetitions, seed=asked.seed)
        cells = [
            f"{100 * found[way].held:.1f} ({100 * found[way].below:.1f}, {100 * found[way].above:.1f})" for way in WAYS
        ]
        print(
            f"| {setting.name} | {setting.queries} | {number} | {setting.p} | " + " | ".join(cells) + " |", flush=True
        )
    print(f"\n{asked.gap_repetitions:,} repetitions: gaps between groups of patients, {QUERIES} queries")
    print("| true accuracies | shares | true gap | mean estimate | at random", end="")
    print(" | interval holds | percentiles hold | p <= 0.05 |")
    print("|" + "---|" * 8)
    for truths, shares in GAPS:
        gap = simulate_gaps(truths, shares, repetitions=asked.gap_repetitions, seed=asked.seed)
        true = max(truths) - min(truths)
        print(
            f"| {', '.join(map(str, truths))} | {', '.join(map(str, shares))} | {true:.2f} | {true + gap.bias:.2f} "
            f"| {gap.null:.2f} | {100 * gap.held:.1f} | {100 * gap.naive:.1f} | {100 * gap.significant:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
