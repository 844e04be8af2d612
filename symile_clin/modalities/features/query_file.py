"""One vector from a file of its own, to ask a trained model with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import SourceError
from symile_clin.modalities.base import Refusal, refused
from symile_clin.modalities.whole_file import read_whole

MAX_BYTES: Final = 64 << 20


def read_vector(path: Path, *, width: int) -> NDArray[np.floating[Any]]:
    """A vector (width,), in the file's type; of a CSV float64.

    Args:
        path: a `.npy` of shape (width,) or (1, width), or a `.csv` of numbers, in one line or one a line, no header.

    Raises:
        SourceError: no such file, one of another form, or another width.
    """
    data = read_whole(path, limit=MAX_BYTES)
    if isinstance(data, Refusal):
        raise refused(path, data)
    found = _npy(path, data) if path.suffix == ".npy" else _csv(path, data)
    if found.dtype.kind != "f" or found.shape not in ((width,), (1, width)):
        raise SourceError(
            f"{path} holds {found.dtype} of shape {found.shape}",
            expected=f"one vector of {width:,} fractions",
            remedy="Save one row of the file that the cohort was made with",
        )
    return found.reshape(width)


def _npy(path: Path, data: bytes) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError):
        raise SourceError(f"{path} is no whole .npy of numbers", remedy="Write it with numpy.save") from None
    return found


def _csv(path: Path, data: bytes) -> NDArray[np.float64]:
    try:
        cells = data.decode("utf-8-sig").replace(",", " ").split()
        return np.array([float(cell) for cell in cells], dtype=np.float64)
    except ValueError:  # of which a UnicodeDecodeError is one
        raise SourceError(f"{path} is no CSV of numbers", expected="numbers and commas, no header") from None
