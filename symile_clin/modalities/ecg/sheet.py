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
INCHES: Final = (6.4, 3.2)
DOTS_PER_INCH: Final = 100
#: Points; a trace must still be seen when a gallery makes the sheet smaller.
LINE: Final = 1.0


def draw_sheet(millivolts: NDArray[np.float64], *, note: str = "") -> NDArray[np.uint8]:
    """Draw leads (5000, 12) in mV on a grid of 0.2 s by 0.5 mV, with a note in the lower right corner.

    Returns:
        (320, 640, 3) uint8.
    """
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    time = np.arange(len(millivolts)) / RATE_HZ
    centred = millivolts - np.median(millivolts, axis=0)
    for place, names in enumerate(GRID):
        for column, lead in enumerate(names):
            window = (time >= column * SECONDS_PER_LEAD) & (time < (column + 1) * SECONDS_PER_LEAD)
            trace = centred[window, LEADS.index(lead)]
            axes.plot(time[window], trace - place * ROW_MV, color="black", linewidth=LINE)
            axes.text(column * SECONDS_PER_LEAD + 0.05, 1.0 - place * ROW_MV, lead, fontsize=9, fontweight="bold")
    axes.plot(time, centred[:, LEADS.index("II")] - len(GRID) * ROW_MV, color="black", linewidth=LINE)
    axes.text(0.99, 0.02, note, fontsize=8, ha="right", transform=axes.transAxes)
    axes.set_xlim(0, time[-1])
    axes.set_ylim(-len(GRID) * ROW_MV - 1.5, 2.0)
    axes.set_xticks(np.arange(0, time[-1], 0.2))
    axes.set_yticks(np.arange(-len(GRID) * ROW_MV - 1.5, 2.0, 0.5))
    axes.grid(color="#edb3b3", linewidth=0.5)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib does not type it
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels, dtype=np.uint8)[..., :3].copy()
