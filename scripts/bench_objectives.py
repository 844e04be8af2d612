"""Time and memory of Symile's exhaustive negatives. Prints Markdown.

    python scripts/bench_objectives.py            # against PyPI symile, and memory at the paper's batch: some minutes
    python scripts/bench_objectives.py --large    # also n = 2048 at d = 1024: 8 minutes more on 2 idle cores

Rivals take turns in one process with as many threads. Where other work goes on, too, CPU seconds of one thread
(`--threads 1`) are the fair comparison: of several, each waits for whichever the others keep waiting. Extra memory is
the high-water mark of a process of its own (VmHWM of /proc/self/status) less its resident size with the embeddings in
memory; gradients count. On a CUDA device the loss is timed against the matrix products it is made of, alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from symile_clin.objectives import Symile
from symile_clin.objectives.slabs import Budget, cost

ROUNDS = 5


def embeddings(n: int, d: int, device: str = "cpu") -> tuple[dict[str, Tensor], Tensor]:
    """Three sets of LayerNormed random vectors, and the scale that a model starts with."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.nn.functional.layer_norm(torch.randn(n, d, generator=generator), (d,)).to(device).requires_grad_()
        for name in ("a", "b", "c")
    }
    scale = torch.tensor(Symile().initial_logit_scale(d, 3), device=device).exp()
    return tensors, scale.requires_grad_()


def ours(tensors: dict[str, Tensor], scale: Tensor) -> Tensor:
    """Loss of this package."""
    return Symile().loss(tensors, scale)


def peer(tensors: dict[str, Tensor], scale: Tensor) -> Tensor:
    """Loss of PyPI symile."""
    from symile import Symile as PeerSymile

    loss: Tensor = PeerSymile(negative_sampling="n_squared")(list(tensors.values()), scale)
    return loss


LOSSES: dict[str, Callable[[dict[str, Tensor], Tensor], Tensor]] = {"symile-clin": ours, "PyPI symile": peer}


def seconds(who: str, tensors: dict[str, Tensor], scale: Tensor) -> tuple[float, float]:
    """Wall and CPU seconds of one loss with its gradient."""
    wall, cpu = time.perf_counter(), time.process_time()
    torch.autograd.grad(LOSSES[who](tensors, scale), [*tensors.values(), scale])
    return time.perf_counter() - wall, time.process_time() - cpu


def rivals(n: int, d: int) -> None:
    """Print both packages' times, taken in turn."""
    tensors, scale = embeddings(n, d)
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in LOSSES}
    for _ in range(ROUNDS):
        for who, times in found.items():
            times.append(seconds(who, tensors, scale))
    print(f"| | n | d | seconds, median of {ROUNDS} | least | CPU seconds, median | least |")
    print("|---|---|---|---|---|---|---|")
    columns = []
    for who, times in found.items():
        walls, cpus = zip(*times, strict=True)
        columns.append([statistics.median(walls), min(walls), statistics.median(cpus), min(cpus)])
        print(f"| {who} | {n} | {d} | {' | '.join(f'{value:.2f}' for value in columns[-1])} |")
    ratios = " | ".join(f"{theirs / mine:.1f}" for mine, theirs in zip(*columns, strict=True))
    print(f"| ratio | | | {ratios} |\n", flush=True)


def status(key: str) -> int:
    """Bytes that the kernel reports for this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def measure(who: str, n: int, d: int) -> dict[str, float]:
    """Seconds, and bytes beyond the embeddings, of one loss with its gradient in this process."""
    seconds(who, *embeddings(8, 16))  # what a first call loads is not counted
    tensors, scale = embeddings(n, d)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    return {"seconds": seconds(who, tensors, scale)[0], "bytes": status("VmHWM") - before}


def memory(who: str, n: int, d: int) -> None:
    """Print a row of what a process of its own takes."""
    command = [sys.executable, __file__, "--measure", who, "--n", str(n), "--d", str(d)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    bound = cost((n, n, n), d, element_size=4, budget=Budget.of(torch.device("cpu"), cube=4 * n**3)).bytes
    reckoned = f"{(bound + 3 * n * d * 4) / 1e9:.2f}" if who == "symile-clin" else ""
    print(f"| {who} | {n} | {d} | {found['bytes'] / 1e9:.2f} | {reckoned} | {found['seconds']:.0f} |", flush=True)


def on_cuda(n: int, d: int) -> None:
    """Print the time of a loss with its gradient, and that of its matrix products alone."""
    tensors, scale = embeddings(n, d, "cuda")
    work = cost((n, n, n), d, element_size=4, budget=Budget.of(torch.device("cuda"), cube=4 * n**3)).flops
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    floor = _cuda_seconds(lambda: square @ square) * work / (2 * 8192**3)
    found = _cuda_seconds(lambda: torch.autograd.grad(ours(tensors, scale), [*tensors.values(), scale]))
    figures = f"{found * 1e3:.1f} | {floor * 1e3:.1f} | {found / floor:.2f}"
    print(f"| {torch.cuda.get_device_name()} | {n} | {d} | {figures} | {torch.cuda.max_memory_allocated() / 1e9:.2f} |")


def _cuda_seconds(run: Callable[[], object]) -> float:
    for _ in range(2):
        run()  # compiles
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / ROUNDS


@click.command(help=__doc__)
@click.option("--large", is_flag=True, help="Also n = 2048 at d = 1024.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--measure", "who", type=click.Choice(list(LOSSES)), hidden=True)
@click.option("--n", type=int, hidden=True)
@click.option("--d", type=int, hidden=True)
def main(large: bool, threads: int, who: str | None, n: int, d: int) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    if who:
        print(json.dumps(measure(who, n, d)))
        return
    print(f"{threads} threads of {os.cpu_count()} cores, torch {torch.__version__}\n")
    rivals(160, 4096)
    print("| | n | d | peak extra GB | reckoned at most | seconds |\n|---|---|---|---|---|---|")
    memory("PyPI symile", 160, 4096)
    for size in ((160, 4096), (280, 8192), (2048, 1024))[: 3 if large else 2]:
        memory("symile-clin", *size)
    if torch.cuda.is_available():
        print("\n| device | n | d | loss and gradient, ms | its matrix products, ms | ratio | peak GB |")
        print("|---|---|---|---|---|---|---|")
        for size in ((280, 8192), (2048, 1024)):
            on_cuda(*size)


if __name__ == "__main__":
    main()
