"""A comparison as a page that is complete in itself: what was found, how to read it, and what else differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from symile_clin.evaluation.comparison import Comparison, Difference
from symile_clin.evaluation.comparison_tables import (
    LOWER_IS_BETTER,
    asked,
    bracket,
    differences_table,
    letter,
    mcnemar_table,
    on_what,
    p_text,
    pair,
    plain,
    signed,
    values_table,
)
from symile_clin.evaluation.page import (
    Banner,
    Block,
    Facts,
    Headline,
    Missing,
    Part,
    Picture,
    Section,
    Table,
    render_page,
)

_OTHER_PATIENTS: Final = (
    "Intervals and p-values say what other patients like these would change, for the models as they are. Whole "
    "patients are resampled with all their queries, and both sides of a difference are taken from the same "
    "resamples: what makes a query hard is common to both and cancels. Percentile and BCa intervals should agree; "
    "where they do not, the resampled differences are skewed, which BCa corrects for."
)
_OTHER_SEEDS: Final = (
    "The same config trained with another seed gives another model. Where several runs of a config were compared, "
    "the value is their mean, query by query, and the standard deviation (SD) and range of their own values stand "
    "under “between seeds”. “SE of seeds” is how uncertain this spread makes the difference: the root of the sum of "
    "each side's squared SD over its number of seeds. With one run it is not known: the interval then speaks of "
    "this one trained model, not of its config. The whole uncertainty of a claim about configs holds both."
)
_SEVERAL: Final = (
    "There {made} here. p (Holm) is adjusted so that the chance of any false finding among all of them stays at the "
    "level that it is held against."
)
_NOT_COVERED: Final = (
    "Not covered: another draw of the candidate lists, other hospitals, and, with few patients, the error of the "
    "bootstrap itself."
)
_MCNEMAR: Final = (
    "McNemar's exact test looks at recall at 1 only, at queries that one run has right and the other wrong. Queries "
    "where a run has the truth level with others at the top are dropped and counted. The test takes queries for "
    "independent, although those of one patient are not: where patients have several, go by the p-values above."
)
_NO_SINGLE_OUTCOME: Final = (
    "the test of configs with several runs, for averaged over seeds a query is no longer right or wrong. Compare "
    "single runs for it."
)


def comparison_page(
    comparison: Comparison,
    *,
    name: str,
    picture: bytes,
    doubts: Sequence[str],
    methods: Mapping[str, str],
    synthetic: bool,
) -> str:
    """The page; it shows no single patient.

    Args:
        picture: the figure as PNG.
        doubts: what a reader must know, as sentences.
        methods: run -> what stands for modalities that a query lacks, in words.
        synthetic: whether the patients are.
    """
    labels = [value.group.label for value in comparison.values]
    single = all(len(value.by_run) == 1 for value in comparison.values)
    several = f"{len(labels)} {'runs' if single else 'configs'} compared"
    title = f"{labels[0]} and {labels[1]}" if len(labels) == 2 else several
    banner = None
    if synthetic:
        banner = Banner("Synthetic patients: these numbers say nothing about medicine.")
    sections = [
        _found(comparison, picture, doubts),
        _how_to_read(comparison),
        _tests(comparison),
        _what_differs(comparison),
        _runs(comparison, methods),
    ]
    return render_page(title, sections, subtitle=f"Comparison {name}: {on_what(comparison)}", banner=banner)


def _found(comparison: Comparison, picture: bytes, doubts: Sequence[str]) -> Section:
    metric = comparison.metric.replace("_", " ")
    ranked = comparison.values[0].group.runs[0].ranked
    better = " Lower is better." if comparison.metric in LOWER_IS_BETTER else ""
    against_one = len(comparison.values) > 2 and all(one.second == 0 for one in comparison.differences)
    reference = f" All are held against A, {comparison.values[0].group.label}." if against_one else ""
    blocks: list[Block] = [
        f"Each run retrieved {asked(ranked)}: the same queries and the same lists, so that every query is its own "
        f"control. The metric is {metric}.{better}{reference}"
    ]
    if len(comparison.differences) == 1:
        one = comparison.differences[0]
        first, second = (comparison.values[place].group.label for place in (one.first, one.second))
        of_seeds = (
            "what other seeds would change is not known from one run"
            if one.seed_se is None
            else f"the choice of seeds adds a standard error of {one.seed_se:.3f}"
        )
        words = (
            f"{metric}, {first} minus {second}: 95 % interval {bracket(one.percentile, sign=True)}, p {p_text(one.p)}; "
            f"{of_seeds}"
        )
        blocks.append(Headline(signed(one.percentile.estimate), words))
    blocks += [f"Note: {doubt}" for doubt in doubts]
    blocks += [
        Picture(
            picture,
            alt="Above, each run's or config's value with its interval, and its seeds as dots; below, the differences "
            "with percentile and BCa intervals. The tables below hold the same numbers.",
            width=980,
        ),
        Table(pd.DataFrame(values_table(comparison)), "Values, with 95 % percentile intervals over patients."),
        Table(
            pd.DataFrame(differences_table(comparison)),
            f"Paired differences, over {comparison.resamples:,} resamples of patients.",
        ),
    ]
    return Section("What was found", "found", blocks)


def _how_to_read(comparison: Comparison) -> Section:
    made = len(comparison.differences)
    return Section(
        "How to read it",
        "reading",
        [
            "Two things could have come out otherwise, and they are kept apart.",
            Part("Other patients: sampling error", [_OTHER_PATIENTS]),
            Part("Other seeds: spread between runs of one config", [_OTHER_SEEDS]),
            Part("Several comparisons", [_SEVERAL.format(made="is one" if made == 1 else f"are {made}")]),
            _NOT_COVERED,
        ],
    )


def _tests(comparison: Comparison) -> Section:
    rows = mcnemar_table(comparison)
    blocks: list[Block] = [_MCNEMAR]
    if rows:
        blocks.append(
            Table(pd.DataFrame(rows), "Queries by which run puts the truth first alone, and the exact p-value.")
        )
    if len(rows) < len(comparison.differences):
        blocks.append(Missing(_NO_SINGLE_OUTCOME))
    return Section("Right or wrong, query by query", "mcnemar", blocks)


def _what_differs(comparison: Comparison) -> Section:
    blocks: list[Block] = ["A difference is of everything that differs, not of the part that one has in mind."]
    for one in comparison.differences:
        blocks.append(_settings(comparison, one))
    return Section("What differs between the configs", "settings", blocks)


def _settings(comparison: Comparison, one: Difference) -> Block:
    first, second = (f"{letter(place)}: {comparison.values[place].group.label}" for place in (one.first, one.second))
    if not one.settings:
        return f"{pair(one)}: the settings are the same but for the seed."
    frame = pd.DataFrame([{"setting": key, first: plain(a), second: plain(b)} for key, (a, b) in one.settings.items()])
    return Table(frame, f"{pair(one)}: settings that differ; “-” where an objective has no such option.")


def _runs(comparison: Comparison, methods: Mapping[str, str]) -> Section:
    rows = [
        {
            "run": run.run,
            "of": letter(place),
            "seed": plain(run.config.get("seed")),
            comparison.metric: value.by_run[run.run],
            "trained on cohort": run.trained_on[0],
            "a modality that a query lacks": methods.get(run.run, ""),
        }
        for place, value in enumerate(comparison.values)
        for run in value.group.runs
    ]
    run = comparison.values[0].group.runs[0]
    return Section(
        "Runs",
        "runs",
        [
            "All were scored on the same queries, which was checked: cohort, split, target, query rows, list lengths.",
            Facts({"cohort": run.cohort[0], "its hash": run.cohort[1][:16], "split": run.split}),
            Table(pd.DataFrame(rows), "Every run with its own value."),
        ],
    )
