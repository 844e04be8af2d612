"""What worker processes do with files: ask whether they may be used, and read them. Imports no table engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from symile_clin.modalities.base import Modality, Refusal, Row

#: Columns of an event's row in its sample, by name; or why there are none.
Outcome = dict[str, Any] | Refusal


def ask_valid(modality: Modality, source: Path | None, rows: Sequence[Row]) -> list[Refusal | None]:
    """Whether each of some events may be used."""
    return [modality.is_valid(row, source) for row in rows]


def read_into(modality: Modality, source: Path, folder: Path, jobs: Sequence[tuple[int, Row]]) -> list[Outcome]:
    """Read some events' files into the arrays in `folder`.

    Args:
        jobs: row of the arrays, and the event.
    """
    names = [name for name, array in modality.arrays.items() if not array.fitted]
    stored = {name: open_memmap(folder / f"{name}.npy", mode="r+") for name in names}
    outcomes: list[Outcome] = []
    for slot, row in jobs:
        arrays = modality.read(row, source)
        if isinstance(arrays, Refusal):
            outcomes.append(arrays)
            continue
        for name, target in stored.items():
            target[slot] = arrays[name]
        outcomes.append({name: np.asarray(value).item() for name, value in arrays.items() if name not in stored})
    return outcomes
