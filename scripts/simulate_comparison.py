"""How often comparisons of runs that do not differ say that they do: `python scripts/simulate_comparison.py`.

232 patients have two queries each. What makes a query hard is common to all runs; each run errs in its own way on top,
in part on whole patients; and a seed moves a run on all queries at once. No two configs differ, so that every finding
is false, and 0 is the difference that intervals should hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import PatientResamples
from symile_clin.evaluation.paired_tests import mcnemar
from symile_clin.rng import stream

PATIENTS: Final = 232
QUERIES_EACH: Final = 2
PATIENT: Final = np.repeat(np.arange(PATIENTS), QUERIES_EACH)
RESAMPLES: Final = 2_000
#: Share of queries that a run has right.
HITS: Final = 0.4

Values = NDArray[np.float64]


def hits(runs: int, *, own_by_patient: float, seed_sd: float, rng: np.random.Generator) -> Values:
    """(runs, q) 1 where a run has a query right.

    Args:
        own_by_patient: share of a run's own errors' variance that the queries of a patient have in common.
        seed_sd: of what a seed adds to all queries of a run, where a query's whole latent variance is 1.
    """
    shared = rng.normal(size=len(PATIENT)) * np.sqrt(0.5)
    by_patient = rng.normal(size=(runs, PATIENTS))[:, PATIENT] * np.sqrt(own_by_patient)
    by_query = rng.normal(size=(runs, len(PATIENT))) * np.sqrt(1 - own_by_patient)
    latent = shared + np.sqrt(0.5) * (by_patient + by_query) + seed_sd * rng.normal(size=(runs, 1))
    found: Values = (latent < NormalDist().inv_cdf(HITS)).astype(np.float64)
    return found


def false_findings(repetitions: int, *, own_by_patient: float, seed: int) -> dict[str, float]:
    """Share of comparisons of two runs that a test calls different at 0.05."""
    rng = stream(seed, "two runs", str(own_by_patient))
    found = {"bootstrap of patients": 0, "McNemar": 0}
    for _ in range(repetitions):
        first, second = hits(2, own_by_patient=own_by_patient, seed_sd=0.0, rng=rng)
        draws = PatientResamples(PATIENT, resamples=RESAMPLES, rng=rng)
        found["bootstrap of patients"] += draws.p_value(first - second) <= 0.05
        found["McNemar"] += mcnemar(first, second).p <= 0.05
    return {test: count / repetitions for test, count in found.items()}


def covered(repetitions: int, *, seeds: int, seed_sd: float, seed: int) -> dict[str, float]:
    """Share of intervals of the difference of two configs, of so many seeds each, that hold the true one: 0."""
    rng = stream(seed, "configs", str(seeds), str(seed_sd))
    found = {"patients alone": 0, "patients and seeds": 0}
    spread = []
    for _ in range(repetitions):
        values = hits(2 * seeds, own_by_patient=0.33, seed_sd=seed_sd, rng=rng)
        first, second = values[:seeds], values[seeds:]
        interval = PatientResamples(PATIENT, resamples=RESAMPLES, rng=rng).interval(first.mean(0) - second.mean(0))
        found["patients alone"] += interval.low <= 0 <= interval.high
        if seeds > 1:
            of_seeds = [side.mean(1).std(ddof=1) for side in (first, second)]
            spread += of_seeds
            sampling = (interval.high - interval.low) / (2 * 1.96)
            whole = 1.96 * np.sqrt(sampling**2 + sum(sd**2 / seeds for sd in of_seeds))
            found["patients and seeds"] += abs(interval.estimate) <= whole
    shares = {kind: count / repetitions for kind, count in found.items() if seeds > 1 or kind == "patients alone"}
    return shares | ({"SD between seeds": float(np.mean(spread))} if spread else {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    error = np.sqrt(0.05 * 0.95 / given.repetitions)
    print(f"{given.repetitions:,} repetitions, Monte Carlo error of a share near 0.05: {error:.4f}")
    for own_by_patient in (0.0, 0.33, 0.67):
        shares = false_findings(given.repetitions, own_by_patient=own_by_patient, seed=given.seed)
        print(f"errors shared by a patient's queries {own_by_patient:.2f}: {_line(shares)}", flush=True)
    for seed_sd in (0.0, 0.1):
        for seeds in (1, 3, 5):
            shares = covered(given.repetitions, seeds=seeds, seed_sd=seed_sd, seed=given.seed)
            print(f"latent SD of seeds {seed_sd:.1f}, {seeds} seeds a config: {_line(shares)}", flush=True)


def _line(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())


if __name__ == "__main__":
    main()
