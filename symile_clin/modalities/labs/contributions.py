"""How much each lab item raises or lowers a score. Imports matplotlib: only called through the room's attribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from symile_clin.modalities.drawing import BLUE, VERMILION, blank, pixels
from symile_clin.modalities.labs.panel import short

SHOWN: Final = 12
INCHES: Final = (6.4, 3.6)
#: Of the figure: left, bottom, width, height of the bars; names and values stand to their left.
BARS: Final = (0.52, 0.13, 0.46, 0.79)


def draw_contributions(names: Sequence[str], values: Sequence[str], changes: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw the largest `changes` (items,) as bars about 0, each with its name and value.

    Returns:
        (360, 640, 3) uint8.
    """
    order = np.argsort(-np.abs(changes), kind="stable")
    top, rest = order[:SHOWN], order[SHOWN:]
    figure = blank(*INCHES)
    axes = figure.add_axes(BARS)
    places = np.arange(len(top))
    raises = changes[top] > 0
    axes.barh(places[raises], changes[top][raises], height=0.72, color=VERMILION)
    axes.barh(
        places[~raises], changes[top][~raises], height=0.72, color="white", edgecolor=BLUE, hatch="////", linewidth=0.8
    )
    axes.axvline(0, color="black", linewidth=0.8)
    largest = float(np.abs(changes).max())
    axes.set_xlim(-1.08 * largest, 1.08 * largest)
    axes.set_ylim(SHOWN - 0.4, -0.6)
    axes.set_yticks([])
    left = axes.get_yaxis_transform()
    for place, item in enumerate(top):
        axes.text(-0.56, place, short(names[item]), fontsize=8.5, va="center", ha="right", transform=left)
        axes.text(-0.02, place, values[item], fontsize=8.5, va="center", ha="right", transform=left)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.tick_params(labelsize=8)
    axes.set_xlabel("change of the score that the item makes", fontsize=8.5, labelpad=2)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.text(0.0, 1.02, "lowers the score", fontsize=8.5, color=BLUE, ha="left", transform=axes.transAxes)
    axes.text(1.0, 1.02, "raises the score", fontsize=8.5, color=VERMILION, ha="right", transform=axes.transAxes)
    if len(rest):
        most = float(np.abs(changes[rest]).max())
        note = f"{len(rest)} further items: at most ±{most:.2g} each"
        figure.text(0.01, 0.02, note, fontsize=8, ha="left", va="bottom")
    return pixels(figure)
