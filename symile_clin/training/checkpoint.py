"""Checkpoints: weights as safetensors, training state beside them, whole or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from symile_clin import disk, files
from symile_clin.encoders.weights import load_exactly, read_state
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.objectives.base import Objective
from symile_clin.sources.checksums import SUMS, listed_digests
from symile_clin.training.state import TrainingState, checked

WEIGHTS = "model.safetensors"
TRAINING_STATE = "training.pt"
_OPTIMIZER = "optimizer"
#: Of a tensor, beside its numbers: its name and place in the file's own lists.
_LISTED_BYTES = 1024


def checkpoint_bytes(model: nn.Module, objective: Objective) -> int:
    """Size of a checkpoint: weights, AdamW's two moments of each, and what lists them. No less, and a little more."""
    together = _together(model, objective)
    weights, trained = list(together.state_dict().values()), list(together.parameters())
    numbers: int = sum(tensor.nbytes for tensor in weights) + 2 * sum(tensor.nbytes for tensor in trained)
    return numbers + _LISTED_BYTES * (len(weights) + 3 * len(trained) + 4)


def save_checkpoint(
    directory: Path, *, model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write a checkpoint, replacing an old one in the same place only when the new one is whole.

    Raises:
        DiskError: it could not be written; the old one is as it was.
    """
    with _replaced(directory, needed=checkpoint_bytes(model, objective)) as temporary:
        save_weights(temporary, model=model, objective=objective)
        # into an open file: given a path, torch does not say why it failed
        with (temporary / TRAINING_STATE).open("wb") as file:
            torch.save({**vars(state), _OPTIMIZER: optimizer.state_dict()}, file)
        digests = {name: files.sha256(temporary / name) for name in (WEIGHTS, TRAINING_STATE)}
        (temporary / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def copy_checkpoint(source: Path, directory: Path) -> None:
    """Let `directory` be the same checkpoint as `source`; where the disk can, the two share their bytes.

    Raises:
        DiskError: it could not be written; the old one is as it was.
    """
    with _replaced(directory, needed=disk.size(source)) as temporary:
        for file in (source / WEIGHTS, source / TRAINING_STATE, source / SUMS):
            if file.name == SUMS and not file.exists():
                continue  # of an earlier version
            try:
                os.link(file, temporary / file.name)
            except OSError:  # a disk without links
                shutil.copyfile(file, temporary / file.name)


def save_weights(directory: Path, *, model: nn.Module, objective: Objective) -> None:
    """Write weights alone into a directory, made if it is not there: a model that is not trained any further."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in _together(model, objective).state_dict().items()}
    save_file(weights, directory / WEIGHTS)


def load_weights(directory: Path, *, model: nn.Module, objective: Objective) -> None:
    """Load a checkpoint's weights into a model and its objective.

    Raises:
        NotFoundError: no checkpoint there.
        MismatchError: naming what is missing, left over or of another shape; or a byte changed since it was written.
    """
    if not (directory / WEIGHTS).is_file():
        raise NotFoundError(f"no checkpoint in {directory}", remedy="Train first, or give another checkpoint")
    load_exactly(_together(model, objective), read_state(directory / WEIGHTS), source=str(directory))
    _require_unchanged(directory, WEIGHTS)


def load_checkpoint(
    directory: Path, *, model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Load all of a checkpoint: weights and moments in place, on the devices where the parameters are.

    Raises:
        NotFoundError: no checkpoint there.
        MismatchError: it does not fit, or holds something else.
    """
    load_weights(directory, model=model, objective=objective)
    state, moments = _read(directory / TRAINING_STATE)
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    try:
        optimizer.load_state_dict(moments)
        fits = all(
            tensor.shape in (shapes[number], torch.Size()) and bool(tensor.isfinite().all())
            for number, parameter in optimizer.state_dict()["state"].items()
            for tensor in parameter.values()
        )
    except Exception:  # whatever torch makes of a stranger's values
        fits = False
    if not fits:
        raise MismatchError(
            f"{directory / TRAINING_STATE} holds the optimizer of another model",
            remedy="Use another checkpoint",
        )
    _require_unchanged(directory, TRAINING_STATE)
    return state


def _require_unchanged(directory: Path, name: str) -> None:
    """A changed number reads as well as any other: only a digest tells. Checkpoints of earlier versions have none.

    Raises:
        MismatchError: the file is another one than was written.
    """
    written = listed_digests(directory, [name]).get(name)
    if written is not None and files.sha256(directory / name) != written:
        raise MismatchError(
            f"{directory / name} is not what was written there: {SUMS} beside it lists another digest",
            remedy="Use another checkpoint, or train again",
        )


def read_training_state(directory: Path) -> TrainingState:
    """Read how far a checkpoint is; nothing but tensors and plain values is ever unpickled.

    Raises:
        MismatchError: not a training state.
    """
    return _read(directory / TRAINING_STATE)[0]


def _read(path: Path) -> tuple[TrainingState, dict[str, Any]]:
    """The state, and the optimizer's."""
    try:
        values = dict(torch.load(path, map_location="cpu", weights_only=True))
        moments = values.pop(_OPTIMIZER)
    except Exception as error:  # a reader of hostile bytes may raise anything
        raise MismatchError(f"{path} cannot be read as a training state ({type(error).__name__})") from None
    return checked(values, source=str(path)), moments


@contextmanager
def _replaced(directory: Path, *, needed: int) -> Iterator[Path]:
    """`files.atomic_directory` for its owner's eyes.

    Args:
        needed: bytes.
    """
    with files.atomic_directory(directory, needed=needed) as temporary:
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o600)


def _together(model: nn.Module, objective: Objective) -> nn.ModuleDict:
    """Both under one roof: an objective's parameters are trained and saved with the model."""
    return nn.ModuleDict({"model": model, "objective": objective})
