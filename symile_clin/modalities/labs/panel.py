"""A lab panel drawn as bars. Imports matplotlib: only called through the room's `render`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

INCHES: Final = (6.4, 3.2)
DOTS_PER_INCH: Final = 100
COLUMNS: Final = 3
#: Few items keep the bars of many.
FEWEST_LINES: Final = 10
#: Of a column's width: where bars start and how wide they are; labels stand before them.
BARS: Final = (0.63, 0.35)
LONGEST_LABEL: Final = 20
#: Percentiles outside are drawn dark: what a reader looks for first.
USUAL: Final = (0.1, 0.9)


def draw_panel(labels: Sequence[str], percentiles: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw percentiles in [0, 1] as bars from the median, in columns.

    Returns:
        (320, 640, 3) uint8.
    """
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    per_column = max(-(-len(labels) // COLUMNS), FEWEST_LINES)
    for column in range(COLUMNS):
        if column * per_column >= len(labels):
            break
        axes = figure.add_axes(((column + BARS[0]) / COLUMNS, 0.01, BARS[1] / COLUMNS, 0.98))
        part = slice(column * per_column, (column + 1) * per_column)
        values = percentiles[part].astype(np.float64)
        unusual = (values < USUAL[0]) | (values > USUAL[1])
        axes.barh(
            np.arange(len(values)), values - 0.5, left=0.5, height=0.7, color=np.where(unusual, "#1f4e79", "#9fc0de")
        )
        axes.set_yticks(np.arange(len(values)), [short(label) for label in labels[part]], fontsize=8)
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


def short(label: str) -> str:
    """A lab's label as a narrow panel has room for: its abbreviation if it names one, without filling words."""
    named = re.search(r" \(([A-Z]+)\)$", label)
    text = named[1] if named else label.replace("Absolute ", "Abs. ").removesuffix(" Count")
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1].rstrip() + "…"
