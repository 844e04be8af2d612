"""How near the estimators of mutual information come to a known truth, and how often the report's intervals hold.

    python scripts/bench_information.py [--seeds 3] [--coverage 400]

Prints two tables. In the first, Gaussian vectors of dimension d whose coordinates correlate by ρ share
−d/2 · log(1 − ρ²) nats. In the second, total correlation is bounded again and again on new samples, by a critic that is
right and by one that is overconfident, and it is counted how often the interval holds the mean over all repetitions.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch

from symile_clin.evaluation.bootstrap import bootstrap_interval
from symile_clin.evaluation.contrasts import Sample, terms, total_correlation
from symile_clin.evaluation.critics import Pair
from symile_clin.evaluation.estimators import ESTIMATORS, estimate_information
from symile_clin.evaluation.information import critic_of
from symile_clin.objectives import Symile

SETTINGS = ((4, 0.0), (10, 1.0), (20, 4.0), (20, 8.0))
TRAIN, HELD_OUT, N = 5_000, 8_192, 128


def gaussians(count: int, *, dim: int, information: float, seed: int) -> Pair:
    """x and y (count, dim) whose mutual information is known."""
    rho = math.sqrt(1 - math.exp(-2 * information / dim))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, dim))
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(count, dim))
    return x.astype(np.float32), y.astype(np.float32)


def estimators(seeds: int) -> None:
    """One row a setting: mean and standard deviation over seeds of every estimator."""
    print(f"train {TRAIN:,}, held out {HELD_OUT:,}, n = {N} (log n = {math.log(N):.2f}), {seeds} seeds")
    print("| d | truth | " + " | ".join(f"{name} ({one.bound})" for name, one in ESTIMATORS.items()) + " |")
    print("|---|---|" + "---|" * len(ESTIMATORS))
    for dim, information in SETTINGS:
        cells = []
        for name in ESTIMATORS:
            values = [
                estimate_information(
                    estimator=name,
                    train=gaussians(TRAIN, dim=dim, information=information, seed=2 * seed),
                    held_out=gaussians(HELD_OUT, dim=dim, information=information, seed=2 * seed + 1),
                    n=N,
                    seed=seed,
                ).value
                for seed in range(seeds)
            ]
            cells.append(f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}")
        print(f"| {dim} | {information:.1f} | " + " | ".join(cells) + " |", flush=True)


def coverage(repetitions: int) -> None:
    """One row a setting: the bound's mean, and how often its interval holds that mean."""
    print("\n| patients | n | scale | truth | mean bound | interval holds the mean | lower end above the truth |")
    print("|---|---|---|---|---|---|---|")
    flip, bits = 0.05, 2
    truth = bits * (math.log(2) + flip * math.log(flip) + (1 - flip) * math.log(1 - flip))
    right = 0.5 * math.log((1 - flip) / flip)
    for patients in (60, 200):
        for factor in (1.0, 2.0):
            found = np.array([_one(patients, bits, flip, factor * right, seed) for seed in range(repetitions)])
            mean = found[:, 0].mean()
            holds = np.mean((found[:, 1] <= mean) & (mean <= found[:, 2]))
            n = 1 + (patients - 1) // 2
            above = np.mean(found[:, 1] > truth)
            print(
                f"| {patients} | {n} | {factor:g} x the best | {truth:.2f} | {mean:.2f} | {holds:.1%} | {above:.1%} |"
            )


def _one(patients: int, bits: int, flip: float, scale: float, seed: int) -> tuple[float, float, float]:
    rng = np.random.default_rng(seed)
    a, b = rng.choice([-1.0, 1.0], size=(2, patients, bits))
    c = a * b * np.where(rng.random((patients, bits)) < flip, -1.0, 1.0)
    arrays = {"a": a, "b": b, "c": c}
    sample = Sample({name: torch.from_numpy(array) for name, array in arrays.items()}, np.arange(patients))
    found = terms(total_correlation(sample, critic_of(Symile())), sample.subjects, scale=scale, draws=8, rng=rng)
    interval = bootstrap_interval(found.values, sample.subjects, resamples=2_000, rng=rng)
    return interval.estimate, interval.low, interval.high


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--coverage", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    estimators(arguments.seeds)
    coverage(arguments.coverage)


if __name__ == "__main__":
    main()
