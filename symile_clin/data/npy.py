"""Arrays in .npy files that may be anybody's: mapped, never unpickled, never unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a .npy file.

    Unlike `numpy.load` it takes no archives and no pickles for one, and waits for no pipe.

    Raises:
        ValueError: it is not there, or not a whole .npy of plain values; the text says which.
    """
    if not path.is_file():
        raise ValueError("no such file")
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError) as error:
        # headers are literals of Python, which say what they please
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    return array
