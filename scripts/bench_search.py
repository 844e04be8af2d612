"""How long one exact search takes, and whether a vector store would be faster. Prints Markdown.

    python scripts/bench_search.py                       # 100,000 items at d = 512, about two minutes
    python scripts/bench_search.py --stores DIR          # and faiss, hnswlib and usearch, if they are installed in DIR

The matrix is a memory-mapped .npy of clustered unit vectors (a mixture of 1,000 directions: embeddings of a trained
model are nearer to that than to noise). Rivals answer the same queries in turn. "Warm" has the matrix in the page
cache; "cold" has it thrown out of it before every query, as far as this system obeys posix_fadvise. The stores are no
dependency: `pip install --target DIR --no-deps faiss-cpu hnswlib usearch numkong`.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from symile_clin.objectives import Gram
from symile_clin.search.nearest import largest_products, largest_scores

K = 10
Query = NDArray[np.float64]
Answer = Callable[[Query], NDArray[np.int64]]
#: Milliseconds by the clock, and of all threads.
Times = tuple[float, float]


def clustered(count: int, dim: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors around a thousand directions."""
    centres = rng.standard_normal((1000, dim))
    vectors = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 10_000):
        some = slice(start, min(start + 10_000, count))
        size = some.stop - start
        drawn = centres[rng.integers(0, 1000, size)] + 0.7 * rng.standard_normal((size, dim))
        vectors[some] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors


def milliseconds(answer: Answer, queries: NDArray[np.float64], before: Callable[[], None]) -> list[Times]:
    """Wall and CPU time of each query."""
    found = []
    for query in queries:
        before()
        start, cpu = time.perf_counter(), time.process_time()
        answer(query)
        found.append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)))
    return found


def stores(matrix: NDArray[np.float32]) -> dict[str, tuple[Answer, float]]:
    """Searches by the stores that are installed, and the seconds it took to fill them."""
    found: dict[str, tuple[Answer, float]] = {}
    whole, dim = np.ascontiguousarray(matrix), matrix.shape[1]

    def fill(name: str, make: Callable[[], Answer]) -> None:
        start = time.perf_counter()
        try:
            answer = make()
        except ImportError:
            click.echo(f"{name} is not installed.", err=True)
        else:
            found[name] = (answer, time.perf_counter() - start)

    def faiss() -> Answer:
        index = importlib.import_module("faiss").IndexFlatIP(dim)
        index.add(whole)
        return lambda query: index.search(query.astype(np.float32)[None], K)[1][0]

    def hnsw() -> Answer:
        index = importlib.import_module("hnswlib").Index(space="ip", dim=dim)
        index.init_index(max_elements=len(whole), ef_construction=100, M=16)
        index.set_num_threads(len(os.sched_getaffinity(0)))
        index.add_items(whole)
        index.set_ef(200)
        return lambda query: index.knn_query(query.astype(np.float32)[None], k=K)[0][0].astype(np.int64)

    def usearch() -> Answer:
        index = importlib.import_module("usearch.index").Index(ndim=dim, metric="ip", dtype="f32", expansion_search=200)
        index.add(np.arange(len(whole)), whole)
        return lambda query: index.search(query.astype(np.float32), K).keys.astype(np.int64)

    fill("faiss IndexFlatIP (exact to float32)", faiss)
    fill("hnswlib (approximate)", hnsw)
    fill("usearch (approximate)", usearch)
    return found


def line(name: str, times: list[Times], *more: Any) -> str:
    """A line of the table."""
    wall, cpu = zip(*times, strict=True)
    numbers = (statistics.median(wall), float(np.percentile(wall, 95)), statistics.median(cpu))
    return f"| {name} | " + " | ".join([*(f"{one:.1f}" for one in numbers), *map(str, more)]) + " |"


@click.command()
@click.option("--items", default=100_000, show_default=True)
@click.option("--dim", default=512, show_default=True)
@click.option("--queries", default=100, show_default=True)
@click.option("--stores", "where", type=click.Path(path_type=Path), help="Where vector stores are installed.")
def main(items: int, dim: int, queries: int, where: Path | None) -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    click.echo(
        f"{items:,} items, d = {dim}, k = {K}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.npy"
        np.save(path, clustered(items, dim, rng))
        matrix: NDArray[np.float32] = np.load(path, mmap_mode="r")
        asked = matrix[rng.choice(items, queries, replace=False)] + 0.5 * rng.standard_normal((queries, dim)) / dim**0.5
        everyone = np.ones(items, dtype=np.bool_)
        rescored: list[int] = []

        def ours(query: Query) -> NDArray[np.int64]:
            hits = largest_products(matrix, query, k=K, allowed=everyone, largest_norm=1.0 + 1e-6)
            rescored.append(hits.rescored)
            return hits.rows

        truth = np.argsort(-(asked[:20] @ matrix.astype(np.float64).T), axis=1, kind="stable")[:, :K]
        handle = os.open(path, os.O_RDONLY)

        def cold() -> None:
            os.sync()
            np.load(path, mmap_mode="r")._mmap.madvise(4)  # MADV_DONTNEED
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

        def right(answer: Answer) -> str:
            same = [len(np.intersect1d(answer(query), best)) / K for query, best in zip(asked, truth, strict=False)]
            return f"{np.mean(same):.3f}"

        rivals: dict[str, tuple[Answer, float]] = {"symile-clin, warm": (ours, 0.0)}
        if where is not None:
            sys.path.insert(0, str(where))
            rivals |= stores(matrix)
        times: dict[str, list[Times]] = {name: [] for name in rivals}
        for query in asked:  # in turn, so that other work on the machine hits all alike
            for name, (answer, _) in rivals.items():
                times[name] += milliseconds(answer, query[None], lambda: None)
        click.echo("\n| | ms, median | ms, p95 | CPU ms | of the true 10 | filled in, s |\n|---|---|---|---|---|---|")
        for name, (answer, seconds) in rivals.items():
            click.echo(line(name, times[name], right(answer), f"{seconds:.1f}" if seconds else "–"))
        click.echo(line("symile-clin, cold", milliseconds(ours, asked[:10], cold), right(ours), "–"))
        click.echo(f"\nScored again in float64: {statistics.mean(rescored):.1f} candidates a query.")
        gram = Gram()
        one = torch.from_numpy(asked[:1])

        def volume(candidates: NDArray[np.float32]) -> NDArray[np.float64]:
            with torch.inference_mode():
                vectors = torch.from_numpy(candidates.astype(np.float64))
                scores: NDArray[np.float64] = gram.score({"a": one, "b": one.flip(1)}, vectors, target="c")[0].numpy()
            return scores

        slow = milliseconds(
            lambda _: largest_scores(volume, matrix, k=K, allowed=everyone).rows, asked[:5], lambda: None
        )
        wall, cpu = (statistics.median(one) for one in zip(*slow, strict=True))
        click.echo(f"An objective without query vector (GRAM): {wall:,.0f} ms, CPU {cpu:,.0f} ms.")
        os.close(handle)


if __name__ == "__main__":
    main()
