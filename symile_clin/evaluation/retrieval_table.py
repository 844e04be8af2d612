"""What an evaluation found, as retrieval.csv and as one screen of a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from symile_clin import files
from symile_clin.evaluation.ablation import SHUFFLES, contribution_table, contributions
from symile_clin.evaluation.absence import StandIns, absence_lines
from symile_clin.evaluation.demographics import DEMOGRAPHICS, attributes
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.measures import Measure
from symile_clin.evaluation.ranked import PROTOCOLS, ListProtocol, Ranked
from symile_clin.evaluation.seen import seen_words
from symile_clin.evaluation.ways import query_subsets
from symile_clin.modalities.base import Modality
from symile_clin.schema import Split

#: By target and query, in words: what stands for absent modalities, or what the baseline sees.
Methods = Mapping[tuple[str, tuple[str, ...]], str]

#: What the columns of a terminal's block are called.
HEADS: Final[Mapping[ListProtocol, tuple[str, str]]] = {
    "candidates": ("fixed", "lists"),
    "candidates_other_subjects": ("lists, other", "patients only"),
    "matched": ("matched", "lists"),
    "gallery": ("whole", "split"),
    "gallery_other_subjects": ("split, other", "patients only"),
}
#: Of the headline; those that chance alone makes certain are left out.
HEADLINE: Final = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "mean_rank", "median_rank")


def write_retrieval(path: Path, measures: Sequence[Measure], *, methods: Methods) -> None:
    """Write retrieval.csv: a line for every number, way by way, empty where it has no interval or chance.

    Args:
        methods: by `methods`.
    """
    ways = dict.fromkeys((one.target, one.protocol, one.query) for one in measures)
    place = {way: number for number, way in enumerate(ways)}
    lines = [
        {
            "target": one.target,
            "protocol": one.protocol,
            "query": "+".join(one.query),
            "metric": one.metric,
            "value": one.value,
            "ci_low": one.ci.low if one.ci else None,
            "ci_high": one.ci.high if one.ci else None,
            "bca_low": one.bca.low if one.bca else None,
            "bca_high": one.bca.high if one.bca else None,
            "chance": one.chance,
            "n": one.n,
            "n_subjects": one.n_subjects,
            "method": methods.get((one.target, one.query), f"mean of {SHUFFLES} shuffles"),
        }
        for one in sorted(measures, key=lambda one: place[one.target, one.protocol, one.query])
    ]
    with files.atomic(path) as temporary:
        pd.DataFrame(lines).to_csv(temporary, index=False)


def methods(
    ranked: Sequence[Ranked],
    *,
    encoded: Embedded,
    samples: pd.DataFrame,
    modalities: Mapping[str, Modality],
    stand_ins: Mapping[str, StandIns],
) -> Methods:
    """In words, by target and query: what stands for modalities that queries lack, or what the baseline sees.

    Args:
        encoded: the split.
        samples: its samples.
    """
    found: dict[tuple[str, tuple[str, ...]], str] = {}
    for target, query in dict.fromkeys((one.target, one.query) for one in ranked):
        here = encoded.present[target]
        if query == (DEMOGRAPHICS,):
            seen = attributes(samples[here], modalities[target].match_columns)
            found[target, query] = f"sees {', '.join(seen)}" if seen else "sees nothing: the cohort tells none of it"
        else:
            lacking = [
                name
                for name, there in encoded.present.items()
                if name != target and (name not in query or not there[here].all())
            ]
            found[target, query] = stand_ins[target].method(lacking)
    return found


def screen(
    metrics: Mapping[str, float],
    measures: Sequence[Measure],
    *,
    split: Split,
    asked: Mapping[str, Sequence[str]],
    methods: Methods,
    stand_ins: StandIns,
    notes: Sequence[str],
) -> str:
    """An evaluation as lines for a terminal.

    Args:
        metrics: as in metrics.json.
        asked: by target, all other modalities; the cohort's own target first.
        methods: by `methods`.
        stand_ins: for what queries of that target lack.
        notes: what was left out, and why.
    """
    target, query = next(iter(asked.items()))
    found = contributions(metrics, split=split, target=target, query=query)
    others = {name: of for name, of in asked.items() if name != target}
    blocks = [
        [
            *headline(measures, target=target, query=query, split=split),
            *_beside(metrics, prefix=f"{split}/{target}/"),
            *absence_lines(metrics, split=split, target=target, stand_ins=stand_ins),
        ],
        [
            *by_protocol(measures, target=target, queries=query_subsets(list(asked), target)),
            f"  demographics: {methods[target, (DEMOGRAPHICS,)]} of all; the most that these alone can give",
            *([f"  not asked with: {stand_ins.method(query)}"] if len(query) > 1 else []),
        ],
        [contribution_table(found)],
        other_directions(measures, full=others),
        [f"  {note}" for note in notes],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def headline(measures: Sequence[Measure], *, target: str, query: Sequence[str], split: Split) -> list[str]:
    """The metrics of the target from all other modalities over its fixed lists, a line each."""
    own = {one.metric: one for one in measures if _is(one, target, "candidates", query)}
    first = own["recall_at_1"]
    lines = [
        f"{target} retrieved from {' + '.join(query)}, {split} split: {first.n:,} queries "
        f"of {first.n_subjects:,} patients",
        f"  {'':12} {'value':>7}   {'95 % interval':16} {'chance':>7}",
    ]
    for name in HEADLINE:
        one = own[name]
        if one.chance is not None and not (name.startswith("recall") and one.chance >= 1):
            lines.append(f"  {name:12} {one.value:7.3f}   {_interval(one):16} {one.chance:7.3f}")
    if own["n_tied_queries"].value:
        tied = f"{own['n_tied_queries'].value:,.0f} of {first.n:,} queries"
        lines.append(f"  {tied} have candidates level with the truth, which count as in random order")
    return lines


def _beside(metrics: Mapping[str, float], *, prefix: str) -> list[str]:
    """What the accuracy should be read against, where it is known."""
    own = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    lines = []
    if "recall_at_1_ceiling" in own:
        lines.append(
            f"  a perfect model's recall_at_1 on these lists: {own['recall_at_1_ceiling']:.3f}; "
            f"from pairs alone: {own['recall_at_1_ceiling_pairs']:.3f}"
        )
    if "recall_at_1_bootstrap_mean" in own:
        lines.append(
            f"  Monte Carlo error of recall_at_1 the paper's way (queries resampled): mean "
            f"{own['recall_at_1_bootstrap_mean']:.3f}, standard deviation {own['recall_at_1_bootstrap_se']:.3f}"
        )
    seen = seen_words(own)
    return lines if seen is None else [*lines, f"  {seen}"]


def by_protocol(measures: Sequence[Measure], *, target: str, queries: Sequence[Sequence[str]]) -> list[str]:
    """recall_at_1 of one target: a line for each of `queries` and the baseline, a column for each protocol."""
    found = {(one.query, one.protocol): one for one in measures if one.target == target and one.metric == "recall_at_1"}
    protocols = [name for name in PROTOCOLS if any(protocol == name for _, protocol in found)]
    lines = {" + ".join(query): tuple(sorted(query)) for query in [*queries, (DEMOGRAPHICS,)]}
    width = max(12, *map(len, lines))

    def row(label: str, cells: Sequence[str]) -> str:
        return f"  {label:{width}} " + " ".join(f"{cell:>13}" for cell in cells)

    table = ["  recall_at_1 by what it is asked with, and among whom"]
    table += [row("", [HEADS[name][line] for name in protocols]) for line in (0, 1)]
    for label, query in lines.items():
        at = [found.get((query, name)) for name in protocols]
        table.append(row(label, ["left out" if one is None else f"{one.value:.3f}" for one in at]))
    baseline = [found[(DEMOGRAPHICS,), name] for name in protocols]
    table.append(row("chance", [f"{one.chance:.3f}" for one in baseline]))
    counts = [f"{one.n:,}" for one in baseline]
    if len(set(counts)) > 1:
        table.append(row("queries", counts))
    return table


def other_directions(measures: Sequence[Measure], *, full: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each target: recall_at_1 from all other modalities over fixed lists.

    Args:
        full: by target, these modalities.
    """
    lines = []
    labels = {target: f"{target} from {' + '.join(query)}" for target, query in full.items()}
    width = max([12, *map(len, labels.values())])
    for one in measures:
        if one.metric == "recall_at_1" and one.target in full and _is(one, one.target, "candidates", full[one.target]):
            among = f"chance {one.chance:.3f}, {one.n:,} queries"
            lines.append(f"  {labels[one.target]:{width}} {one.value:7.3f}   {_interval(one):16}   {among}")
    return ["  recall_at_1 in the other directions, fixed lists", *lines] if lines else []


def _interval(one: Measure) -> str:
    return f"[{one.ci.low:.3f}, {one.ci.high:.3f}]" if one.ci else ""


def _is(one: Measure, target: str, protocol: ListProtocol, query: Sequence[str]) -> bool:
    return (one.target, one.protocol, one.query) == (target, protocol, tuple(sorted(query)))
