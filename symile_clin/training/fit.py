"""The training loop: epochs of steps, a validation after each, the best and the last state kept."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from symile_clin import disk, files
from symile_clin.data.candidates import CandidateLists
from symile_clin.data.dataset import CohortDataset, training_loader
from symile_clin.data.order import TrainingOrder
from symile_clin.errors import ConfigError, MismatchError, StoppedError, TrainingError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.ranks import Ranks
from symile_clin.schema import BEST, CHECKPOINTS_DIR, LAST, METRICS_LOG
from symile_clin.tracking import Tracker
from symile_clin.training.checkpoint import checkpoint_bytes, copy_checkpoint, load_checkpoint, save_checkpoint
from symile_clin.training.device import MemoryFormat, Precision, autocast_type, put_on_device, reproducible
from symile_clin.training.distributed import check_divisible, check_same, copy_from_first, with_shared_statistics
from symile_clin.training.memory import memory_explained
from symile_clin.training.schedule import Schedule, learning_rate, parameter_groups
from symile_clin.training.state import TrainingState
from symile_clin.training.step import is_finite, optimisation_step
from symile_clin.training.stopping import Stop, agreed, never
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
        seconds: wall clock, of all the times that it was gone on with.
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
    resume: bool = False,
    stop: Stop = never,
) -> FitResult:
    """Train a model and its objective, and keep checkpoints/best and checkpoints/last under `directory`.

    The best epoch has the highest validation recall_at_1, or of equals the lowest validation loss; or simply the
    lowest loss. Same seed, machine and number of threads: the same numbers, and on a CPU the same bits, whether or not
    training was stopped anywhere and gone on with.

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
        resume: go on from checkpoints/last.
        stop: asked after each step and epoch.

    Raises:
        ConfigError: too few samples or too small batches to contrast, or to give every process one; a precision, or a
            BatchNorm over processes, that the device lacks.
        TrainingError: a loss, gradient, embedding or weight that is not finite.
        OutOfMemoryError: memory of the device or the machine ran out.
        StoppedError: `stop` asked for it; checkpoints/last is of the step it was asked after.
        WorkerError: another process has ended.
        DiskError: a checkpoint could not be written.
        NotFoundError, MismatchError: no checkpoint to go on from, or one of another run.
    """
    if len(train) < 2 or batch_size < SMALLEST_BATCH:
        raise ConfigError(
            f"{len(train):,} training samples in batches of at most {batch_size:,} leave nothing to contrast",
            expected=f"at least 2 samples and training.batch_size of at least {SMALLEST_BATCH}",
        )
    began = time.monotonic()
    if sync_batchnorm:
        model = with_shared_statistics(model, ranks, device=device, embed_chunk=embed_chunk)
    put_on_device(model, device=device, memory_format=memory_format, compile=compile)
    objective.to(device)
    if ranks.is_first:  # best, last, and the one that is being written
        kept_bytes = 3 * checkpoint_bytes(model, objective)
        there = disk.size(directory / CHECKPOINTS_DIR) if resume else 0
        disk.require_space(directory, kept_bytes - there, what="its checkpoints")
    groups = parameter_groups([model, objective], weight_decay=weight_decay, decay_all=decay_all)
    optimizer = torch.optim.AdamW(groups, lr=lr)
    last, best = directory / CHECKPOINTS_DIR / LAST, directory / CHECKPOINTS_DIR / BEST
    state = TrainingState()
    if resume:
        state = load_checkpoint(last, model=model, objective=objective, optimizer=optimizer)
    check_same(ranks, "checkpoint", (state.step, state.epoch))  # each reads it itself, from a disk they should share
    copy_from_first([*model.state_dict().values(), *objective.state_dict().values()], ranks)
    order = TrainingOrder(
        rows=train.rows, batch_size=batch_size, seed=seed, epochs=epochs, skip=state.step, ranks=ranks
    )
    check_divisible(ranks, smallest=order.size(order.steps - 1))
    steps = epochs * order.steps
    if not state.epoch * order.steps <= state.step <= min((state.epoch + 1) * order.steps, steps):
        raise MismatchError(f"{last} is of a run with other steps", remedy="Use the settings and cohort it began with")
    rate = partial(learning_rate, lr=lr, steps=steps, warmup=round(warmup_epochs * order.steps), schedule=schedule)
    autocast = autocast_type(precision, device)
    before, kept = state.seconds, began

    def keep(place: Path) -> None:
        nonlocal kept
        kept = time.monotonic()
        state.seconds = before + kept - began
        if not is_finite([*model.state_dict().values(), *objective.state_dict().values()]):  # whoever changed them
            raise TrainingError(f"weights are not finite after step {state.step:,}, and are not kept")
        save_checkpoint(place, model=model, objective=objective, optimizer=optimizer, state=state)

    log_path = directory / METRICS_LOG
    if ranks.is_first:  # what was logged after the checkpoint will be again
        files.write_text(log_path, "".join(_lines(state, steps=order.steps)))
    for epoch, metrics in enumerate(state.history, start=1):
        tracker.metrics(metrics, step=epoch)  # it takes only what it does not have

    explained = partial(
        memory_explained, model=model, objective=objective, embed_chunk=embed_chunk, device=device, ranks=ranks
    )
    loader = training_loader(train, order, workers=workers, pin_memory=device.type == "cuda")
    # a generator of its own: closing it ends the worker processes, even where a traceback still holds on to it
    with (
        reproducible(device),
        progress.track("training", steps) as advance,
        closing(batch for batch in loader) as batches,
    ):
        if resume:
            progress.say(f"Going on after step {state.step:,} of {steps:,}.")
            advance(state.step)
        while state.epoch < epochs and not state.has_stalled(patience):
            epoch = state.epoch + 1
            model.train()
            objective.train()
            waited, epoch_started = 0.0, time.monotonic()
            for step in range(state.step, epoch * order.steps):
                asked = time.monotonic()
                with explained(n=order.size(step), place=f"epoch {epoch}, step {step + 1}"):
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
                state.loss += loss * order.size(step)
                state.step = step + 1
                advance(1)
                stopped_by = agreed(stop(), ranks=ranks, device=device)
                is_due = checkpoint_minutes is not None and time.monotonic() - kept > 60 * checkpoint_minutes
                if ranks.is_first and (stopped_by or is_due):
                    keep(last)
                if stopped_by:
                    raise _stopped(stopped_by, state, steps)
            metrics = {
                "train/loss": state.loss / len(train),
                "train/lr": rate(epoch * order.steps - 1),
                "train/scale": float(model.scale.detach()),
                "train/data_wait": waited / (time.monotonic() - epoch_started),
            }
            copy_from_first(model.buffers(), ranks)  # one model is judged and kept: with the first's running statistics
            after = f"after epoch {epoch}, step {state.step}"
            with explained(n=min(batch_size, len(val)), place=f"validation {after}"):
                found = _validated(
                    after,
                    model=model,
                    objective=objective,
                    dataset=val,
                    candidates=candidates,
                    target=target,
                    batch_size=batch_size,
                    device=device,
                    ranks=ranks,
                )
            metrics |= {"val/loss": found.loss, f"val/{target}/recall_at_1": found.recall_at_1}
            is_best = state.epoch == 0 or _merit(metrics, target, select_by) > _merit(state.best, target, select_by)
            state.close_epoch(metrics, is_best=is_best)
            if ranks.is_first:
                # the best one first: a run that is killed between the two does the epoch again
                if is_best:
                    keep(best)
                    copy_checkpoint(best, last)
                else:
                    keep(last)
                with disk.writing(log_path), log_path.open("a", encoding="utf-8") as log:
                    log.write(_lines(state, steps=order.steps)[-1])
            tracker.metrics(metrics, step=epoch)
            progress.say(
                f"epoch {epoch}/{epochs}: loss {metrics['train/loss']:.3f}, val loss {found.loss:.3f}, "
                f"val recall_at_1 {found.recall_at_1:.3f}{' (best so far)' if is_best else ''}"
            )
            stopped_by = agreed(stop(), ranks=ranks, device=device)
            if stopped_by and state.epoch < epochs and not state.has_stalled(patience):
                raise _stopped(stopped_by, state, steps)
    if state.epoch < epochs:
        progress.say(f"No better epoch for {patience} epochs: training stops.")
    judged = {f"best/{name}": value for name, value in state.best.items() if name.startswith("val/")}
    tracker.metrics({"best/epoch": state.best_epoch, **judged})
    return FitResult(
        best_epoch=state.best_epoch,
        best=state.best,
        history=tuple(state.history),
        seconds=before + time.monotonic() - began,
    )


def _validated(after: str, **arguments: Any) -> Validation:
    """`validate`, whose errors say when it was."""
    remedy = "Lower training.lr, set training.clip_norm, or look at these rows; checkpoints/last is of an earlier step"
    try:
        found = validate(**arguments)
    except TrainingError as error:
        raise TrainingError(f"{error.found} {after}", remedy=remedy) from None
    if not math.isfinite(found.loss):
        raise TrainingError(f"the validation loss is {found.loss} {after}", remedy=remedy)
    return found


def _merit(metrics: Mapping[str, float], target: str, select_by: Selection) -> tuple[float, float]:
    """What the best epoch has most of. Few queries give few distinct accuracies: the loss decides between equals."""
    return (metrics[f"val/{target}/recall_at_1"] if select_by == "retrieval" else 0.0, -metrics["val/loss"])


def _lines(state: TrainingState, *, steps: int) -> list[str]:
    """Of the log: one for each finished epoch of so many steps."""
    return [
        json.dumps({"epoch": epoch, "step": epoch * steps, **metrics}, allow_nan=False) + "\n"
        for epoch, metrics in enumerate(state.history, start=1)
    ]


def _stopped(by: int, state: TrainingState, steps: int) -> StoppedError:
    name = signal.Signals(by).name
    return StoppedError(f"{name} stopped training after step {state.step:,} of {steps:,}", signal=by)
