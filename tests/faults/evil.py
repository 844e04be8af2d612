"""Files that run code where they are loaded without care, and the careless ways to load them."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def pickled(path: Path, canary: Path) -> Path:
    """A bare pickle, whatever it is called."""
    path.write_bytes(pickle.dumps(Payload(canary)))
    return path


def pickled_tensors(path: Path, canary: Path, **content: Any) -> Path:
    """What torch.save writes, with the payload in it."""
    torch.save({**content, "evil": Payload(canary)}, path)
    return path


def lightning(path: Path, canary: Path) -> Path:
    """A checkpoint that asks Lightning to instantiate a class of its choice, and would run it."""
    weights = {"logit_scale": torch.zeros(())}
    torch.save({"state_dict": weights, "hyper_parameters": {"_instantiator": Payload(canary)}}, path)
    return path


def objects(path: Path, canary: Path, *, shape: tuple[int, ...] = (1,)) -> Path:
    """A .npy of objects."""
    with path.open("wb") as file:
        np.save(file, np.full(shape, Payload(canary), dtype=object), allow_pickle=True)
    return path


def archived(path: Path, canary: Path, member: str = "row") -> Path:
    """An .npz, or an archive under another name, whose array is of objects, and whose members climb out."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(canary)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{member}.npy", buffer.getvalue())
        archive.writestr("../../escaped.npy", buffer.getvalue())
        archive.writestr(str(canary), b"")
    return path


def tagged(canary: Path) -> str:
    """YAML that calls a function."""
    return f"name: !!python/object/apply:os.system [\"touch '{canary}'\"]\n"


def load_carelessly(path: Path) -> None:
    """Load a file by the ways that this package forbids itself, one of which its kind fits."""
    for load in (
        lambda: pickle.loads(path.read_bytes()),  # noqa: S301  shows that the file is evil
        lambda: torch.load(io.BytesIO(path.read_bytes()), weights_only=False),  # by a name it would choose the reader
        lambda: [np.load(path, allow_pickle=True)[name] for name in np.load(path, allow_pickle=True).files],
        lambda: np.load(path, allow_pickle=True),
        lambda: yaml.unsafe_load(path.read_text()),
    ):
        try:
            load()
        except Exception:
            continue
