"""A forest plot of recall_at_1 by group."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.transforms import blended_transform_factory

from symile_clin.evaluation import style
from symile_clin.evaluation.subgroups import SHOWN, SubgroupReport

FIGURE: Final = "subgroups.png"


def subgroup_figure(path: Path, report: SubgroupReport) -> None:
    """Each group's recall_at_1 with its interval, under the name of its grouping; withheld groups are only named."""
    overall, chance = report.overall, report.chance
    table = report.table[report.table["metric"] == SHOWN[0]]
    places = len(table) + 1.6 * table["grouping"].nunique()
    with style.figure(path, width=7.8, height=max(2.6, 1.7 + 0.215 * places)) as figure:
        axes = figure.add_subplot()
        axes.axvspan(overall.low, overall.high, color=style.PALE, zorder=0)
        axes.axvline(chance, color=style.GREY, linestyle="--", linewidth=1.4, label=f"chance {chance:.3f}")
        axes.axvline(
            overall.estimate, color=style.INK, linewidth=1.2, label=f"all queries {overall.estimate:.3f}, 95 % interval"
        )
        beside = blended_transform_factory(axes.transAxes, axes.transData)
        at, ticks, names = 0.0, [], []
        for title, groups in table.groupby("grouping", sort=False):
            axes.text(-0.02, at, str(title), transform=beside, ha="right", va="center", fontweight="bold", fontsize=9.5)
            for one in groups.to_dict("records"):
                at += 1.0
                ticks.append(at)
                names.append(str(one["group"]))
                if np.isfinite(one["value"]):
                    axes.plot([one["ci_low"], one["ci_high"]], [at, at], color=style.BLUE, linewidth=1.8)
                    axes.plot(one["value"], at, "s", color=style.BLUE, markersize=4.5)
                    axes.text(1.02, at, f"{one['n']:,}", transform=beside, va="center", fontsize=8.5)
                    axes.text(1.14, at, f"{one['n_subjects']:,}", transform=beside, va="center", fontsize=8.5)
                else:
                    axes.text(1.02, at, "withheld", transform=beside, va="center", fontsize=8.5, color=style.GREY)
            at += 1.6
        axes.text(1.02, -1.0, "queries", transform=beside, va="center", fontsize=8.5)
        axes.text(1.14, -1.0, "patients", transform=beside, va="center", fontsize=8.5)
        axes.set_ylim(max(at, 1.6) - 0.6, -0.7)
        axes.set_yticks(ticks, names, fontsize=8.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("recall at 1, 95 % interval by patients")
        axes.set_title(f"Retrieving {report.target} by group of patients", pad=24)
        figure.legend(loc="outside lower center", ncols=2)
