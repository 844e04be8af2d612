"""How the figures look: one set of sizes, and colours that a colour-blind person can tell apart (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE: Final = "#0072B2"
LIGHT_BLUE: Final = "#A9CCE3"  # BLUE lightened
VERMILION: Final = "#D55E00"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
INK: Final = "#222222"
GREY: Final = "#8A8A8A"
PALE: Final = "#E8EDF2"

_SETTINGS: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": PALE,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
    "svg.hashsalt": "symile-clin",
}
#: What would make equal figures differ.
_VOLATILE: Final[dict[str, dict[str, None]]] = {"png": {"Software": None}, "svg": {"Date": None}}


@contextmanager
def figure(
    path: Path | BytesIO, *, width: float, height: float, form: Literal["png", "svg"] = "png"
) -> Iterator[Figure]:
    """A figure of so many inches in the common style, saved to `path` when the block ends.

    It is not one of pyplot's, so it neither needs a display nor stays open.
    """
    with mpl.rc_context(_SETTINGS):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made
        made.savefig(path, format=form, metadata=_VOLATILE[form])  # equal figures are equal bytes


def label_line(axes: Axes, x: float, text: str, color: str, *, style: str = "-") -> None:
    """A vertical line with an entry in the legend."""
    axes.axvline(x, color=color, linestyle=style, linewidth=1.8, label=text)
