"""A vector as a picture."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HEIGHT: Final = 64
WIDTH: Final = 512
BELOW: Final = np.array([33, 102, 172])
ABOVE: Final = np.array([178, 24, 43])


def draw_strip(vector: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw a line for each number in its order: blue below zero, red above, as strong as its share of the largest.

    Args:
        vector: (width,). More numbers than pixels are drawn as the mean of neighbours.

    Returns:
        (64, 512, 3) uint8, framed.
    """
    values = np.asarray(vector, dtype=np.float64)
    if len(values) > WIDTH:
        starts = np.arange(WIDTH) * len(values) // WIDTH
        values = np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
    values = values[np.arange(WIDTH) * len(values) // WIDTH]
    strength = np.abs(values) / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    colour = np.where(values[:, None] < 0, BELOW, ABOVE)
    line = 255 - strength[:, None] * (255 - colour)
    picture = np.broadcast_to(line.round().astype(np.uint8), (HEIGHT, WIDTH, 3)).copy()
    picture[[0, -1]] = picture[:, [0, -1]] = 90
    return picture
