"""Who a model fails for: the metrics of retrieval by group of patients, and how far groups are apart.

Small groups are withheld, and no number lets a reader work them out. Groups are apart by chance, too: beside each gap
stands the one that the same groups show when patients are put into them at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import Interval, PatientResamples
from symile_clin.evaluation.groupings import Grouping, groupings
from symile_clin.evaluation.measures import MEANS, patient_stream
from symile_clin.evaluation.ranked import Ranked
from symile_clin.evaluation.retrieval import chance
from symile_clin.modalities.base import Modality
from symile_clin.rng import stream
from symile_clin.schema import Split

Values = NDArray[np.float64]
Members = NDArray[np.bool_]

#: Patients that a group must have to be shown, unless the user says otherwise.
MIN_GROUP: Final = 10
#: Metrics by group, of those in MEANS; the first one is that of the gaps.
SHOWN: Final = ("recall_at_1", "recall_at_5", "mrr", "mean_rank")
#: Times that patients are put into groups at random.
SHUFFLES: Final = 2_000
_SHUFFLES_AT_ONCE = 100


@dataclass(frozen=True)
class Gap:
    """How far apart the groups of one grouping are in recall_at_1.

    Attributes:
        key: the grouping's name in metrics.
        interval: the largest minus the smallest value among the groups shown, with a simultaneous 95 % interval.
        null: what this is on average if patients are put into the same groups at random.
        p: share of such shufflings that give at least this gap, itself counted among them.
    """

    key: str
    title: str
    lowest: str
    highest: str
    interval: Interval
    null: float
    p: float


@dataclass(frozen=True)
class SubgroupReport:
    """Metrics by group.

    Attributes:
        table: a line for each metric of each group, with columns grouping, group, metric, n, n_subjects, value, ci_low,
            ci_high, chance; of a withheld group only the names.
        gaps: of groupings of which at least two groups are shown.
        metrics: the gaps under the names of metrics.json.
        left_out: titles of the groupings that the cohort does not tell.
        target: modality that is retrieved.
        overall: recall_at_1 of all queries.
        chance: recall_at_1 of who knows nothing.
        min_group: patients that a group must have to be shown.
    """

    table: pd.DataFrame
    gaps: Sequence[Gap]
    metrics: Mapping[str, float]
    left_out: Sequence[str]
    target: str
    overall: Interval
    chance: float
    min_group: int


def subgroup_report(
    ranked: Ranked,
    *,
    samples: pd.DataFrame,
    modalities: Mapping[str, Modality],
    split: Split,
    seed: int,
    min_group: int = MIN_GROUP,
) -> SubgroupReport:
    """Metrics by sex, age band, race, admission, years of care, and what the modalities tell.

    Args:
        ranked: one way of asking, of queries of at least two patients.
        samples: (q rows) of the queries, in their order.
        seed: of the draws of patients, which are those of all metrics of the evaluation, and of the shuffling.
        min_group: patients that a group must have to be shown.
    """
    told, left_out = groupings(samples, modalities)
    values = np.stack([MEANS[name](ranked.ranks) for name in SHOWN], axis=1)
    levels = np.stack([MEANS[name](chance(ranked.n_candidates)) for name in SHOWN], axis=1)
    resamples = PatientResamples(ranked.patient, rng=patient_stream(seed))
    lines: list[dict[str, Any]] = []
    gaps: list[Gap] = []
    for grouping in told:
        members = grouping.members.to_numpy(dtype=np.bool_)
        shown = is_shown(members, ranked.patient, min_group=min_group, partition=grouping.partition)
        drawn = _drawn_means(resamples, values, members)
        for place, group in enumerate(grouping.members):
            here = members[:, place]
            for column, metric in enumerate(SHOWN):
                line: dict[str, Any] = {"grouping": grouping.title, "group": group, "metric": metric}
                if shown[place]:
                    low, high = _percentiles(drawn[:, place, column])
                    line |= {"n": int(here.sum()), "n_subjects": len(np.unique(ranked.patient[here]))}
                    line |= {"value": float(values[here, column].mean()), "ci_low": low, "ci_high": high}
                    line["chance"] = float(levels[here, column].mean())
                lines.append(line)
        if shown.sum() > 1:
            shuffled = shuffled_gaps(values[:, 0], members[:, shown], ranked.patient, rng=_shuffling(seed))
            gaps.append(_gap(grouping, values[:, 0], members, shown, drawn[:, :, 0], shuffled))
    columns = ["grouping", "group", "metric", "n", "n_subjects", "value", "ci_low", "ci_high", "chance"]
    table = pd.DataFrame(lines, columns=columns).astype({"n": "Int64", "n_subjects": "Int64"})
    return SubgroupReport(
        table=table,
        gaps=gaps,
        metrics=_named(gaps, split=split, target=ranked.target),
        left_out=left_out,
        target=ranked.target,
        overall=resamples.interval(values[:, 0]),
        chance=float(levels[:, 0].mean()),
        min_group=min_group,
    )


def is_shown(members: Members, patient: NDArray[Any], *, min_group: int, partition: bool) -> Members:
    """(groups,) which groups are shown: those of at least `min_group` patients.

    What all groups shown of a partition lack follows from the total: those left out and the queries in no group,
    taken together. Where these are of fewer than `min_group` patients, the next smallest group (the first of equal
    ones) is left out, too.
    """
    sizes = np.array([len(np.unique(patient[here])) for here in members.T], dtype=np.int64)
    shown: Members = sizes >= min_group
    while partition and shown.any() and 0 < len(np.unique(patient[~members[:, shown].any(axis=1)])) < min_group:
        shown[np.argmin(np.where(shown, sizes, sizes.max() + 1))] = False
    return shown


def shuffled_gaps(
    values: Values, members: Members, patient: NDArray[Any], *, shuffles: int = SHUFFLES, rng: np.random.Generator
) -> Values:
    """(shuffles,) gaps if patients were in groups at random: what groups of these sizes show where there is nothing.

    Patients with the same number of queries exchange the values of all their queries, so that every group keeps its
    queries and a patient's queries stay together. A patient whose number of queries nobody shares stays.
    """
    order = np.argsort(patient, kind="stable")
    _, first, sizes = np.unique(patient[order], return_index=True, return_counts=True)
    alike = [order[first[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]
    n = members.sum(axis=0)
    found = []
    for start in range(0, shuffles, _SHUFFLES_AT_ONCE):
        count = min(_SHUFFLES_AT_ONCE, shuffles - start)
        taken = np.empty((count, len(values)))
        for queries in alike:  # (patients, size): the queries of all patients who have so many
            who = rng.permuted(np.tile(np.arange(len(queries)), (count, 1)), axis=1)
            taken[:, queries] = values[queries][who]
        means = taken @ members.astype(np.float64) / n
        found.append(means.max(axis=1) - means.min(axis=1))
    return np.concatenate(found)


def _drawn_means(resamples: PatientResamples, values: Values, members: Members) -> Values:
    """(B, groups, metrics) means of each group in each resample; NaN where a resample has none of a group."""
    weights = members.astype(np.float64)
    products = (weights[:, :, None] * values[:, None, :]).reshape(len(values), -1)
    totals = resamples.totals(products).reshape(-1, weights.shape[1], values.shape[1])
    n = resamples.totals(weights)[:, :, None]
    means: Values = np.full_like(totals, np.nan)
    return np.divide(totals, n, out=means, where=n > 0)


def _percentiles(drawn: Values) -> tuple[float, float]:
    low, high = np.quantile(drawn[np.isfinite(drawn)], (0.025, 0.975))
    return float(low), float(high)


def gap_interval(means: Values, drawn: Values) -> Interval:
    """The largest minus the smallest of several means, with a simultaneous 95 % interval.

    In 95 % of the resamples no difference of two groups is farther than `reach` from what it is in the data. So, at
    this confidence, no true one is, and the true gap is within gap ± reach. Percentiles of resampled gaps would not do:
    resampling adds noise to what is a maximum over noise already, and they can lie wholly above the gap.

    Args:
        means: (groups,) in the data.
        drawn: (B, groups) in resamples; NaN where a resample has none of a group.

    Source:
        Tukey's simultaneous intervals for all pairs, with a bootstrapped range: Beran (1988), Balanced simultaneous
        confidence sets, JASA 83(403).
    """
    off = drawn - means
    there = np.isfinite(off)
    spread = np.where(there, off, -np.inf).max(axis=1) - np.where(there, off, np.inf).min(axis=1)
    reach = float(np.quantile(spread[there.any(axis=1)], 0.95))
    gap = float(means.max() - means.min())
    return Interval(gap, max(0.0, gap - reach), gap + reach)


def _gap(grouping: Grouping, values: Values, members: Members, shown: Members, drawn: Values, shuffled: Values) -> Gap:
    names = [str(name) for name in grouping.members.columns[shown]]
    means = np.array([values[here].mean() for here in members[:, shown].T])
    interval = gap_interval(means, drawn[:, shown])
    reached = np.count_nonzero(shuffled >= interval.estimate - 1e-12)  # equal but for rounding is equal
    return Gap(
        key=grouping.key,
        title=grouping.title,
        lowest=names[int(means.argmin())],
        highest=names[int(means.argmax())],
        interval=interval,
        null=float(shuffled.mean()),
        p=(1 + reached) / (1 + len(shuffled)),
    )


def _named(gaps: Sequence[Gap], *, split: Split, target: str) -> dict[str, float]:
    """`<split>/<target>/gap/<grouping>/recall_at_1` with `_ci_low`, `_ci_high`, `_null` and `_p`."""
    metrics: dict[str, float] = {}
    for gap in gaps:
        name = f"{split}/{target}/gap/{gap.key}/{SHOWN[0]}"
        metrics |= {name: gap.interval.estimate, f"{name}_ci_low": gap.interval.low}
        metrics |= {f"{name}_ci_high": gap.interval.high, f"{name}_null": gap.null, f"{name}_p": gap.p}
    return metrics


def subgroup_lines(report: SubgroupReport) -> list[str]:
    """The gaps for a terminal, a line each."""
    lines = ["Who it fails for: recall_at_1, the best group minus the worst"]
    if report.gaps:
        wide = max(len(gap.title) for gap in report.gaps)
        lines.append(f"  {'':{wide}} {'gap':>7}   {'95 % interval':16} {'at random':>9} {'p':>6}   worst, best")
        for gap in report.gaps:
            interval = f"[{gap.interval.low:.3f}, {gap.interval.high:.3f}]"
            lines.append(
                f"  {gap.title:{wide}} {gap.interval.estimate:7.3f}   {interval:16} {gap.null:9.3f} {gap.p:6.3f}"
                f"   {gap.lowest}, {gap.highest}"
            )
        lines.append(
            "  at random: the mean gap if patients were in the same groups at random, p: how often it is as large"
        )
    hidden = report.table.loc[report.table["n"].isna(), ["grouping", "group"]].drop_duplicates()
    if len(hidden):
        small = f"fewer than {report.min_group} patients, or the next smallest, lest they be worked out"
        lines.append(f"  {len(hidden)} groups are withheld: {small}")
    if report.left_out:
        lines.append(f"  not told by this cohort: {', '.join(report.left_out)}")
    return lines


def _shuffling(seed: int) -> np.random.Generator:
    """Opened anew for every grouping, so that it does not matter which others there are."""
    return stream(seed, "subgroups")
