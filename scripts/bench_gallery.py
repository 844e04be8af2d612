"""Time and memory of ranking every query against a whole large split. Prints Markdown.

    python scripts/bench_gallery.py                              # 100,000 items at d = 512: many minutes
    python scripts/bench_gallery.py --items 20000                # a smaller one
    python scripts/bench_gallery.py --queries 2000               # fewer queries: the same memory, a share of the time

Embeddings are made up and normalised. All five protocols are counted from one pass over the scores of the full query,
then their metrics get both kinds of intervals, as `symile-clin eval` does it. Peak memory is the high-water mark of a
process of its own (VmHWM of /proc/self/status), interpreter and libraries included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from symile_clin.data.candidates import CandidateLists
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.measures import means_of, measured
from symile_clin.evaluation.protocols import pool_of, rank_pool
from symile_clin.evaluation.ranked import ListProtocol, Ranked
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.evaluation.scoring import Scorer
from symile_clin.objectives.registry import build_objective

OBJECTIVES = ("symile", "clip")
NAMES = ("a", "b", "c")


def embeddings(n: int, d: int) -> Embedded:
    """Three sets of random vectors of unit spread, made a few at a time."""
    rng = np.random.default_rng(0)
    made = {name: np.empty((n, d), dtype=np.float32) for name in NAMES}
    for array in made.values():
        for start in range(0, n, 1000):
            array[start : start + 1000] = rng.standard_normal(array[start : start + 1000].shape, dtype=np.float32)
    return Embedded(made, {name: np.ones(n, dtype=np.bool_) for name in NAMES})


def _first(ranks: Ranks, queries: int) -> Ranks:
    return Ranks(ranks.n_greater[:queries], ranks.n_tied[:queries])


def measure(objective: str, n: int, d: int, queries: int) -> dict[str, float]:
    """Rank and measure in this process.

    Returns:
        Seconds of either, recall_at_1 of the gallery, and GiB at most.
    """
    rng = np.random.default_rng(1)
    rows, patient = np.arange(n), np.sort(rng.integers(0, n * 2 // 3, n))
    encoded = embeddings(n, d)
    asked = rows[:queries]
    drawn = np.column_stack([asked, rng.integers(0, n, (queries, 9))])
    lists: dict[ListProtocol, CandidateLists] = {
        name: CandidateLists(asked, drawn, np.zeros(drawn.shape, dtype=np.bool_))
        for name in ("candidates", "candidates_other_subjects", "matched")
    }
    pool = pool_of(rows, encoded.present["a"], patient, lists)
    started = time.perf_counter()
    scorer = Scorer(
        objective=build_objective(objective, {}, dim=d, modalities=NAMES),
        encoded=encoded,
        target="a",
        queries=pool.place,
        candidates=pool.place,
        stand_ins=None,
    )
    chunks = takewhile(lambda table: table.queries[0] < queries, scorer.tables())
    found = rank_pool(pool, chunks, scorer.vector_of, whole=True)
    ranked = time.perf_counter()
    ways = [
        Ranked("a", name, ("b", "c"), asked, patient[asked], _first(ranks, queries), pool.n_candidates(name)[:queries])
        for name, ranks in found.items()
    ]
    measures = measured([mean for one in ways for mean in means_of(one)], seed=0)
    ended = time.perf_counter()
    recall = next(one.value for one in measures if (one.protocol, one.metric) == ("gallery", "recall_at_1"))
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "rank": ranked - started,
        "measure": ended - ranked,
        "recall_at_1": recall,
        "gib": int(high.split()[1]) / 2**20,
    }


@click.command()
@click.option("--items", default=100_000, show_default=True, help="Samples of the split.")
@click.option("--dim", default=512, show_default=True, help="Length of an embedding.")
@click.option("--queries", type=int, help="Rank only the first so many; all by default.")
@click.option("--objective", type=click.Choice(OBJECTIVES), help="Only this one, in this process; prints JSON.")
def main(items: int, dim: int, queries: int | None, objective: str | None) -> None:
    """Rank every query against a whole large split, each objective in a process of its own."""
    asked = items if queries is None else min(queries, items)
    if objective is not None:
        print(json.dumps(measure(objective, items, dim, asked)))
        return
    print("| objective | items | d | queries | seconds to rank | a query, ms | seconds of intervals | peak GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in OBJECTIVES:
        options = ["--items", str(items), "--dim", str(dim), "--queries", str(asked), "--objective", name]
        done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
        got = json.loads(done.stdout)
        print(
            f"| {name} | {items:,} | {dim} | {asked:,} | {got['rank']:.0f} | {1000 * got['rank'] / asked:.1f} "
            f"| {got['measure']:.0f} | {got['gib']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
