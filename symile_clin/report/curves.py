"""How training went, epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from symile_clin.evaluation import style
from symile_clin.evaluation.page import Block, Details, Missing, Picture, Section, SideBySide, Table
from symile_clin.schema import METRICS_LOG

EPOCH: Final = "epoch"
#: Lines of one panel: column of metrics.jsonl, words, colour, dashes. Two of one panel differ in both.
Line = tuple[str, str, str, str]


def curves_section(run: Path, *, best: int, target: str, trained_here: bool) -> Section:
    """Losses, validation accuracy, learning rate and scale of a run.

    Args:
        run: its directory.
        best: epoch of the checkpoint that was measured, from 1.
        trained_here: whether the run was trained on the cohort of this page.
    """
    blocks: list[Block] = []
    log = run / METRICS_LOG
    if not log.is_file():
        missing = (
            "this run was taken over from a checkpoint that was trained elsewhere: nobody logged its training here."
        )
        return Section("Training", "training", [Missing(missing)])
    epochs = read_log(log)
    blocks.append(
        "Training is over when validation no longer gains; a training loss that falls while the validation loss rises "
        "is overfitting. Metrics of this page are those of the checkpoint of the marked epoch."
    )
    if not trained_here:
        blocks.append("The run was trained on another cohort than this page's: these curves are of that one.")
    pictures = [
        Picture(draw_panel(epochs, title, lines, best=best), _words(epochs, title, lines, best), width=560)
        for title, lines in panels(target)
        if any(line[0] in epochs for line in lines)
    ]
    blocks.append(SideBySide(pictures))
    columns = [
        column for column in (EPOCH, *(line[0] for panel in panels(target) for line in panel[1])) if column in epochs
    ]
    table = epochs[columns].rename(columns={line[0]: line[1] for panel in panels(target) for line in panel[1]})
    marked = [int(place) for place in epochs.index[epochs[EPOCH] == best]]
    table.insert(1, "", ["best" if place in marked else "" for place in table.index])
    decimals = {"learning rate": 6, "scale": 4}
    caption = f"Every epoch; epoch {best} is the best."
    blocks.append(
        Details("The same as a table", [Table(table, caption, decimals, marked=marked, small=True)], printed=False)
    )
    return Section("Training", "training", blocks)


def read_log(path: Path) -> pd.DataFrame:
    """metrics.jsonl as a frame, one line for each epoch; a line that was cut short by a kill is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return pd.DataFrame(lines)


def panels(target: str) -> list[tuple[str, list[Line]]]:
    """Titles of the panels and what they show."""
    return [
        ("Loss", [
            ("train/loss", "loss, training", style.BLUE, "-"), ("val/loss", "loss, validation", style.VERMILION, "--"),
        ]),
        (f"Recall at 1 of {target}, validation", [
            (f"val/{target}/recall_at_1", "recall at 1, validation", style.BLUE, "-"),
        ]),
        ("Learning rate", [("train/lr", "learning rate", style.BLUE, "-")]),
        ("Scale (exponential of the logit scale)", [("train/scale", "scale", style.BLUE, "-")]),
    ]  # fmt: skip


def draw_panel(epochs: pd.DataFrame, title: str, lines: Sequence[Line], *, best: int) -> bytes:
    """One panel, the best epoch marked. SVG."""
    written = BytesIO()
    with style.figure(written, width=5.4, height=2.9, form="svg") as figure:
        axes = figure.add_subplot()
        for column, label, color, dashes in lines:
            if column in epochs:
                single = "o" if len(epochs) == 1 else None
                axes.plot(epochs[EPOCH], epochs[column], dashes, color=color, label=label, linewidth=1.8, marker=single)
        _mark(axes, epochs, best, [column for column, *_ in lines if column in epochs])
        axes.set_title(title)
        axes.set_xlabel(EPOCH)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.16 * (high - low))  # room for words above the curves
        if len(lines) > 1:
            axes.legend()
    return written.getvalue()


def _mark(axes: Axes, epochs: pd.DataFrame, best: int, columns: list[str]) -> None:
    at = epochs[epochs[EPOCH] == best]
    if at.empty:
        return
    axes.axvline(best, color=style.GREY, linestyle=":", linewidth=1.4)
    for column in columns:
        axes.plot(best, at[column].iloc[0], "o", color=style.INK, markersize=5)
    axes.annotate(
        f"epoch {best}, used here", (best, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -3),
        textcoords="offset points", va="top", fontsize=8, color=style.INK,
    )  # fmt: skip


def _words(epochs: pd.DataFrame, title: str, lines: Sequence[Line], best: int) -> str:
    """A panel in words."""
    said = [f"{title} over {len(epochs)} epochs; the checkpoint is of epoch {best}"]
    for column, words, *_ in lines:
        if column in epochs and epochs[column].notna().any():
            values = epochs[column].dropna()
            said.append(f"{words} from {values.iloc[0]:.4g} to {values.iloc[-1]:.4g}")
    return "; ".join(said) + "."
