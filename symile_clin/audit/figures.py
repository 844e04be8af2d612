"""How all samples of an audit score, with the listed ones marked; no sample can be told from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from symile_clin.audit.listed import MIX_UP, UNLIKE
from symile_clin.audit.unlike import Values
from symile_clin.evaluation import style
from symile_clin.schema import Split

BINS = 30


def draw(
    path: Path,
    *,
    lines: pd.DataFrame,
    listed: Mapping[str, pd.DataFrame],
    reference: Mapping[str, Values],
    splits: Sequence[Split],
) -> None:
    """One panel of possible mix-ups, then one of each modality's distance from the training data.

    Args:
        reference: by modality, scores of samples that did not train the model.
    """
    mixed, unlike = lines[lines["kind"] == MIX_UP], lines[lines["kind"] == UNLIKE]
    names = list(unlike["modality"].unique())
    columns = 2 if names else 1
    depth = -(-(1 + len(names)) // columns)
    with style.figure(path, width=5.2 * columns, height=0.6 + 2.9 * depth) as figure:
        figure.suptitle(f"Audit, {' + '.join(splits)} split", x=0.01, ha="left", fontweight="bold", fontsize=13)
        grid = figure.add_gridspec(depth, columns)
        panels = [figure.add_subplot(grid[place // columns, place % columns]) for place in range(1 + len(names))]
        shares = mixed["share"].to_numpy()
        _histogram(panels[0], shares, np.linspace(0, 1, BINS + 1).tolist(), listed[MIX_UP]["share"].to_numpy())
        panels[0].axvline(0.5, color=style.GREY, linestyle="--", linewidth=1.4, label="mixed up at random, on average")
        panels[0].set_title("Possible mix-ups")
        panels[0].set_xlabel("share of other patients' data that fit better")
        for axes, name in zip(panels[1:], names, strict=True):
            scores = unlike.loc[unlike["modality"] == name, "score"].to_numpy()
            shown = listed[UNLIKE]
            both = np.concatenate([scores, reference[name]])
            edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-3), BINS + 1).tolist()
            _histogram(axes, scores, edges, shown.loc[shown["modality"] == name, "score"].to_numpy())
            axes.hist(
                reference[name], edges, weights=np.full(len(reference[name]), 1 / len(reference[name])),
                histtype="step", color=style.INK, linewidth=1.4, label="val split",
            )  # fmt: skip
            axes.set_title(f"Unlike the training data: {name}")
            axes.set_xlabel("anomaly score of the isolation forest")
        handles = {
            label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)


def _histogram(axes: Axes, values: NDArray[Any], edges: Sequence[float], listed: NDArray[Any]) -> None:
    axes.hist(
        values, edges, weights=np.full(len(values), 1 / max(len(values), 1)), color=style.LIGHT_BLUE, label="audited"
    )
    axes.set_ylabel("share of samples")
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.07 * (high - low), high)
    axes.plot(
        listed, np.full(len(listed), low - 0.035 * (high - low)), "|", color=style.VERMILION, markersize=11,
        markeredgewidth=1.6, label="listed",
    )  # fmt: skip
    axes.axhline(0, color=style.GREY, linewidth=0.8)
