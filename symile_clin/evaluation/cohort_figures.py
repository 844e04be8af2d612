"""What is in a cohort, drawn as bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from symile_clin.evaluation.cohort_tables import number
from symile_clin.evaluation.style import BLUE, GREY, figure
from symile_clin.modalities.base import Summary

INCHES_PER_BAR: Final = 0.24


def draw_figures(folder: Path, *, attrition: pd.DataFrame, summaries: Sequence[Summary]) -> list[Path]:
    """Draw the attrition and every summary as bars; returns the PNG files."""
    folder.mkdir(exist_ok=True)
    made = [folder / "attrition.png"]
    draw_attrition(made[0], attrition)
    for summary in summaries:
        name = re.sub(r"[^a-z0-9]+", "_", summary.title.lower()).strip("_")
        labels, values = list(summary.values), list(summary.values.values())
        made.append(_draw_bars(folder / f"{name}.png", summary.title, labels, values))
    return made


def draw_attrition(place: Path | BytesIO, attrition: pd.DataFrame, *, form: Literal["png", "svg"] = "png") -> None:
    """How many samples are left after each reason, the last bar being the cohort."""
    steps, reasons, samples = (attrition[name].tolist()[:-1] for name in ("step", "reason", "samples"))
    labels, left = steps[:1], samples[:1]
    for step, reason, gone in list(zip(steps, reasons, samples, strict=True))[1:]:
        labels.append(f"{step}: {reason}")
        left.append(left[-1] - gone)
    with figure(place, width=8, height=1 + INCHES_PER_BAR * len(left) * 1.3, form=form) as drawn:
        axes = drawn.subplots()
        places = range(len(left))
        axes.barh(places, left, color=[GREY, *[BLUE] * (len(left) - 1)], height=0.7)
        for at, count in enumerate(left):
            lost = f"  (−{left[at - 1] - count:,})" if at else ""
            axes.text(count, at, f" {count:,}{lost}", va="center", fontsize=8)
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, left[0] * 1.18)
        axes.grid(axis="y", visible=False)
        axes.set_title("Samples left after each step")
        axes.set_xlabel("samples")


def _draw_bars(path: Path, title: str, labels: Sequence[str], values: Sequence[float]) -> Path:
    with figure(path, width=8, height=1 + INCHES_PER_BAR * max(len(values), 2)) as drawn:
        axes = drawn.subplots()
        places = range(len(values))
        axes.barh(places, values, color=BLUE, height=0.7)
        for place, value in enumerate(values):
            axes.text(max(value, 0), place, f" {number(value)}", va="center", fontsize=8)
        axes.set_yticks(places, labels)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.set_title(title)
    return path
