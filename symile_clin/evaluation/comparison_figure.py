"""A comparison as a picture: each group's value with its runs as dots, and the differences as a forest plot."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from symile_clin.evaluation import style
from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.comparison import Comparison
from symile_clin.evaluation.comparison_tables import LOWER_IS_BETTER, asked, letter, on_what, p_text, pair, signed

INCHES_PER_LINE: Final = 0.42
_LONGEST_NAME: Final = 34


def comparison_figure(path: Path, comparison: Comparison) -> None:
    """Draw values above, differences below; every interval is of other patients, every dot is a trained run."""
    values, differences = len(comparison.values), len(comparison.differences)
    heights = [0.85 + INCHES_PER_LINE * values, 0.85 + INCHES_PER_LINE * differences]
    with style.figure(path, width=8.2, height=1.55 + sum(heights)) as figure:
        above, below = figure.subplots(2, 1, height_ratios=heights)
        _values(above, comparison)
        _differences(below, comparison)
        entries: dict[str, Artist] = {}
        for axes in (above, below):
            drawn, names = axes.get_legend_handles_labels()
            entries |= dict(zip(names, drawn, strict=True))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=3)
        ranked = comparison.values[0].group.runs[0].ranked
        metric = comparison.metric.replace("_", " ")
        figure.suptitle(
            f"{metric} of {asked(ranked)}\n{on_what(comparison)}", x=0.01, ha="left", fontsize=11.5, fontweight="bold"
        )


def _values(axes: Axes, comparison: Comparison) -> None:
    for place, value in enumerate(comparison.values):
        _interval(axes, value.percentile, place, "value, 95 % interval" if place == 0 else "")
        if len(value.by_run) > 1:
            axes.plot(
                list(value.by_run.values()), [place + 0.26] * len(value.by_run), "o", color=style.INK, markersize=5,
                fillstyle="none", label="its runs, one seed each",
            )  # fmt: skip
    axes.axvline(comparison.chance, color=style.GREY, linestyle="--", linewidth=1.4, label="chance")
    reference = " (reference)" if all(one.second == 0 for one in comparison.differences) else ""
    names = [_short(value.group.label) for value in comparison.values]
    labels = [f"{name}{reference if i == 0 else ''}   {letter(i)}" for i, name in enumerate(names)]
    texts = [f"{value.percentile.estimate:.3f}" for value in comparison.values]
    _lines(axes, labels, texts)
    better = ", lower is better" if comparison.metric in LOWER_IS_BETTER else ""
    axes.set_xlabel(f"{comparison.metric.replace('_', ' ')}{better}")


def _differences(axes: Axes, comparison: Comparison) -> None:
    for place, one in enumerate(comparison.differences):
        first = place == 0
        _interval(axes, one.percentile, place - 0.1)
        ends, label = [one.bca.low, one.bca.high], "95 % interval, BCa" if first else ""
        axes.plot(ends, [place + 0.16] * 2, "|-", color=style.VERMILION, linewidth=1.4, markersize=7, label=label)
    axes.axvline(0, color=style.INK, linewidth=1.2)
    texts = [f"{signed(one.percentile.estimate)}   p {p_text(one.p_holm)}" for one in comparison.differences]
    _lines(axes, [pair(one) for one in comparison.differences], texts)
    several = " (Holm)" if len(comparison.differences) > 1 else ""
    axes.set_xlabel(f"difference in {comparison.metric.replace('_', ' ')}; p of no difference{several} at the right")


def _interval(axes: Axes, interval: Interval, place: float, label: str = "") -> None:
    """A value as a square on the line of its interval."""
    ends = [interval.low, interval.estimate, interval.high]
    axes.plot(ends, [place] * 3, "s-", color=style.BLUE, linewidth=2.4, markersize=7, markevery=[1], label=label)


def _lines(axes: Axes, labels: list[str], texts: list[str]) -> None:
    """One line of the plot for each label, with a text at its right end."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.margins(x=0.06)
    for place, text in enumerate(texts):
        axes.text(1.015, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
