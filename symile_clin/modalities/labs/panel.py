"""A lab panel drawn as bars. Imports matplotlib: only called through the room's `render`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

INCHES: Final = (6.4, 3.2)
DOTS_PER_INCH: Final = 100
COLUMNS: Final = 2
#: Percentiles outside are drawn dark: what a reader looks for first.
USUAL: Final = (0.1, 0.9)


def draw_panel(labels: Sequence[str], percentiles: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw percentiles in [0, 1] as bars from the median, in two columns.

    Returns:
        (320, 640, 3) uint8.
    """
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    per_column = -(-max(len(labels), 1) // COLUMNS)
    for column in range(COLUMNS):
        axes = figure.add_axes((column / COLUMNS + 0.25, 0.03, 0.23, 0.94))
        part = slice(column * per_column, (column + 1) * per_column)
        values = percentiles[part].astype(np.float64)
        unusual = (values < USUAL[0]) | (values > USUAL[1])
        axes.barh(
            np.arange(len(values)), values - 0.5, left=0.5, height=0.7, color=np.where(unusual, "#1f4e79", "#9fc0de")
        )
        axes.set_yticks(np.arange(len(values)), labels[part], fontsize=5)
        axes.axvline(0.5, color="grey", linewidth=0.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(per_column - 0.5, -0.5)
        axes.set_xticks([])
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_linewidth(0.4)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib does not type it
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels, dtype=np.uint8)[..., :3].copy()
