"""The one number, and all that it must be read against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from symile_clin.data.store import Cohort
from symile_clin.evaluation import style
from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.evaluation.page import Banner, Block, Facts, Headline, Missing, Picture, Section
from symile_clin.evaluation.seen import seen_words
from symile_clin.schema import Split

#: A level to draw: words, accuracy, lower and upper end of its interval (itself where it has none).
Level = tuple[str, float, float, float]


def banner(*, synthetic: bool) -> Banner:
    """Whose pictures these are, and what may be done with them."""
    if synthetic:
        return Banner(
            "SYNTHETIC PATIENTS. Nobody on this page exists; no number of it says anything about medicine. It may be "
            "shown to anyone."
        )
    return Banner(
        "REAL PATIENTS. This page shows pictures and values of single patients: keep it in the run's folder, readable "
        "by you alone. The data use agreement forbids handing it to others, online services included; numbers and "
        "figures that show no single patient are files of their own beside it.",
        "warning",
    )


def headline_section(
    metrics: Mapping[str, float],
    *,
    run: str,
    objective: str,
    cohort: Cohort,
    modalities: Sequence[str],
    split: Split,
    target: str,
    method: str,
) -> Section:
    """The accuracy of the default way of asking.

    Args:
        metrics: as in metrics.json.
        method: in words, what stands for absent modalities; empty where nothing was absent.
    """
    own = {name.removeprefix(f"{split}/{target}/"): value for name, value in metrics.items()}
    query = " + ".join(name for name in modalities if name != target)
    facts = {
        "Run": run,
        "Objective": objective,
        "Cohort": f"{cohort.name} ({'synthetic' if cohort.synthetic else 'real'} patients)",
        "Split": split,
        "Retrieved": f"{target} from {query}",
        **({"In place of absent modalities": method} if method else {}),
    }
    if "recall_at_1" not in own:
        return Section("Headline", "headline", [Missing("this split was not evaluated."), Facts(facts)])
    found = levels(own)
    n, patients = own["recall_at_1_n"], own["recall_at_1_n_subjects"]
    among = 1 / own["recall_at_1_chance"]
    lists = f"{among:.0f} candidates" if abs(among - round(among)) < 1e-6 else "the candidates of its list"
    interval = ""
    if "recall_at_1_ci_low" in own:
        interval = f" 95 % interval [{own['recall_at_1_ci_low']:.3f}, {own['recall_at_1_ci_high']:.3f}]."
    words = (
        f"recall at 1: the share of {n:,.0f} queries of {patients:,.0f} patients where the model puts the patient's "
        f"own {target} first of {lists}.{interval} Chance is {own['recall_at_1_chance']:.3f}."
    )
    blocks: list[Block] = [
        "How often the model picks the right sample; the bars say what that is to be read against.",
        Headline(f"{own['recall_at_1']:.3f}", words),
        Picture(
            draw_levels(found),
            "Bars: " + "; ".join(f"{name} {value:.3f}" for name, value, *_ in found) + ".",
            width=800,
        ),
    ]
    seen = seen_words(own)
    if seen is not None:
        blocks.append(f"{seen}.")
    blocks.append(_against_baseline(own, [name for name in modalities if name != target]))
    return Section("Headline", "headline", [*blocks, Facts(facts)])


def _against_baseline(own: Mapping[str, float], query: Sequence[str]) -> Block:
    """In words, how much of the accuracy sex, age and view could explain, and what is left where they cannot."""
    baseline = own.get(f"candidates/{DEMOGRAPHICS}/recall_at_1")
    if baseline is None:
        return Missing("the baseline of sex, age and view: it is not among the evaluation's metrics.")
    text = (
        f"One who sees nothing but sex, age band and view picks the right one in {baseline:.3f} of these queries, for "
        "negatives drawn at random often differ in them."
    )
    matched = f"matched/{'+'.join(sorted(query))}/recall_at_1"
    if matched not in own:
        return f"{text} Lists of negatives that are alike in them were not scored."
    interval = ""
    if f"{matched}_ci_low" in own:
        interval = f" [{own[f'{matched}_ci_low']:.3f}, {own[f'{matched}_ci_high']:.3f}]"
    return (
        f"{text} Among negatives that are alike in them, where they tell nothing, the model reaches "
        f"{own[matched]:.3f}{interval}, chance {own[f'{matched}_chance']:.3f}, {own[f'{matched}_n']:,.0f} queries: "
        "what it knows beyond them."
    )


def levels(own: Mapping[str, float]) -> list[Level]:
    """The model, chance, the baseline and what is reachable, as far as they are known."""
    names = {
        "recall_at_1_chance": "chance",
        f"candidates/{DEMOGRAPHICS}/recall_at_1": "sex, age and view alone",
        "recall_at_1": "this model",
        "recall_at_1_ceiling_pairs": "a perfect model of pairs",
        "recall_at_1_ceiling": "a perfect model of all together",
    }
    return [
        (words, own[name], own.get(f"{name}_ci_low", own[name]), own.get(f"{name}_ci_high", own[name]))
        for name, words in names.items()
        if name in own
    ]


def draw_levels(found: Sequence[Level]) -> bytes:
    """Levels as bars with their intervals and values. SVG."""
    written = BytesIO()
    with style.figure(written, width=8, height=0.7 + 0.36 * len(found), form="svg") as figure:
        axes = figure.add_subplot()
        for place, (words, value, low, high) in enumerate(found):
            own = words == "this model"
            axes.barh(place, value, height=0.66, color=style.BLUE if own else style.LIGHT_BLUE)
            if high > low:
                axes.plot([low, high], [place, place], color=style.INK, linewidth=1.6, marker="|", markersize=7)
            weight = "bold" if own else "normal"
            axes.text(max(value, high), place, f"  {value:.3f}", va="center", fontsize=9.5, fontweight=weight)
        axes.set_yticks(range(len(found)), [words for words, *_ in found])
        axes.set_xlim(0, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("recall at 1, 95 % interval where there is one")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.invert_yaxis()
    return written.getvalue()
