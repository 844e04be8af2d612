"""A 12-lead ECG drawn as cardiologists read it. Imports matplotlib: only called through the room's `render`."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from symile_clin.modalities.ecg.preprocess import LEADS, RATE_HZ

#: Three rows of four leads, 2.5 s each, and lead II in full below.
GRID: Final = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
SECONDS_PER_LEAD: Final = 2.5
ROW_MV: Final = 3.0
#: What 1 is drawn as where a record is only known scaled to [-1, 1].
RELEASED_MV: Final = 1.5
#: Large enough to be read in a page; galleries make it smaller. 10 s by 12.5 mV, so squares are squares.
INCHES: Final = (6.4, 3.2)
DOTS_PER_INCH: Final = 200
#: Points; a trace must still be seen when a gallery makes the sheet smaller.
LINE: Final = 0.9
#: Seconds and mV of small squares, 1 mm on paper at 25 mm/s and 10 mm/mV; large ones are five times as wide.
SMALL: Final = (0.04, 0.1)
SMALL_LINE: Final = ("#f8dfdf", 0.3)
LARGE_LINE: Final = ("#eab0b0", 0.6)
PAPER: Final = "#fffcfc"
_BEHIND_TEXT: Final = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}


def draw_sheet(millivolts: NDArray[np.float64], *, note: str = "") -> NDArray[np.uint8]:
    """Draw leads (5000, 12) in mV on a grid of 0.2 s by 0.5 mV, with a note in the lower right corner.

    Args:
        note: what is to be said of the mV of a large square, where it is not 0.5.

    Returns:
        (640, 1280, 3) uint8.
    """
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), facecolor=PAPER)
    time = np.arange(len(millivolts)) / RATE_HZ
    centred = millivolts - np.median(millivolts, axis=0)
    seconds, low, high = SECONDS_PER_LEAD * len(GRID[0]), -len(GRID) * ROW_MV - 1.5, 2.0

    def name(lead: str, at: float, row: int) -> None:
        axes.text(at + 0.06, 1.02 - row * ROW_MV, lead, fontsize=8, fontweight="bold", zorder=1.5, bbox=_BEHIND_TEXT)

    for each, (color, width) in ((1, SMALL_LINE), (5, LARGE_LINE)):  # collections: hundreds of ticks would be slow
        axes.vlines(np.arange(0, seconds, each * SMALL[0]), low, high, color=color, linewidth=width, zorder=1)
        axes.hlines(np.arange(low, high, each * SMALL[1]), 0, seconds, color=color, linewidth=width, zorder=1)
    for row, names in enumerate(GRID):
        for column, lead in enumerate(names):
            window = (time >= column * SECONDS_PER_LEAD) & (time < (column + 1) * SECONDS_PER_LEAD)
            trace = centred[window, LEADS.index(lead)]
            axes.plot(time[window], trace - row * ROW_MV, color="black", linewidth=LINE)
            name(lead, column * SECONDS_PER_LEAD, row)
    axes.plot(time, centred[:, LEADS.index("II")] - len(GRID) * ROW_MV, color="black", linewidth=LINE)
    name("II", 0, len(GRID))
    squares = f"large square: 0.2 s, {note or '0.5 mV'}"
    axes.text(0.994, 0.012, squares, fontsize=6.5, ha="right", transform=axes.transAxes, bbox=_BEHIND_TEXT)
    axes.set(xlim=(0, seconds), ylim=(low, high), xticks=[], yticks=[])
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib does not type it
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels, dtype=np.uint8)[..., :3].copy()
