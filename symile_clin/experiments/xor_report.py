"""The XOR experiment's results as a table, as files and as a figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes

from symile_clin.evaluation import style
from symile_clin.experiments.xor import XorResult

_COLORS: Final = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE)
_MARKERS: Final = ("o", "s", "^", "D")


def record(result: XorResult) -> dict[str, Any]:
    """All numbers, plain."""
    return {
        "p": list(result.p),
        "accuracies": [one.record() for one in result.accuracies],
        "reachable": {name: values.tolist() for name, values in vars(result.reachable).items()},
        "information": None
        if result.information is None
        else {"unit": "nats", **{name: values.tolist() for name, values in vars(result.information).items()}},
    }


def csv_text(result: XorResult) -> str:
    """One line for each p and objective: the accuracy, its interval, and what theory says of this p."""
    theory = {"chance": result.reachable.chance, "pairs": result.reachable.pairs, "ceiling": result.reachable.all}
    if result.information is not None:
        theory |= vars(result.information)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["p", "objective", "accuracy", "ci_low", "ci_high", *theory])
    for one in result.accuracies:
        numbers = [one.interval.estimate, one.interval.low, one.interval.high]
        numbers += [float(values[result.p.index(one.p)]) for values in theory.values()]
        writer.writerow([one.p, one.objective, *(f"{number:.6f}" for number in numbers)])
    return text.getvalue()


def table(result: XorResult) -> str:
    """The accuracies for a terminal."""
    names = result.objectives
    lines = ["   p" + "".join(f"  {name:>22}" for name in names) + "   ceiling   chance"]
    for index, p in enumerate(result.p):
        cells = [result.of(name)[index].interval for name in names]
        shown = "".join(f"  {cell.estimate:.3f} [{cell.low:.3f}, {cell.high:.3f}]" for cell in cells)
        lines.append(f"{p:4.2f}{shown}     {result.reachable.all[index]:.3f}    {result.reachable.chance[index]:.3f}")
    return "\n".join(lines)


def draw(path: Path, result: XorResult, *, title: str, target: str) -> None:
    """Accuracy over p with its intervals and, of three variables, the information terms below it, saved as PNG."""
    panels = 1 if result.information is None else 2
    with style.figure(path, width=6.8, height=3.2 + 2.9 * (panels - 1)) as figure:
        axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        _draw_accuracy(axes[0], result, target=target)
        axes[0].set_title(title)
        if result.information is not None:
            _draw_information(axes[1], result)
        axes[-1].set_xlabel("p: how often the last variable is the XOR of the others, and not the first")


def _draw_accuracy(axes: Axes, result: XorResult, *, target: str) -> None:
    axes.plot(result.p, result.reachable.all, color=style.INK, linestyle="--", linewidth=1.2, label="best possible")
    axes.plot(result.p, result.reachable.chance, color=style.GREY, linestyle=":", linewidth=1.6, label="chance")
    for index, name in enumerate(result.objectives):
        found = result.of(name)
        color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
        middle = [one.interval.estimate for one in found]
        below = [one.interval.estimate - one.interval.low for one in found]
        above = [one.interval.high - one.interval.estimate for one in found]
        axes.errorbar(
            result.p, middle, yerr=[below, above], color=color, marker=marker, markersize=5, linewidth=1.8,
            capsize=3, label=name,
        )  # fmt: skip
        for one in found:
            at = [one.p] * len(one.by_seed)
            axes.scatter(at, one.by_seed, color=color, marker="_", s=60, alpha=0.5, linewidths=1.0)
    axes.set_ylabel(f"accuracy of {target}")
    axes.set_ylim(-0.03, 1.05)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_information(axes: Axes, result: XorResult) -> None:
    assert result.information is not None
    found = result.information
    axes.plot(result.p, found.tc, color=style.INK, linewidth=1.8, label="TC(a,b,c)")
    axes.plot(result.p, found.i_a_c, color=style.VERMILION, linewidth=1.8, label="I(a;c)")
    axes.plot(result.p, found.i_b_c, color=style.GREY, linestyle=":", linewidth=1.8, label="I(b;c) = I(a;b) = 0")
    axes.plot(result.p, found.i_a_b_given_c, color=style.BLUE, linewidth=1.8, label="I(a;b|c) = I(c;b|a)")
    axes.set_ylabel("information (nats)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
