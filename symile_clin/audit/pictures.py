"""Pictures of the samples that an audit lists. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from symile_clin.audit.listed import MIX_UP, UNLIKE, first_rows
from symile_clin.data.store import Cohort
from symile_clin.evaluation import style
from symile_clin.modalities.base import Modality
from symile_clin.schema import ROW, SPLIT, present_column

#: Samples of each kind that are drawn.
DRAWN: Final = 10
LABEL_INCHES: Final = 1.9
ROW_INCHES: Final = 2.0
HEADER_INCHES: Final = 0.7


def audit_gallery(
    path: Path, *, cohort: Cohort, modalities: Mapping[str, Modality], listed: Mapping[str, pd.DataFrame]
) -> None:
    """One line per listed sample, the first `DRAWN` of each kind: all that it has, the doubtful one framed."""
    shown = [line for lines in listed.values() for line in lines.head(DRAWN).to_dict("records")]
    pictures = [{name: _picture(cohort, one, int(line[ROW])) for name, one in modalities.items()} for line in shown]
    widths = [max((_aspect(of[name]) for of in pictures), default=1.0) for name in modalities]
    wide = LABEL_INCHES + ROW_INCHES * sum(widths)
    with style.figure(path, width=wide, height=HEADER_INCHES + ROW_INCHES * max(len(shown), 1)) as figure:
        figure.suptitle(
            f"The first {DRAWN} listed of each kind: questions, not verdicts" if shown else "Nothing was listed",
            x=0.004, ha="left", fontweight="bold", fontsize=13,
        )  # fmt: skip
        grid = figure.add_gridspec(
            max(len(shown), 1), 1 + len(widths), width_ratios=[LABEL_INCHES / ROW_INCHES, *widths]
        )
        for place, (line, of) in enumerate(zip(shown, pictures, strict=True)):
            words = _blank(figure.add_subplot(grid[place, 0]))
            for height, text, weight in ((1, line["kind"], "bold"), (0.88, _words(line), "normal")):
                written = words.text(0, height, text, va="top", ha="left", fontsize=9.5, fontweight=weight)
                written.set_in_layout(False)  # words take the place they are given
            doubtful = line["suspected"] if line["kind"] == MIX_UP else line["modality"]
            for column, (name, picture) in enumerate(of.items(), start=1):
                axes = _blank(figure.add_subplot(grid[place, column]))
                if picture is None:
                    axes.text(0.5, 0.5, "absent", color=style.GREY, ha="center", va="center", transform=axes.transAxes)
                else:
                    axes.imshow(picture, interpolation="antialiased")
                if name == doubtful:
                    axes.spines[:].set(visible=True, color=style.VERMILION, linewidth=3)
                if place == 0:
                    axes.set_title(name)


def _words(line: Mapping[Any, Any]) -> str:
    head = f"{line[SPLIT]}, row {line[ROW]}\n"
    if line["kind"] == MIX_UP:
        suspected = f"suspected: {line['suspected']}\n(chance {line['suspicion']:.2f})" if line["suspected"] else ""
        return f"{head}{line['share']:.0%} of other patients'\ndata fit better\n{suspected}"
    if line["kind"] == UNLIKE:
        return f"{head}{line['modality']}: farther off than\n{line['share']:.0%} of val"
    return f"{head}{line['modality']}: same as row\n{first_rows(line['same_as'])}"


def _picture(cohort: Cohort, modality: Modality, row: int) -> NDArray[np.uint8] | None:
    if not cohort.samples.loc[row, present_column(modality.name)]:
        return None
    arrays = {key: cohort.array(modality.name, key).take(np.array([row]))[0] for key in modality.arrays}
    return modality.render(arrays, {str(column): value for column, value in cohort.samples.loc[row].items()})


def _blank(axes: Axes) -> Axes:
    axes.set_anchor("NW")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _aspect(picture: NDArray[np.uint8] | None) -> float:
    return 1.0 if picture is None else float(picture.shape[1] / picture.shape[0])
