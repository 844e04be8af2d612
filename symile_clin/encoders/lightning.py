"""Checkpoints of PyTorch Lightning, read without running anything in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

import torch
from torch import Tensor

from symile_clin.errors import MismatchError, NotFoundError

# Lightning saves hyper-parameters as they were given, and paths are paths. Python 3.13 pickles them by another name.
_PATHS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (PosixPath, "pathlib.PosixPath"),
    (PosixPath, "pathlib._local.PosixPath"),
]


@dataclass(frozen=True)
class LightningCheckpoint:
    """What a checkpoint holds of a model.

    Attributes:
        state: tensors by name.
        hyper_parameters: as the module was constructed with.
        epoch: 0-based, of the last one it was trained for; None if it does not say.
    """

    state: Mapping[str, Tensor]
    hyper_parameters: Mapping[str, Any]
    epoch: int | None


def read_lightning(path: Path) -> LightningCheckpoint:
    """Read a `.ckpt` file, on the CPU; nothing but tensors, plain values and paths is ever unpickled.

    Raises:
        NotFoundError: no such file.
        MismatchError: not such a checkpoint, or one that asks for anything else to be run.
    """
    if not path.is_file():
        raise NotFoundError(f"no checkpoint {path}")
    try:
        with torch.serialization.safe_globals(_PATHS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader of hostile bytes may raise anything
        raise MismatchError(
            f"{path} cannot be read as a Lightning checkpoint ({type(error).__name__})",
            expected="one of tensors, plain values and paths",
        ) from None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MismatchError(f"{path} has no 'state_dict' of tensors", expected="a Lightning checkpoint")
    epoch, given = content.get("epoch"), content.get("hyper_parameters")
    return LightningCheckpoint(
        state=state,
        hyper_parameters=given if isinstance(given, dict) else {},
        epoch=epoch if isinstance(epoch, int) else None,
    )
