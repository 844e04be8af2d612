"""What probes found, as files, as flat metrics, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.measures import interval_report
from symile_clin.probes.judging import GAIN, MACRO, Average, Judged
from symile_clin.probes.policy import Policy, Support, hidden
from symile_clin.probes.zero_shot import TOP, Lift
from symile_clin.schema import Split


@dataclass(frozen=True)
class Results:
    """Everything that was found on one split.

    Attributes:
        target: what the other modalities retrieve.
        min_positives: patients on either side that a probe needs.
        min_group: counts of fewer patients are not shown.
        samples, patients: of the split.
        support: by finding and split.
        lifts: of findings that `target` shows.
    """

    split: Split
    target: str
    policy: Policy
    min_positives: int
    min_group: int
    samples: int
    patients: int
    support: Mapping[str, Mapping[Split, Support]]
    judged: Sequence[Judged]
    averages: Sequence[Average]
    lifts: Sequence[Lift]

    @property
    def left_out(self) -> list[str]:
        """Findings without any probe."""
        found = {one.finding for one in self.judged}
        return [name for name in self.support if name not in found]


def metrics(results: Results) -> dict[str, float]:
    """As in metrics.json: `<split>/probe/<input>/<finding or macro>/<metric>` and
    `<split>/zero_shot/<target>/<finding>/<metric>`, with `_ci_low` and `_ci_high`."""
    found: dict[str, float] = {}
    for average in results.averages:
        prefix = f"{results.split}/probe/{average.input}/{MACRO}/"
        found |= _all(prefix, average.intervals)
        found |= {f"{prefix}findings": float(average.findings), f"{prefix}ece_expected": average.ece_if_calibrated}
    for one in results.judged:
        prefix = f"{results.split}/probe/{one.input}/{one.finding}/"
        found |= _all(prefix, one.intervals)
        found |= {
            f"{prefix}{name}": float(value) for name, value in _counts(one, results.min_group).items() if value != ""
        }
    for lift in results.lifts:
        prefix = f"{results.split}/zero_shot/{results.target}/{lift.finding}/"
        found |= _all(prefix, _lift_intervals(lift))
        found |= {f"{prefix}precision_at_{TOP}_chance": lift.prevalence, f"{prefix}auroc_chance": 0.5}
        if lift.patients >= results.min_group:
            found[f"{prefix}n"] = float(lift.queries)
    return found


#: What MLflow gets of averages; of a finding it gets one number.
_TRACKED: Final = ("auroc", "auroc_ci_low", "auroc_ci_high", "auprc", "brier_skill")


def tracked(found: Mapping[str, float]) -> dict[str, float]:
    """The part of `metrics` that is recorded: averages, the AUROC of each probe, the contrast of each finding."""
    kept = {}
    for name, value in found.items():
        kind, finding, metric = name.split("/")[1], *name.split("/")[-2:]
        of_finding = "auroc" if kind == "probe" else f"precision_at_{TOP}_contrast"
        if metric in (_TRACKED if finding == MACRO else (of_finding,)):
            kept[name] = value
    return kept


def _all(prefix: str, intervals: Mapping[str, Interval]) -> dict[str, float]:
    made: dict[str, float] = {}
    for name, interval in intervals.items():
        made |= interval_report(prefix + name, interval)
    return made


def _lift_intervals(lift: Lift) -> dict[str, Interval]:
    return {
        f"precision_at_{TOP}": lift.precision,
        f"precision_at_{TOP}_without": lift.precision_without,
        f"precision_at_{TOP}_contrast": lift.precision_contrast,
        "lift": lift.lift,
        "auroc": lift.auroc,
        "auroc_without": lift.auroc_without,
        "auroc_contrast": lift.auroc_contrast,
    }


def _counts(one: Judged, min_group: int) -> dict[str, Any]:
    """Counts that may be shown, and what goes with them; "" for those that may not."""
    shown = min(one.patients_positive, one.patients_negative) >= min_group
    return {
        "n": one.samples,
        "n_subjects": one.patients,
        "n_positive": one.positive if shown else "",
        "prevalence": one.prevalence if shown else "",
        "penalty": one.penalty,
        "ece_expected": one.ece_if_calibrated,
        "undefined_resamples": one.undefined,
    }


# --- files ---


def probes_table(results: Results) -> pd.DataFrame:
    """A line for every input and finding, and for the average over findings."""
    lines = [
        {"input": one.input, "finding": MACRO, "findings": one.findings, "ece_expected": one.ece_if_calibrated}
        | _columns(one.intervals)
        for one in results.averages
    ]
    lines += [
        {"input": one.input, "finding": one.finding} | _counts(one, results.min_group) | _columns(one.intervals)
        for one in results.judged
    ]
    return _stated(lines, results.policy)


def calibration_table(results: Results) -> pd.DataFrame:
    """A line for every point of every calibration curve; those of few patients without their share of positives."""
    lines = []
    for one in results.judged:
        for place, point in enumerate(one.curve):
            shown = point.observed is not None
            line: dict[str, Any] = {"input": one.input, "finding": one.finding, "bin": place + 1}
            line["n"] = point.samples if shown else ""
            line["n_subjects"] = point.patients if shown else hidden(results.min_group)
            line["forecast"] = point.forecast
            lines.append(line | (_columns({"observed": point.observed}) if point.observed is not None else {}))
    return _stated(lines, results.policy)


def findings_table(results: Results) -> pd.DataFrame:
    """A line for every finding that queries may retrieve."""
    lines: list[dict[str, Any]] = [
        {
            "target": results.target,
            "finding": one.finding,
            "n": one.queries if one.patients >= results.min_group else "",
            "n_subjects": one.patients if one.patients >= results.min_group else hidden(results.min_group),
            f"precision_at_{TOP}_chance": one.prevalence,
        }
        | _columns(_lift_intervals(one))
        for one in results.lifts
    ]
    return _stated(lines, results.policy)


def labels_table(results: Results) -> pd.DataFrame:
    """A line for every finding and split: samples in each state, patients on each side, and whether it is probed."""
    lines = []
    for finding, by_split in results.support.items():
        for split, own in by_split.items():
            sides = {"patients_with": own.patients_with, "patients_without": own.patients_without}
            shown = {
                name: hidden(results.min_group) if 0 < count < results.min_group else count
                for name, count in sides.items()
            }
            probed = "no" if finding in results.left_out else "yes"
            lines.append(
                {"finding": finding, "split": split, **own.shown(results.min_group), **shown, "probed": probed}
            )
    return _stated(lines, results.policy)


def _columns(intervals: Mapping[str, Interval]) -> dict[str, float]:
    return _all("", intervals)


def _stated(lines: Sequence[Mapping[str, Any]], policy: Policy) -> pd.DataFrame:
    return pd.DataFrame(lines).assign(uncertain_as=policy.uncertain, blank_as=policy.blank)


# --- terminal ---


def text(results: Results) -> str:
    """One screen: averages of every input, AUROC of every finding, what is retrieved, what is left out."""
    inputs = list(dict.fromkeys(one.input for one in results.judged))
    lines = [
        f"Findings from embeddings by linear probes, {results.split} split: {results.samples:,} samples of "
        f"{results.patients:,} patients; {results.policy.words()}",
    ]
    if results.averages:
        lines += _average_lines(results.averages)
    lines += _finding_lines(results, inputs)
    if results.left_out:
        names = ", ".join(name.replace("_", " ") for name in results.left_out)
        lines.append(
            f"  Not probed, for fewer than {results.min_positives} patients with or without it in a split "
            f"(counts in labels.csv): {names}"
        )
    if results.split == "val":
        lines.append("  The val split chose the penalties and the checkpoint: the test split is the honest one.")
    return "\n".join(lines)


def _average_lines(averages: Sequence[Average]) -> list[str]:
    title = f"mean of {averages[0].findings} findings"
    width = max(len(title), *(len(one.input) for one in averages))
    lines = [
        f"  {title:{width}}  {'AUROC':20}  {'less demographics':23}  {'AUPRC':>5}  {'Brier':>5}  {'skill':>6}  "
        "ECE, if calibrated"
    ]
    for one in averages:
        own = one.intervals
        gain = _shown(own[GAIN], sign="+") if GAIN in own else ""
        lines.append(
            f"  {one.input:{width}}  {_shown(own['auroc']):20}  {gain:23}  {own['auprc'].estimate:5.3f}  "
            f"{own['brier'].estimate:5.3f}  {own['brier_skill'].estimate:+6.3f}  {own['ece'].estimate:.3f}, "
            f"{one.ece_if_calibrated:.3f}"
        )
    return lines


def _finding_lines(results: Results, inputs: Sequence[str]) -> list[str]:
    auroc = {(one.input, one.finding): one.intervals["auroc"].estimate for one in results.judged}
    share = {one.finding: _counts(one, results.min_group)["prevalence"] for one in results.judged}
    lift = {one.finding: one for one in results.lifts}
    names = [name for name in results.support if name in share or name in lift]
    width = max([len("AUROC"), *(len(name) for name in names)])
    head = f"  {'AUROC':{width}}  share  " + "  ".join(f"{one:>5}" for one in inputs)
    lines = [head + (f"   first {TOP} {results.target}, asked with / without it" if lift else "")]
    for name in names:
        known = share.get(name, "")
        cells = [f"{auroc[one, name]:.3f}" if (one, name) in auroc else "" for one in inputs]
        line = f"  {name.replace('_', ' '):{width}}  {known if known == '' else f'{known:.2f}':>5}  "
        line += "  ".join(f"{cell:>{max(5, len(one))}}" for cell, one in zip(cells, inputs, strict=True))
        if name in lift:
            own = lift[name]
            line += f"   {own.precision.estimate:.2f} / {own.precision_without.estimate:.2f}: "
            line += _shown(own.precision_contrast, digits=2, sign="+")
        lines.append(line.rstrip())
    if lift:
        lines.append(
            f"  first {TOP} {results.target}: share with the finding, when who asks has it / has not: the difference"
        )
    return lines


def _shown(interval: Interval, *, digits: int = 3, sign: str = "") -> str:
    return f"{interval.estimate:{sign}.{digits}f} [{interval.low:{sign}.{digits}f}, {interval.high:{sign}.{digits}f}]"
