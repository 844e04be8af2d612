"""The training loop: epochs of steps, a validation after each, the best and the last state kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.dataset import CohortDataset, training_loader
from symile_clin.data.order import TrainingOrder
from symile_clin.errors import ConfigError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.ranks import Ranks
from symile_clin.schema import BEST, CHECKPOINTS_DIR, LAST, METRICS_LOG
from symile_clin.tracking import Tracker
from symile_clin.training.checkpoint import TrainingState, save_checkpoint
from symile_clin.training.device import MemoryFormat, Precision, autocast_type, reproducible
from symile_clin.training.schedule import Schedule, learning_rate, parameter_groups
from symile_clin.training.step import optimisation_step
from symile_clin.training.validate import Validation, validate

Selection = Literal["retrieval", "loss"]
#: Cut evenly, any number of samples above one then leaves no batch of a single sample, which has no negatives.
SMALLEST_BATCH = 3


@dataclass(frozen=True)
class FitResult:
    """What came of a training run.

    Attributes:
        best_epoch: 1-based epoch of checkpoints/best.
        best: metrics of that epoch.
        history: metrics of every epoch.
        seconds: wall clock.
    """

    best_epoch: int
    best: Mapping[str, float]
    history: tuple[Mapping[str, float], ...]
    seconds: float


def fit(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    train: CohortDataset,
    val: CohortDataset,
    candidates: CandidateLists,
    target: str,
    directory: Path,
    seed: int,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    decay_all: bool,
    warmup_epochs: float,
    schedule: Schedule,
    clip_norm: float | None,
    precision: Precision,
    patience: int | None,
    select_by: Selection,
    workers: int,
    embed_chunk: int | None,
    sync_batchnorm: bool,
    memory_format: MemoryFormat,
    compile: bool,
    checkpoint_minutes: float | None,
    device: torch.device,
    ranks: Ranks,
    tracker: Tracker,
    progress: Progress,
) -> FitResult:
    """Train a model and its objective, and keep checkpoints/best and checkpoints/last under `directory`.

    The best epoch has the highest validation recall_at_1, or of equals the lowest validation loss; or simply the
    lowest loss. Same seed, machine and number of threads: the same numbers.

    Args:
        candidates: lists of the validation split.
        target: modality that is retrieved.
        directory: of the run; metrics.jsonl gets a line per epoch.
        seed: of order, augmentation, dropout and drawn negatives. The weights' start is the caller's.
        batch_size: largest batch; see `TrainingOrder`.
        lr: highest learning rate of AdamW; see `learning_rate`.
        decay_all: see `parameter_groups`.
        warmup_epochs: of the linear rise.
        clip_norm: largest gradient norm; None does not clip.
        precision: of the encoders in training: "auto" is bf16 on a CUDA device that has it, else float32.
        patience: epochs without a better one before training stops; None runs to the end.
        select_by: what makes an epoch the best.
        workers: processes that fetch batches.
        embed_chunk: see `TrainingConfig`, as for the three that follow.
        checkpoint_minutes: time between checkpoints inside an epoch.
        ranks: this process among those that train the model together.
        tracker: gets each epoch's metrics, and the best epoch's validation under `best/`.

    Raises:
        ConfigError: too few samples or too small batches to contrast, or a precision the device lacks.
        TrainingError: a loss, gradient or embedding that is not finite.
    """
    if len(train) < 2 or batch_size < SMALLEST_BATCH:
        raise ConfigError(
            f"{len(train):,} training samples in batches of at most {batch_size:,} leave nothing to contrast",
            expected=f"at least 2 samples and training.batch_size of at least {SMALLEST_BATCH}",
        )
    started = time.monotonic()
    model.to(device)
    objective.to(device)
    groups = parameter_groups([model, objective], weight_decay=weight_decay, decay_all=decay_all)
    optimizer = torch.optim.AdamW(groups, lr=lr)
    order = TrainingOrder(rows=train.rows, batch_size=batch_size, seed=seed, epochs=epochs, ranks=ranks)
    rate = partial(learning_rate, lr=lr, steps=len(order), warmup=round(warmup_epochs * order.steps), schedule=schedule)
    autocast = autocast_type(precision, device)
    best, best_epoch = Validation(loss=math.inf, recall_at_1=-math.inf), 0
    history: list[dict[str, float]] = []

    with reproducible(device), progress.track("training", len(order)) as advance:
        batches = iter(training_loader(train, order, workers=workers, pin_memory=device.type == "cuda"))
        for epoch in range(1, epochs + 1):
            model.train()
            objective.train()
            total, waited, epoch_started = 0.0, 0.0, time.monotonic()
            for step in range((epoch - 1) * order.steps, epoch * order.steps):
                asked = time.monotonic()
                batch = next(batches).to(device)
                waited += time.monotonic() - asked
                for group in optimizer.param_groups:
                    group["lr"] = rate(step)
                loss = optimisation_step(
                    model=model,
                    objective=objective,
                    optimizer=optimizer,
                    batch=batch,
                    prepare=train.inputs,
                    ranks=ranks,
                    size=order.size(step),
                    embed_chunk=embed_chunk,
                    place=f"epoch {epoch}, step {step + 1}",
                    seed=seed,
                    step=step,
                    autocast=autocast,
                    clip_norm=clip_norm,
                )
                total += loss * order.size(step)
                advance(1)
            metrics = {
                "train/loss": total / len(train),
                "train/lr": rate(step),
                "train/scale": float(model.scale.detach()),
                "train/data_wait": waited / (time.monotonic() - epoch_started),
            }
            found = validate(
                model=model,
                objective=objective,
                dataset=val,
                candidates=candidates,
                target=target,
                batch_size=batch_size,
                device=device,
            )
            metrics |= {"val/loss": found.loss, f"val/{target}/recall_at_1": found.recall_at_1}
            history.append(metrics)
            _record(directory / METRICS_LOG, epoch=epoch, step=step + 1, metrics=metrics)
            tracker.metrics(metrics, step=epoch)
            better = _merit(found, select_by) > _merit(best, select_by)
            state = TrainingState(epoch=epoch, step=step + 1, optimizer=optimizer.state_dict())
            save_checkpoint(directory / CHECKPOINTS_DIR / LAST, model=model, objective=objective, state=state)
            if better:
                best, best_epoch = found, epoch
                save_checkpoint(directory / CHECKPOINTS_DIR / BEST, model=model, objective=objective, state=state)
            progress.say(
                f"epoch {epoch}/{epochs}: loss {metrics['train/loss']:.3f}, val loss {found.loss:.3f}, "
                f"val recall_at_1 {found.recall_at_1:.3f}{' (best so far)' if better else ''}"
            )
            if patience is not None and epoch - best_epoch >= patience:
                progress.say(f"No better epoch for {patience} epochs: training stops.")
                break
    chosen = history[best_epoch - 1]
    judged = {f"best/{name}": value for name, value in chosen.items() if name.startswith("val/")}
    tracker.metrics({"best/epoch": best_epoch, **judged})
    return FitResult(best_epoch=best_epoch, best=chosen, history=tuple(history), seconds=time.monotonic() - started)


def _merit(validation: Validation, select_by: Selection) -> tuple[float, float]:
    """What the best epoch has most of. Few queries give few distinct accuracies: the loss decides between equals."""
    return (validation.recall_at_1 if select_by == "retrieval" else 0.0, -validation.loss)


def _record(path: Path, *, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps({"epoch": epoch, "step": step, **metrics}, allow_nan=False) + "\n")
