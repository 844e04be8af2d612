"""Runs on the same queries: paired differences with intervals and tests, and what seeds alone change.

Two sources of uncertainty are kept apart. Other patients would give another difference: that is the sampling error,
which the bootstrap over patients shows. Another seed would give another model: that is the spread between runs of one
config, known only where there are several. The whole uncertainty holds both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from symile_clin.evaluation.bootstrap import RESAMPLES, Interval, PatientResamples
from symile_clin.evaluation.measures import MEANS, patient_stream
from symile_clin.evaluation.paired_tests import McNemar, holm, mcnemar
from symile_clin.evaluation.retrieval import chance
from symile_clin.evaluation.scored_runs import Group, check_same_queries, settings_that_differ

LEVEL: Final = 0.95
#: Of the resamples: most evaluations are of runs with this seed, and draw the same.
SEED: Final = 0


@dataclass(frozen=True)
class GroupValue:
    """A group's metric with its sampling error, and apart from it what seeds change.

    Attributes:
        percentile, bca: of the mean over queries of the mean over the group's runs.
        by_run: run -> its mean over queries.
        seed_sd: standard deviation (ddof 1) of `by_run`; None with one run: not known.
    """

    group: Group
    percentile: Interval
    bca: Interval
    by_run: Mapping[str, float]
    seed_sd: float | None


@dataclass(frozen=True)
class Difference:
    """The metric of one group minus that of another, over the same queries.

    Attributes:
        first, second: positions in `Comparison.values`; it is the first's value minus the second's.
        p: two-sided, of no difference; from the same resamples as `percentile`.
        p_holm: the same, adjusted for all comparisons made.
        seed_se: standard error that the choice of seeds gives the difference; None where a side has one run.
        mcnemar: of recall_at_1, whatever the metric; None where a side has several runs, which have no single outcome.
        mcnemar_holm: its p-value, adjusted for all such tests made.
        settings: what differs between the configs, key -> (of the first, of the second).
    """

    first: int
    second: int
    percentile: Interval
    bca: Interval
    p: float
    p_holm: float
    seed_se: float | None
    mcnemar: McNemar | None
    mcnemar_holm: float | None
    settings: Mapping[str, tuple[object, object]]


@dataclass(frozen=True)
class Comparison:
    """Groups with their values, and the differences between them.

    Attributes:
        chance: the metric of who knows nothing, on the same lists.
        queries, patients: how many were compared.
    """

    metric: str
    values: tuple[GroupValue, ...]
    differences: tuple[Difference, ...]
    chance: float
    queries: int
    patients: int
    resamples: int


def compare_groups(
    groups: Sequence[Group], *, metric: str, all_pairs: bool = False, resamples: int = RESAMPLES
) -> Comparison:
    """Every group against the first, or against all before it, over the same resamples of patients.

    Args:
        groups: of runs on the same queries; the first is the reference.
        metric: a key of `MEANS`.

    Raises:
        MismatchError: runs on different queries.
        CohortError: queries of fewer than two patients.

    Source:
        Field and Welsh (2007) on resampling clusters; Efron (1987) on BCa; Holm (1979) on several tests.
    """
    everyone = [run for group in groups for run in group.runs]
    for other in everyone[1:]:
        check_same_queries(everyone[0], other)
    ranked = everyone[0].ranked
    # One stream for all comparisons, whatever their order: swapping two runs turns signs around and nothing else. It is
    # that of evaluations with this seed, whose intervals come out the same here.
    draws = PatientResamples(ranked.patient, resamples=resamples, rng=patient_stream(SEED))
    values = np.stack([group.values(metric) for group in groups], axis=1)
    percentiles, bcas = draws.intervals(values, level=LEVEL), draws.intervals(values, level=LEVEL, method="bca")
    of_groups = [_value(*one, metric=metric) for one in zip(groups, percentiles, bcas, strict=True)]

    pairs = [(later, earlier) for earlier, later in combinations(range(len(groups)), 2) if all_pairs or earlier == 0]
    paired = np.stack([values[:, first] - values[:, second] for first, second in pairs], axis=1)
    percentiles, bcas = draws.intervals(paired, level=LEVEL), draws.intervals(paired, level=LEVEL, method="bca")
    p_values = [draws.p_value(column) for column in paired.T]
    adjusted = holm(p_values)
    tests = {
        place: _mcnemar(groups[pair[0]], groups[pair[1]]) for place, pair in enumerate(pairs) if _single(groups, pair)
    }
    tests_adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    differences = [
        Difference(
            first=first,
            second=second,
            percentile=percentiles[place],
            bca=bcas[place],
            p=p_values[place],
            p_holm=adjusted[place],
            seed_se=_seed_se(of_groups[first], of_groups[second]),
            mcnemar=tests.get(place),
            mcnemar_holm=tests_adjusted.get(place),
            settings=settings_that_differ(groups[first].runs[0].config, groups[second].runs[0].config),
        )
        for place, (first, second) in enumerate(pairs)
    ]
    return Comparison(
        metric=metric,
        values=tuple(of_groups),
        differences=tuple(differences),
        chance=float(MEANS[metric](chance(ranked.n_candidates)).mean()),
        queries=len(ranked.query_row),
        patients=len(np.unique(ranked.patient)),
        resamples=resamples,
    )


def _value(group: Group, percentile: Interval, bca: Interval, *, metric: str) -> GroupValue:
    by_run = {run.run: float(run.values(metric).mean()) for run in group.runs}
    seed_sd = statistics.stdev(by_run.values()) if len(by_run) > 1 else None
    return GroupValue(group=group, percentile=percentile, bca=bca, by_run=by_run, seed_sd=seed_sd)


def _seed_se(first: GroupValue, second: GroupValue) -> float | None:
    """sqrt(s_1² / n_1 + s_2² / n_2), of two means over seeds."""
    if first.seed_sd is None or second.seed_sd is None:
        return None
    return math.sqrt(first.seed_sd**2 / len(first.by_run) + second.seed_sd**2 / len(second.by_run))


def _single(groups: Sequence[Group], pair: tuple[int, int]) -> bool:
    return all(len(groups[place].runs) == 1 for place in pair)


def _mcnemar(first: Group, second: Group) -> McNemar:
    return mcnemar(first.values("recall_at_1"), second.values("recall_at_1"))
