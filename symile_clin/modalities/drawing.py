"""What pictures of several rooms share. Imports matplotlib: only called through a room's methods."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

#: Okabe and Ito's, which the colour-blind can tell apart, and which differ in grey.
VERMILION: Final = "#D55E00"
BLUE: Final = "#0072B2"
#: From nothing to vermilion.
HEAT: Final = LinearSegmentedColormap.from_list("heat", [(0.84, 0.37, 0.0, 0.0), (0.84, 0.37, 0.0, 0.75)])


def blank(width: float, height: float, *, dots_per_inch: int = 100) -> Figure:
    """A figure of so many inches, none of pyplot's: it needs no display and does not stay open."""
    return Figure(figsize=(width, height), dpi=dots_per_inch)


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib does not type it
    found = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(found, dtype=np.uint8)[..., :3].copy()


def share_of_largest(relevance: NDArray[np.float64]) -> NDArray[np.float64]:
    """What raises a score, from 0 to 1 at the largest; all 0 where nothing does."""
    raising = relevance.clip(min=0)
    largest = float(raising.max(initial=0))
    return raising / largest if largest > 0 else raising


def heat_bar(figure: Figure, place: tuple[float, float, float, float]) -> None:
    """The scale of `share_of_largest` at a place in shares of the figure: left, bottom, width, height."""
    axes = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), HEAT), cax=axes, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", "½", "1"], fontsize=8)
    bar.ax.tick_params(length=2, pad=2)
    bar.ax.axhline(0.5, color="black", linewidth=1)
    bar.outline.set_linewidth(0.5)
