"""Every way of asking as a table, and the figures that an evaluation leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.evaluation.page import Block, Details, Missing, Part, Picture, Section, SideBySide, Table
from symile_clin.schema import RETRIEVAL, SUBGROUPS

PROTOCOLS: Final[Mapping[str, str]] = {
    "candidates": "fixed lists",
    "candidates_other_subjects": "lists, other patients",
    "matched": "matched lists",
    "gallery": "whole split",
    "gallery_other_subjects": "split, other patients",
}
LEGEND: Final = (
    "Fixed lists are the cohort's, drawn at random; other patients: without other samples of the query's own patient; "
    "matched lists hold only negatives of its sex, age band and view; the whole split makes everybody a candidate."
)
#: Metric -> what its column is called; those with an interval show it.
METRICS: Final[Mapping[str, str]] = {
    "recall_at_1": "recall at 1",
    "recall_at_5": "recall at 5",
    "recall_at_10": "recall at 10",
    "mrr": "mean reciprocal rank",
    "mean_rank": "mean rank",
    "median_rank": "median rank",
    "n_tied_queries": "queries with ties",
}
_WITH_INTERVAL: Final = ("recall_at_1", "mrr")
#: Figures of an evaluation: file -> what it shows, and how to read it.
FIGURES: Final[Mapping[str, tuple[str, str]]] = {
    "rank_histogram.png": (
        "Histogram of the rank of the truth.",
        "Where the truth stood: a perfect model has all queries at rank 1, guessing has them spread evenly.",
    ),
    "bootstrap_distribution.png": (
        "Histogram of the accuracy over bootstrap resamples of patients, with its interval and reference levels.",
        "The accuracy over resamples of patients: its width is what the choice of these patients leaves open.",
    ),
    "contributions.png": (
        "Bars: recall at 1 lost without each modality.",
        "Recall at 1 that is lost when a modality is taken away or shuffled: what the model draws from it.",
    ),
}


def retrieval_section(directory: Path, *, target: str) -> Section:
    """The table and figures of eval/<split>/.

    Args:
        target: whose ways of asking are shown open; those of other targets can be opened.
    """
    blocks: list[Block] = [
        "Each line is one way of asking, each column says among which candidates. What matters is the distance to "
        "chance, and to the baseline that sees only sex, age band and view, among the same candidates."
    ]
    path = directory / RETRIEVAL
    if path.is_file():
        found = pd.read_csv(path)
        tables = {str(name): lines for name, lines in found.groupby("target", sort=False)}
        own = tables.pop(target, None)
        blocks += [] if own is None else [*_own(own, target), LEGEND, _all_metrics(own, target)]
        blocks += [Details(f"Retrieving {name} instead", _own(lines, name)) for name, lines in tables.items()]
    else:
        blocks.append(Missing("the table of all ways of asking: the evaluation left none."))
    figures = [
        Picture((directory / name).read_bytes(), alt, caption, width=620)
        for name, (alt, caption) in FIGURES.items()
        if (directory / name).is_file()
    ]
    blocks += [SideBySide(figures)] if figures else [Missing("figures of ranks: the evaluation left none.")]
    return Section("Retrieval", "retrieval", [*blocks, _subgroups(directory)])


def by_protocol(lines: pd.DataFrame) -> pd.DataFrame:
    """recall_at_1 of retrieval.csv's lines of one target as text: a line for each query, a column for each protocol."""
    found = records(lines[(lines["metric"] == "recall_at_1") & ~_shuffled(lines)])
    protocols = [name for name in PROTOCOLS if any(one["protocol"] == name for one in found)]
    rows: dict[str, dict[str, str]] = {}
    for one in found:
        row = rows.setdefault(str(one["query"]), {"asked with": _query(one)})
        row[PROTOCOLS.get(one["protocol"], one["protocol"])] = _number(one, "recall_at_1")
    last = {one["protocol"]: one for one in found}
    for words, key, form in (("chance", "chance", ".3f"), ("queries", "n", ",d")):
        numbers = {PROTOCOLS[name]: f"{last[name][key]:{form}}" for name in protocols}
        rows[f" {words}"] = {"asked with": words, **numbers}
    return pd.DataFrame(list(rows.values())).fillna("left out")


def records(lines: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines as mappings of column to value."""
    return [{str(name): value for name, value in line.items()} for line in lines.to_dict("records")]


def wide(lines: pd.DataFrame) -> pd.DataFrame:
    """retrieval.csv's lines of one target: a line for each query and protocol, a column for each metric, as text."""
    rows = []
    for _, way in lines[~_shuffled(lines)].groupby(["query", "protocol"], sort=False):
        at = {str(one["metric"]): one for one in records(way)}
        first = next(iter(at.values()))
        row = {"asked with": _query(first), "among": PROTOCOLS.get(first["protocol"], first["protocol"])}
        for metric, words in METRICS.items():
            if metric in at:
                certain = metric.startswith("recall") and at[metric]["chance"] >= 1
                row[words] = "certain" if certain else _number(at[metric], metric)
        rows.append({**row, "queries": f"{first['n']:,}", "patients": f"{first['n_subjects']:,}"})
    return pd.DataFrame(rows).fillna("")


def _shuffled(lines: pd.DataFrame) -> pd.Series[bool]:
    """Lines of shuffled modalities: what they contribute is drawn, not retrieved with."""
    return lines["query"].str.contains("_shuffled")


def _query(line: Mapping[str, Any]) -> str:
    return "sex, age band, view" if line["query"] == DEMOGRAPHICS else str(line["query"]).replace("+", " + ")


def _number(line: Mapping[str, Any], metric: str) -> str:
    if metric in ("n_tied_queries", "median_rank"):
        return f"{line['value']:,.0f}" if float(line["value"]).is_integer() else f"{line['value']:,.1f}"
    text = f"{line['value']:,.3f}" if metric != "mean_rank" else f"{line['value']:,.2f}"
    low, high = line.get("ci_low"), line.get("ci_high")
    known = metric in _WITH_INTERVAL and low is not None and high is not None and not pd.isna(low)
    return f"{text} [{low:.3f}, {high:.3f}]" if known else text


def _own(lines: pd.DataFrame, target: str) -> list[Block]:
    frame = by_protocol(lines)
    caption = f"Recall at 1 of {target}, with its 95 % patient-clustered interval in brackets."
    asked = records(lines[~_shuffled(lines)])
    methods = {_query(one): str(one["method"]).replace("_", " ") for one in asked if isinstance(one.get("method"), str)}
    used = dict.fromkeys(f"{query}: {method}" for query, method in methods.items() if method)
    stands = ["What stands for modalities that are not asked with, or what the baseline sees. " + "; ".join(used) + "."]
    return [Table(frame, caption, small=True, numeric=tuple(frame.columns[1:])), *(stands if used else [])]


def _all_metrics(lines: pd.DataFrame, target: str) -> Details:
    frame = wide(lines)
    caption = f"All metrics of {target}. Their intervals, the bias-corrected ones and chance levels are in {RETRIEVAL}."
    table = Table(frame, caption, small=True, numeric=tuple(frame.columns[2:]))
    return Details("All metrics, not only recall at 1", [table])


def _subgroups(directory: Path) -> Part:
    path = directory / SUBGROUPS
    if not path.is_file():
        return Part("By group of patients", [Missing("the evaluation left no table of subgroups.")])
    blocks: list[Block] = [
        "The same metric within groups of patients: an interval that does not hold the overall value is a hint, not a "
        "proof, for many groups are looked at. Groups below the threshold are left out."
    ]
    for picture in sorted(directory.glob("subgroups*.png")):
        alt = "Recall at 1 with its interval in each group of patients; numbers in the table below."
        blocks.append(Picture(picture.read_bytes(), alt, width=900))
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    table.columns = [str(name).replace("_", " ") for name in table.columns]
    blocks.append(Details("The same as a table", [Table(table, "Every group with its numbers.", small=True)]))
    return Part("By group of patients", blocks)
