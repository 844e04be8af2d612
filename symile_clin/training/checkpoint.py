"""Checkpoints: weights as safetensors, training state beside them, whole or not there at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from symile_clin import files
from symile_clin.encoders.weights import load_exactly, read_state
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.objectives.base import Objective

WEIGHTS = "model.safetensors"
TRAINING_STATE = "training.pt"


@dataclass(frozen=True)
class TrainingState:
    """What training would need to go on. Every random stream is a function of seed and step, so none is kept.

    Attributes:
        epoch: epochs finished.
        step: steps finished.
        optimizer: state_dict of the optimizer.
    """

    epoch: int
    step: int
    optimizer: dict[str, Any]


def save_checkpoint(directory: Path, *, model: nn.Module, objective: Objective, state: TrainingState) -> None:
    """Write a checkpoint, replacing an old one in the same place only when the new one is whole."""
    with files.atomic_directory(directory) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in _together(model, objective).state_dict().items()},
            temporary / WEIGHTS,
        )
        torch.save({"epoch": state.epoch, "step": state.step, "optimizer": state.optimizer}, temporary / TRAINING_STATE)


def load_weights(directory: Path, *, model: nn.Module, objective: Objective) -> None:
    """Load a checkpoint's weights into a model and its objective.

    Raises:
        NotFoundError: no checkpoint there.
        MismatchError: naming what is missing, left over or of another shape.
    """
    if not (directory / WEIGHTS).is_file():
        raise NotFoundError(f"no checkpoint in {directory}", remedy="Train first, or give another checkpoint")
    load_exactly(_together(model, objective), read_state(directory / WEIGHTS), source=str(directory))


def read_training_state(directory: Path) -> TrainingState:
    """Read what a checkpoint keeps beside its weights; nothing but tensors and plain values is ever unpickled.

    Raises:
        MismatchError: not a training state.
    """
    path = directory / TRAINING_STATE
    try:
        return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a reader of hostile bytes may raise anything
        raise MismatchError(f"{path} cannot be read as a training state ({type(error).__name__})") from None


def _together(model: nn.Module, objective: Objective) -> nn.ModuleDict:
    """Both under one roof: an objective's parameters are trained and saved with the model."""
    return nn.ModuleDict({"model": model, "objective": objective})
