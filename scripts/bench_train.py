"""Speed, waiting and memory of training, beside a plain float32 loop over float tensors. Prints a Markdown table.

    python scripts/bench_train.py                                   # small encoders, a minute or two on a CPU
    python scripts/bench_train.py --encoders paper --batch-size 8   # the paper's
    python scripts/bench_train.py --encoders paper --batch-size 280 --dim 8192 --device cuda --samples 2800

Both train the same encoders with Symile's exhaustive negatives on the same samples of the sizes MIMIC has. The plain
loop does what the published code does: all samples as float32 tensors in memory, torch's DataLoader over them with a
process per core, the PyPI package's loss, AdamW. Each runs in a process of its own, in turn, twice; the faster run
counts. Memory is the largest summed RSS of its processes above what they take before data is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pandas as pd
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from scripts.bench_demo import resident
from symile_clin import files
from symile_clin.data.dataset import CohortDataset, training_loader
from symile_clin.data.order import TrainingOrder
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import modalities_of
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.ranks import ALONE
from symile_clin.schema import ARRAYS_DIR, ROW, SAMPLE_ID, SAMPLES, SPLIT, present_column
from symile_clin.training.device import autocast_type, put_on_device
from symile_clin.training.step import optimisation_step

Contender = Literal["plain", "ours"]
ENCODERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {"cxr": {"arch": "small"}, "ecg": {"arch": "small"}, "labs": {}},
    "paper": {"cxr": {"arch": "resnet50"}, "ecg": {"arch": "resnet18_image"}, "labs": {}},
}
SPEC = {"modalities": {name: {"room": name} for name in ENCODERS["paper"]}}
WARM_UP = 2


def write_cohort(path: Path, *, samples: int) -> None:
    """A cohort of noise whose arrays have the sizes of real ones."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({ROW: np.arange(samples), SAMPLE_ID: np.arange(samples), SPLIT: "train"})
    entries: dict[str, Any] = {}
    for name, modality in modalities_of(SPEC).items():
        folder = path / ARRAYS_DIR / name
        folder.mkdir(parents=True)
        table[present_column(name)] = True
        # the cap of a portrait's long side, and the short side
        table = table.assign(**dict(zip(modality.input_columns, (400, 320), strict=False)))
        for array, spec in modality.arrays.items():
            values = rng.integers(0, 2 if spec.dtype == "bool" else 250, (samples, *spec.shape), dtype=np.int16)
            np.save(folder / f"{array}.npy", values.astype(spec.dtype))
            part = {"file": f"{array}.npy", "rows": samples}
            entries.setdefault(name, {})[array] = {"dtype": spec.dtype, "shape": list(spec.shape), "parts": [part]}
    table.to_parquet(path / SAMPLES)
    content = {"name": "bench", "hash": "0", "spec": SPEC, "synthetic": True, "arrays": entries}
    files.write_manifest(path, stage="cohort", content=content)


def build(modalities: Mapping[str, Modality], *, encoders: str, dim: int) -> MultimodalEncoder:
    """The same start for both."""
    torch.manual_seed(0)
    return MultimodalEncoder(
        {
            name: modality.encoder(dim, modality.Encoder.model_validate(ENCODERS[encoders][name]))
            for name, modality in modalities.items()
        },
        dim=dim,
        normalization="layernorm",
        logit_scale_init=Symile().initial_logit_scale(dim, 3),
    )


def plain_steps(
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    model: MultimodalEncoder,
    *,
    batch_size: int,
    device: torch.device,
) -> Iterator[float]:
    """Seconds that each step waits for its batch; a step is done when the next one is asked for."""
    from symile import Symile as Published

    whole = CohortDataset(cohort, modalities, cohort.rows("train"))
    parts = [whole.inputs(batch) for batch in whole.batches(64)]
    tensors = [torch.cat([part[name] for part in parts]) for name in modalities]
    del parts
    loader = DataLoader(
        TensorDataset(*tensors), batch_size=batch_size, shuffle=True, drop_last=True,
        num_workers=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    model.to(device)
    loss_fn = Published(negative_sampling="n_squared")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = (batch for _ in cycle([0]) for batch in loader)
    while True:
        asked = time.monotonic()
        batch = [tensor.to(device) for tensor in next(batches)]
        waited = time.monotonic() - asked
        optimizer.zero_grad()
        embeddings: Mapping[str, Tensor] = model(dict(zip(modalities, batch, strict=True)))
        loss = loss_fn(list(embeddings.values()), model.scale)
        loss.backward()
        optimizer.step()
        loss.item()
        yield waited


def our_steps(
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    model: MultimodalEncoder,
    *,
    batch_size: int,
    device: torch.device,
) -> Iterator[float]:
    """The same of `symile_clin.training.fit`'s steps."""
    dataset = CohortDataset(cohort, modalities, cohort.rows("train"))
    put_on_device(model, device=device, memory_format="auto", compile=False)
    objective = Symile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    order = TrainingOrder(rows=dataset.rows, batch_size=batch_size, seed=0, epochs=1000)
    workers = 8 if device.type == "cuda" else 0
    batches = iter(training_loader(dataset, order, workers=workers, pin_memory=device.type == "cuda"))
    autocast = autocast_type("auto", device)
    for step in range(len(order)):
        asked = time.monotonic()
        batch = next(batches).to(device)
        waited = time.monotonic() - asked
        optimisation_step(
            model=model, objective=objective, optimizer=optimizer, batch=batch, prepare=dataset.inputs, ranks=ALONE,
            size=order.size(step), embed_chunk=None, place=f"step {step + 1}", seed=0, step=step, autocast=autocast,
            clip_norm=None,
        )  # fmt: skip
        yield waited


def measure(
    contender: Contender, path: Path, *, encoders: str, dim: int, batch_size: int, steps: int, device: str
) -> None:
    """Run one contender in this process; print its figures as JSON."""
    cohort = open_cohort(path)
    modalities = modalities_of(SPEC)
    model = build(modalities, encoders=encoders, dim=dim)
    on = torch.device(device)
    process = psutil.Process()
    before = resident(process)
    peak, ended = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, resident(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    run = (plain_steps if contender == "plain" else our_steps)(
        cohort, modalities, model, batch_size=batch_size, device=on
    )
    for _ in islice(run, WARM_UP):
        pass
    started = time.monotonic()
    waited = sum(islice(run, steps))
    seconds = time.monotonic() - started
    ended.set()
    watcher.join()
    figures = {"rate": steps * batch_size / seconds, "wait": waited / seconds, "bytes": peak - before}
    if on.type == "cuda":
        figures["device_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(figures))


@click.command()
@click.option("--encoders", type=click.Choice(list(ENCODERS)), default="small", show_default=True)
@click.option("--dim", default=1024, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--steps", default=8, show_default=True, help="Timed, after two that are not.")
@click.option("--samples", default=512, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--one", type=(str, click.Path(path_type=Path)), hidden=True)
def main(one: tuple[Contender, Path] | None, samples: int, rounds: int, **settings: Any) -> None:
    """See the top of this file."""
    if one is not None:
        measure(*one, **settings)
        return
    given = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    contenders: tuple[Contender, ...] = ("plain", "ours")
    found: dict[Contender, list[dict[str, float]]] = {contender: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder) / "cohort", samples=samples)
        for _ in range(rounds):
            for contender in contenders:
                command = [sys.executable, __file__, *given, "--one", contender, str(Path(folder) / "cohort")]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[contender].append(json.loads(printed.splitlines()[-1]))
    best = {contender: max(runs, key=lambda run: run["rate"]) for contender, runs in found.items()}
    print(f"{settings['encoders']} encoders, batch {settings['batch_size']}, d {settings['dim']}, {samples} samples, "
          f"{settings['device']}\n")  # fmt: skip
    print("| loop | samples/s | ratio | waiting for data | peak memory above the model's, GB |")
    print("|---|---|---|---|---|")
    for contender, run in best.items():
        print(f"| {contender} | {run['rate']:.1f} | {run['rate'] / best['plain']['rate']:.2f} | {run['wait']:.1%} | "
              f"{run['bytes'] / 1e9:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
