"""Figures of probes and of what findings are retrieved; none shows a single patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from symile_clin.evaluation import style
from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.probes.features import QUERY
from symile_clin.probes.judging import MACRO
from symile_clin.probes.tables import Results
from symile_clin.probes.zero_shot import TOP

#: Colour and marker of each input, in order; the baseline is grey.
_MARKS: Final = (
    (style.BLUE, "o"),
    (style.ORANGE, "s"),
    (style.GREEN, "D"),
    (style.VERMILION, "^"),
    (style.INK, "P"),
)
#: The query is drawn like what it is made of, but hollow: the modalities asked with, not side by side.
_WORDS: Final = {MACRO: "mean of findings", DEMOGRAPHICS: "age and sex", QUERY: "the query made of them"}


def auroc(path: Path, results: Results) -> None:
    """AUROC of every finding from every input, with intervals; the average above them."""
    inputs = _inputs(results)
    found = {(one.input, one.finding): one.intervals["auroc"] for one in results.judged}
    found |= {(one.input, MACRO): one.intervals["auroc"] for one in results.averages}
    findings = [name for name in results.support if any((one, name) in found for one in inputs)]
    labels = ([MACRO] if results.averages else []) + findings
    step = 0.8 / len(inputs)
    with style.figure(path, width=8.0, height=1.9 + (0.16 + 0.13 * len(inputs)) * len(labels)) as figure:
        axes = figure.add_subplot()
        marks = _marks(inputs)
        for place, name in enumerate(inputs):
            color, marker, fill = marks[name]
            rows = [row for row, label in enumerate(labels) if (name, label) in found]
            values = [found[name, labels[row]] for row in rows]
            at = np.array(rows) + (place - (len(inputs) - 1) / 2) * step
            axes.hlines(at, [one.low for one in values], [one.high for one in values], color=color, linewidth=1.6)
            axes.plot(
                [one.estimate for one in values], at, marker, color=color, markersize=5.5, markerfacecolor=fill,
                label=_words(name),
            )  # fmt: skip
        for row in range(1, len(labels), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=style.PALE, zorder=-1, alpha=0.6, linewidth=0)
        axes.axvline(0.5, color=style.INK, linestyle="--", linewidth=1.2)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_yticks(range(len(labels)), [_words(label) for label in labels])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("AUROC of linear probes, 95 % intervals over patients; dashed: chance")
        axes.set_title(f"What embeddings tell of findings, {results.split} split\n{results.policy.words()}")
        figure.legend(loc="outside lower center", ncols=min(len(inputs), 4))


def calibration(path: Path, results: Results) -> None:
    """A calibration curve for every finding, of all modalities together and of those that are asked with."""
    inputs = [name for name in _inputs(results) if "+" in name] or _inputs(results)[-1:]
    curves = {(one.input, one.finding): one for one in results.judged if one.input in inputs}
    findings = [name for name in results.support if any((one, name) in curves for one in inputs)]
    columns = min(4, len(findings))
    lines = -(-len(findings) // columns)
    with style.figure(path, width=max(2.3 * columns + 0.6, 6.4), height=2.3 * lines + 1.5) as figure:
        grid = figure.subplots(lines, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(findings):
                axes.set_visible(False)
                continue
            axes.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1)
            for name, color, marker in zip(inputs, (style.ORANGE, style.BLUE), ("s", "o"), strict=False):
                curve = curves[name, findings[place]].curve if (name, findings[place]) in curves else ()
                points = [(point.forecast, point.observed) for point in curve if point.observed is not None]
                x = [forecast for forecast, _ in points]
                axes.vlines(x, [y.low for _, y in points], [y.high for _, y in points], color=color, linewidth=1.2)
                axes.plot(
                    x, [y.estimate for _, y in points], marker=marker, linestyle="", color=color, markersize=4,
                    label=_words(name) if place == 0 else None,
                )  # fmt: skip
            axes.set_title(_words(findings[place]), fontsize=9.5, pad=4)
            axes.set_xlim(-0.04, 1.04)
            axes.set_ylim(-0.04, 1.04)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
            if place + columns >= len(findings):
                axes.set_xlabel("mean forecast", fontsize=9)
            if place % columns == 0:
                axes.set_ylabel("share with it", fontsize=9)
        figure.suptitle(
            f"Calibration of linear probes, {results.split} split: quantile bins of forecasts\n"
            f"{results.policy.words()}; 95 % intervals over patients",
            fontsize=10.5,
        )
        figure.legend(loc="outside lower center", ncols=2)


def lift(path: Path, results: Results) -> None:
    """Which findings queries retrieve: the first candidates and the whole order, of queries with and without it."""
    lifts = sorted(results.lifts, key=lambda one: -one.precision_contrast.estimate)
    at = np.arange(len(lifts))
    kinds = (
        (-0.14, style.BLUE, "o", "queries with the finding", [(one.precision, one.auroc) for one in lifts]),
        (0.14, style.ORANGE, "s", "without it", [(one.precision_without, one.auroc_without) for one in lifts]),
    )
    with style.figure(path, width=9.2, height=2.2 + 0.42 * len(lifts)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for side, axes in enumerate(panels):
            for shift, color, marker, label, pairs in kinds:
                values = [pair[side] for pair in pairs]
                axes.hlines(
                    at + shift, [one.low for one in values], [one.high for one in values], color=color, linewidth=2
                )
                axes.plot(
                    [one.estimate for one in values], at + shift, marker, color=color, markersize=5,
                    label=label if side == 0 else None,
                )  # fmt: skip
            chance = [0.5 if side else one.prevalence for one in lifts]
            axes.vlines(
                chance, at - 0.36, at + 0.36, color=style.INK, linewidth=1.8, label="by chance" if side == 0 else None
            )
            axes.set_xlim(-0.02, 1.02)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
        panels[0].set_yticks(at, [_words(one.finding) for one in lifts])
        panels[0].invert_yaxis()
        panels[0].set_xlabel(f"share of the first {TOP} with the finding")
        panels[1].set_xlabel("AUROC: candidates with it above those without")
        figure.suptitle(
            f"Findings that the other modalities retrieve: {results.target} of other patients, {results.split} split\n"
            f"{results.policy.words()}; 95 % intervals over patients",
            fontsize=10.5,
        )
        figure.legend(loc="outside lower center", ncols=3)


def _inputs(results: Results) -> list[str]:
    """As they were probed."""
    return list(dict.fromkeys(one.input for one in results.judged))


def _words(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " ").replace("+", " + "))


def _marks(inputs: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and filling of each input."""
    own = [name for name in inputs if name not in (DEMOGRAPHICS, QUERY)]
    marks = {name: (*_MARKS[place % len(_MARKS)], _MARKS[place % len(_MARKS)][0]) for place, name in enumerate(own)}
    return {**marks, DEMOGRAPHICS: (style.GREY, "v", style.GREY), QUERY: (style.VERMILION, "^", "white")}
