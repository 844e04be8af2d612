"""How long patient-clustered intervals take, beside scipy's for queries that are all of other patients.

    python scripts/bench_bootstrap.py [--resamples 10000] [--repeats 5]

CPU seconds (set OMP_NUM_THREADS=1); rivals run in turn, and the least time of each counts. scipy.stats.bootstrap knows
no clusters, so all have one query.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from symile_clin.evaluation.bootstrap import Interval, Method, PatientResamples, bootstrap_interval


def seconds(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The least time of each call, taken in turn."""
    least = [float("inf")] * len(calls)
    for _ in range(repeats):
        for place, call in enumerate(calls):
            started = time.process_time()
            call()
            least[place] = min(least[place], time.process_time() - started)
    return least


def beside_scipy(queries: int, resamples: int, repeats: int) -> None:
    """One row a method: both times, and both intervals."""
    hits = (np.random.default_rng(0).random(queries) < 0.4).astype(np.float64)
    patients = np.arange(queries)
    print(f"{queries:,} queries, {resamples:,} resamples")
    print("| method | ours: CPU s | scipy: CPU s | ours | scipy |\n|---|---|---|---|---|")
    methods: tuple[tuple[Method, str], ...] = (("percentile", "percentile"), ("bca", "BCa"))
    for method, called in methods:

        def ours(method: Method = method) -> Interval:
            return bootstrap_interval(hits, patients, resamples=resamples, method=method, rng=np.random.default_rng(1))

        def scipys(called: str = called) -> tuple[float, float]:
            found = stats.bootstrap(
                (hits,), np.mean, method=called, n_resamples=resamples, rng=np.random.default_rng(1)
            ).confidence_interval
            return float(found.low), float(found.high)

        mine, theirs = seconds([ours, scipys], repeats)
        found, (low, high) = ours(), scipys()
        times = f"{mine:.3f} | {theirs:.3f}"
        print(f"| {method} | {times} | [{found.low:.4f}, {found.high:.4f}] | [{low:.4f}, {high:.4f}] |")


def many_metrics(queries: int, metrics: int, resamples: int, repeats: int) -> None:
    """Metrics that share their draws, against drawing anew for each."""
    values = np.random.default_rng(0).random((queries, metrics))
    patients = np.arange(queries) // 2

    def together() -> object:
        return PatientResamples(patients, resamples=resamples, rng=np.random.default_rng(1)).intervals(values)

    def apart() -> object:
        return [
            bootstrap_interval(column, patients, resamples=resamples, rng=np.random.default_rng(1))
            for column in values.T
        ]

    shared, alone = seconds([together, apart], repeats)
    print(f"\n{metrics} metrics of {queries:,} queries: {shared:.2f} CPU s together, {alone:.2f} apart")


def memory(patients: int, resamples: int) -> None:
    """Time and peak of numpy's memory where the draws are too many to be kept."""
    values = np.random.default_rng(0).random((patients, 2))

    def call() -> object:
        return PatientResamples(np.arange(patients), resamples=resamples, rng=np.random.default_rng(1)).intervals(
            values
        )

    (took,) = seconds([call], 1)
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{patients:,} patients: {took:.1f} CPU s, peak {peak / 2**20:,.0f} MiB")


def main(argv: Sequence[str] | None = None) -> None:
    """Print what docs/benchmarks.md says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args(argv)
    beside_scipy(464, asked.resamples, asked.repeats)
    many_metrics(464, 100, asked.resamples, min(2, asked.repeats))
    for patients in (5_000, 50_000):
        memory(patients, asked.resamples)


if __name__ == "__main__":
    main()
