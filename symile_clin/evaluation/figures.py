"""Figures of a retrieval evaluation that show no single patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from symile_clin.evaluation import style
from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.retrieval import Ranks


def rank_histogram(path: Path, *, ranks: Ranks, candidates_n: int, target: str, accuracy: Interval) -> None:
    """Share of queries whose positive stands at each rank; a tied positive is spread over its possible ranks."""
    share = rank_shares(ranks, candidates_n)
    positions = np.arange(1, candidates_n + 1)
    with style.figure(path, width=6.4, height=3.8) as figure:
        axes = figure.add_subplot()
        colors = [style.BLUE, *[style.LIGHT_BLUE] * (candidates_n - 1)]
        axes.bar(positions, share, width=0.82, color=colors)
        axes.axhline(1 / candidates_n, color=style.INK, linestyle="--", linewidth=1.2)
        axes.text(candidates_n + 0.5, 1 / candidates_n, " chance", va="center", ha="left", fontsize=9)
        axes.set_title(
            f"Rank of the true {target} among {candidates_n} candidates, {len(ranks.n_greater):,} queries\n"
            f"recall at 1: {accuracy.estimate:.3f}, 95 % interval [{accuracy.low:.3f}, {accuracy.high:.3f}]"
        )
        axes.set_xlabel("rank")
        axes.set_ylabel("share of queries")
        axes.set_xlim(0.4, candidates_n + 0.5)
        axes.set_ylim(0, share.max() * 1.08)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def rank_shares(ranks: Ranks, candidates_n: int) -> NDArray[np.float64]:
    """(candidates_n,) share of queries at each rank, adding up to 1."""
    position = np.arange(candidates_n)
    above, last = ranks.n_greater[:, None], (ranks.n_greater + ranks.n_tied)[:, None]
    possible = (above <= position) & (position <= last)
    share: NDArray[np.float64] = (possible / (ranks.n_tied[:, None] + 1)).mean(axis=0)
    return share


def contribution_bars(
    path: Path, *, contributions: Mapping[str, Mapping[str, Interval]], target: str, recall: float, chance: float
) -> None:
    """recall_at_1 lost when a modality is taken away or shuffled, with paired intervals.

    Args:
        contributions: modality -> how it was made useless -> recall_at_1 lost.
        recall: with all of them.
        chance: recall_at_1 of who knows nothing.
    """
    ways = list(next(iter(contributions.values())))
    thickness = 0.8 / len(ways)
    with style.figure(path, width=6.4, height=1.9 + 0.75 * len(contributions)) as figure:
        axes = figure.add_subplot()
        for place, (way, color) in enumerate(zip(ways, (style.BLUE, style.ORANGE), strict=False)):
            lost = [by_way[way] for by_way in contributions.values()]
            at = np.arange(len(lost)) + (place - (len(ways) - 1) / 2) * thickness
            estimates = np.array([one.estimate for one in lost])
            whiskers = np.abs(np.array([[one.low, one.high] for one in lost]).T - estimates)
            axes.barh(at, estimates, height=thickness * 0.88, color=color, label=way)
            axes.errorbar(estimates, at, xerr=whiskers, fmt="none", ecolor=style.INK, elinewidth=1.3, capsize=3)
        farthest = max(one.high for by_way in contributions.values() for one in by_way.values())
        axes.set_xlim(right=1.06 * max(farthest, recall - chance, 0.01))
        axes.axvline(0, color=style.INK, linewidth=0.8)
        if recall > chance:
            above = f"all that is above chance ({recall - chance:.3f})"
            style.label_line(axes, recall - chance, above, style.GREY, style="--")
        axes.set_title(
            f"What each modality contributes to retrieving {target}\nrecall at 1 with all of them: {recall:.3f}"
        )
        axes.set_xlabel("recall at 1 lost without it, 95 % interval")
        axes.set_yticks(np.arange(len(contributions)), list(contributions))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3)


def bootstrap_distribution(
    path: Path,
    *,
    means: NDArray[np.float64],
    accuracy: Interval,
    references: Mapping[str, float],
    paper: NDArray[np.float64] | None,
) -> None:
    """The accuracy over bootstrap resamples of patients, with its interval and what it should be read against.

    Args:
        means: (B,) accuracy of each resample of patients.
        references: chance and, for synthetic patients, what is reachable: name -> accuracy.
        paper: accuracies over resampled queries, drawn as ticks.
    """
    lines = zip((style.GREY, style.VERMILION, style.GREEN), ("--", "-.", ":"), references.items(), strict=False)
    with style.figure(path, width=6.4, height=4.2) as figure:
        axes = figure.add_subplot()
        counts, _, _ = axes.hist(means.round(12), bins=30, color=style.BLUE, alpha=0.75)
        axes.axvspan(accuracy.low, accuracy.high, color=style.PALE, zorder=0)
        interval = f"this model {accuracy.estimate:.3f}, 95 % interval [{accuracy.low:.3f}, {accuracy.high:.3f}]"
        style.label_line(axes, accuracy.estimate, interval, style.BLUE)
        for color, dashes, (name, value) in lines:
            style.label_line(axes, value, f"{name} {value:.3f}", color, style=dashes)
        if paper is not None:
            height = -0.04 * float(np.max(counts))
            label = f"{len(paper)} resamples of queries (the paper's way)"
            axes.plot(paper, np.full(len(paper), height), "|", color=style.INK, markersize=9, label=label)
        axes.set_title(f"Accuracy over {len(means):,} bootstrap resamples of patients")
        axes.set_xlabel("recall at 1")
        axes.set_ylabel("resamples")
        figure.legend(loc="outside lower center")  # one column: two of these are wider than the figure
