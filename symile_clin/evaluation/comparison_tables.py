"""A comparison as lines for a terminal, as a table of differences, as JSON and as metrics of a tracked run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

import pandas as pd

from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.comparison import Comparison, Difference, GroupValue
from symile_clin.evaluation.ranked import ListProtocol, Ranked

LOWER_IS_BETTER: Final = ("mean_rank",)
MINUS: Final = "−"
UNKNOWN: Final = "not known from one run"

_LISTS: Final[Mapping[ListProtocol, str]] = {
    "candidates": "in a list of {n} candidates",
    "candidates_other_subjects": "in a list of {n} candidates of other patients",
    "matched": "in a list of {n} matched candidates",
    "gallery": "in the whole split ({n} candidates)",
    "gallery_other_subjects": "in the whole split without the patient's own other samples ({n} candidates)",
}
#: Settings that a terminal shows of two groups; the files have all.
_SETTINGS_SHOWN: Final = 6


def letter(place: int) -> str:
    """A short name of the group at a place: A ... Z, then R27, R28, ..."""
    return chr(ord("A") + place) if place < 26 else f"R{place + 1}"


def pair(difference: Difference) -> str:
    """A difference's short name, such as B − A."""
    return f"{letter(difference.first)} {MINUS} {letter(difference.second)}"


def asked(ranked: Ranked) -> str:
    """What was asked, in words: the target, from what, among which candidates."""
    shortest, longest = int(ranked.n_candidates.min()), int(ranked.n_candidates.max())
    n = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    return f"{ranked.target} from {' + '.join(ranked.query)} {_LISTS[ranked.protocol].format(n=n)}"


def on_what(comparison: Comparison) -> str:
    """Split, cohort and how many queries, in words."""
    run = comparison.values[0].group.runs[0]
    return (
        f"{run.split} split of cohort {run.cohort[0]}, {comparison.queries:,} queries of "
        f"{comparison.patients:,} patients"
    )


def values_table(comparison: Comparison) -> list[dict[str, str]]:
    """Each group with its value, as words."""
    rows = [
        {
            "": letter(place),
            "run": value.group.label,
            comparison.metric: f"{value.percentile.estimate:.3f}",
            "95 % interval": bracket(value.percentile),
            "seeds": f"{len(value.by_run)}",
            "between seeds": seeds(value),
        }
        for place, value in enumerate(comparison.values)
    ]
    nothing = {"95 % interval": "", "seeds": "", "between seeds": ""}
    return [*rows, {"": "", "run": "chance", comparison.metric: f"{comparison.chance:.3f}", **nothing}]


def differences_table(comparison: Comparison) -> list[dict[str, str]]:
    """Each difference with its intervals and p-values, as words."""
    return [
        {
            "": pair(one),
            "difference": signed(one.percentile.estimate),
            "95 % percentile": bracket(one.percentile, sign=True),
            "95 % BCa": bracket(one.bca, sign=True),
            "p": p_text(one.p),
            "p (Holm)": p_text(one.p_holm),
            "SE of seeds": "not known" if one.seed_se is None else f"{one.seed_se:.3f}",
        }
        for one in comparison.differences
    ]


def mcnemar_table(comparison: Comparison) -> list[dict[str, str]]:
    """McNemar's tests that could be made, as words."""
    return [
        {
            "": pair(one),
            "only the first right": f"{one.mcnemar.only_first:,}",
            "only the second": f"{one.mcnemar.only_second:,}",
            "both": f"{one.mcnemar.both:,}",
            "neither": f"{one.mcnemar.neither:,}",
            "dropped": f"{one.mcnemar.dropped:,}",
            "p": p_text(one.mcnemar.p),
            "p (Holm)": p_text(one.mcnemar_holm),
        }
        for one in comparison.differences
        if one.mcnemar is not None and one.mcnemar_holm is not None
    ]


def text(comparison: Comparison, doubts: Sequence[str]) -> str:
    """The comparison for a terminal, on one screen where runs are few."""
    better = "; lower is better" if comparison.metric in LOWER_IS_BETTER else ""
    ranked = comparison.values[0].group.runs[0].ranked
    lines = [
        f"{comparison.metric} of {asked(ranked)}{better}",
        on_what(comparison),
        "",
        *_aligned(values_table(comparison)),
        "",
        *_aligned(differences_table(comparison)),
    ]
    tests = mcnemar_table(comparison)
    if tests:
        lines += ["", "  McNemar's exact test of recall_at_1; queries with a tie for the first place are dropped"]
        lines += _aligned(tests)
    elif any(len(value.by_run) > 1 for value in comparison.values):
        lines += ["", "  McNemar's test is of single runs: averaged over seeds a query is no longer right or wrong."]
    lines.append("")
    for one in comparison.differences:
        lines += wrap(_settings_line(one), 106, initial_indent="  ", subsequent_indent="    ")
    lines.append("  Intervals and p are of other patients for these models; what other seeds change comes on top.")
    for doubt in doubts:
        lines += wrap(f"Note: {doubt}", 106, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def markdown(comparison: Comparison) -> str:
    """Differences first, then values, for the description of a tracked run."""
    labels = [value.group.label for value in comparison.values]
    differences = [
        f"- {labels[one.first]} minus {labels[one.second]}: **{signed(one.percentile.estimate)}** "
        f"{bracket(one.percentile, sign=True)}, p (Holm) {p_text(one.p_holm)}"
        for one in comparison.differences
    ]
    values = [
        f"- {value.group.label}: {value.percentile.estimate:.3f} {bracket(value.percentile)}; "
        f"between seeds: {seeds(value)}"
        for value in comparison.values
    ]
    what = f"{comparison.metric} of {asked(comparison.values[0].group.runs[0].ranked)}, {on_what(comparison)}"
    return "\n".join([*differences, "", what, "", *values])


def differences_frame(comparison: Comparison) -> pd.DataFrame:
    """compare.csv: a line for each difference, with both sides' values."""
    return pd.DataFrame(
        [
            {
                "metric": comparison.metric,
                **_side("", comparison.values[one.first]),
                **_side("minus_", comparison.values[one.second]),
                **_numbers(one),
                "queries": comparison.queries,
                "patients": comparison.patients,
            }
            for one in comparison.differences
        ]
    )


def record(comparison: Comparison, doubts: Sequence[str]) -> dict[str, Any]:
    """compare.json: all numbers, with the settings that differ."""
    run = comparison.values[0].group.runs[0]
    labels = [value.group.label for value in comparison.values]
    return {
        "metric": comparison.metric,
        "lower_is_better": comparison.metric in LOWER_IS_BETTER,
        "target": run.ranked.target,
        "protocol": run.ranked.protocol,
        "query": list(run.ranked.query),
        "split": run.split,
        "cohort": {"name": run.cohort[0], "hash": run.cohort[1]},
        "queries": comparison.queries,
        "patients": comparison.patients,
        "chance": comparison.chance,
        "resamples": comparison.resamples,
        "groups": [
            {
                "name": value.group.label,
                "runs": [
                    {"run": one.run, "seed": one.config.get("seed"), "value": value.by_run[one.run]}
                    for one in value.group.runs
                ],
                "value": value.percentile.estimate,
                **_bounds(value.percentile, value.bca),
                **_spread(value),
            }
            for value in comparison.values
        ],
        "differences": [
            {
                "run": labels[one.first],
                "minus": labels[one.second],
                **_numbers(one),
                "settings": {key: list(values) for key, values in one.settings.items()},
            }
            for one in comparison.differences
        ],
        "doubts": list(doubts),
    }


def difference_metrics(one: Difference) -> dict[str, float]:
    """Numbers of a difference that a tracked run takes: suffix of the metric's name -> value."""
    return {
        name if name == "difference" else f"difference_{name}": float(value)
        for name, value in _numbers(one).items()
        if value is not None
    }


def bracket(interval: Interval, *, sign: bool = False) -> str:
    """[low, high]."""
    low, high = (signed(end) if sign else f"{end:.3f}" for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def signed(value: float) -> str:
    """A difference with its sign; one that rounds to 0 has none."""
    shown = f"{value:+.3f}"
    return "0.000" if float(shown) == 0 else shown.replace("-", MINUS)


def p_text(p: float | None) -> str:
    """Four decimals, or that it is below them."""
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def seeds(value: GroupValue) -> str:
    """The spread between a group's runs, in words."""
    if value.seed_sd is None:
        return UNKNOWN
    return f"SD {value.seed_sd:.3f}, {min(value.by_run.values()):.3f} to {max(value.by_run.values()):.3f}"


def plain(value: object) -> str:
    """A setting as configs write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain, value))}]"
    return "null" if value is None else str(value)


def _settings_line(one: Difference) -> str:
    first, second = letter(one.first), letter(one.second)
    if not one.settings:
        return f"{first} and {second} have the same settings but for the seed."
    common = {key: values for key, values in one.settings.items() if "-" not in values}
    shown = [f"{key} {plain(a)} | {plain(b)}" for key, (a, b) in list(common.items())[:_SETTINGS_SHOWN]]
    more = [f"{len(common) - len(shown)} more"] if len(common) > len(shown) else []
    own = len(one.settings) - len(common)
    more += [f"{own} options that one objective alone has"] if own > 1 else ["an option of one objective"] * own
    return f"Settings, {first} | {second}: {'; '.join(shown + more)}"


def _side(prefix: str, value: GroupValue) -> dict[str, Any]:
    return {
        f"{prefix}run": value.group.label,
        f"{prefix}value": value.percentile.estimate,
        f"{prefix}value_ci_low": value.percentile.low,
        f"{prefix}value_ci_high": value.percentile.high,
        **{f"{prefix}{name}": number for name, number in _spread(value).items()},
    }


def _spread(value: GroupValue) -> dict[str, Any]:
    return {
        "seeds": len(value.by_run),
        "seed_sd": value.seed_sd,
        "seed_low": min(value.by_run.values()),
        "seed_high": max(value.by_run.values()),
    }


def _bounds(percentile: Interval, bca: Interval) -> dict[str, float]:
    return {"ci_low": percentile.low, "ci_high": percentile.high, "bca_low": bca.low, "bca_high": bca.high}


def _numbers(one: Difference) -> dict[str, Any]:
    test = one.mcnemar
    return {
        "difference": one.percentile.estimate,
        **_bounds(one.percentile, one.bca),
        "p": one.p,
        "p_holm": one.p_holm,
        "seed_se": one.seed_se,
        "mcnemar_only_run": None if test is None else test.only_first,
        "mcnemar_only_minus": None if test is None else test.only_second,
        "mcnemar_both": None if test is None else test.both,
        "mcnemar_neither": None if test is None else test.neither,
        "mcnemar_dropped": None if test is None else test.dropped,
        "mcnemar_p": None if test is None else test.p,
        "mcnemar_p_holm": one.mcnemar_holm,
    }


def _aligned(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows under their heads: the first two columns of words to the left, the others to the right."""
    heads = list(rows[0])
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.ljust(width) if head in ("", "run", "between seeds") else cell.rjust(width)
            for head, cell, width in zip(heads, cells, widths, strict=True)
        )
        return f"  {'  '.join(placed)}".rstrip()

    return [line(heads), *(line([row[head] for head in heads]) for row in rows)]
