"""From ranks to numbers: estimates, intervals and chance of every way of asking, under their fixed names."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.absence import StandIns
from symile_clin.evaluation.bootstrap import Interval, PatientResamples, resample_queries
from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.evaluation.ranked import ListProtocol, Ranked
from symile_clin.evaluation.retrieval import Ranks, chance
from symile_clin.rng import stream
from symile_clin.schema import Split

Values = NDArray[np.float64]

#: Metrics that are means over queries, and so have intervals: name -> value of each query.
MEANS: Final[Mapping[str, Callable[[Ranks], Values]]] = {
    "recall_at_1": lambda ranks: ranks.recall_at(1),
    "recall_at_5": lambda ranks: ranks.recall_at(5),
    "recall_at_10": lambda ranks: ranks.recall_at(10),
    "mrr": Ranks.reciprocal,
    "mean_rank": Ranks.mid,
}
DROP: Final = "recall_at_1_drop"
_NAMED_IN_TRACKERS: Final = re.compile(r".*/recall_at_1(?!0)(?!.*_bca_).*")


@dataclass(frozen=True)
class Mean:
    """A metric that is a mean over queries, not yet averaged.

    Attributes:
        target: modality that is retrieved.
        query: what it is asked for with, in alphabetical order.
        values: (q,) of each query.
        patient: (q,) whose query it is.
        chance: mean of who knows nothing; None where that says nothing.
    """

    target: str
    protocol: ListProtocol
    query: tuple[str, ...]
    metric: str
    values: Values
    patient: NDArray[np.int64]
    chance: float | None = None


@dataclass(frozen=True)
class Measure:
    """One number of one way of asking; attributes not explained here are those of `Mean`.

    Attributes:
        ci: 95 % percentile interval; None where there is none.
        bca: the bias-corrected and accelerated one.
        n: queries.
        n_subjects: their patients.
    """

    target: str
    protocol: ListProtocol
    query: tuple[str, ...]
    metric: str
    value: float
    ci: Interval | None
    bca: Interval | None
    chance: float | None
    n: int
    n_subjects: int


def means_of(ranked: Ranked) -> list[Mean]:
    """The means of one way of asking."""
    level = chance(ranked.n_candidates)
    return [
        Mean(
            target=ranked.target,
            protocol=ranked.protocol,
            query=ranked.query,
            metric=name,
            values=of(ranked.ranks),
            patient=ranked.patient,
            chance=math.fsum(of(level)) / len(ranked.query_row),
        )
        for name, of in MEANS.items()
    ]


def drops(ranked: Sequence[Ranked]) -> list[Mean]:
    """How much lower recall_at_1 is with part of the other modalities than with all, under the protocol "candidates".

    Of each query the difference, so that intervals are paired. The full query of a target comes first among its ways.
    """
    found: list[Mean] = []
    full: dict[str, Ranked] = {}
    for one in ranked:
        if one.protocol == "candidates" and one.query != (DEMOGRAPHICS,):
            whole = full.setdefault(one.target, one)
            if one is not whole:
                lost = whole.ranks.recall_at(1) - one.ranks.recall_at(1)
                found.append(Mean(one.target, one.protocol, one.query, DROP, lost, one.patient))
    return found


def measured(means: Sequence[Mean], *, seed: int) -> list[Measure]:
    """Averages with their intervals, in the given order; all of the same queries are over the same resamples.

    Args:
        seed: of the draws of patients. Queries of fewer than two patients have no intervals.
    """
    of_patients: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, mean in enumerate(means):
        of_patients[mean.patient.tobytes()].append(place)
    found: dict[int, Measure] = {}
    for places in of_patients.values():
        patient = means[places[0]].patient
        subjects = len(np.unique(patient))
        ci: Sequence[Interval | None] = [None] * len(places)
        bca = ci
        if subjects > 1:
            resamples = PatientResamples(patient, rng=patient_stream(seed))
            values = np.stack([means[place].values for place in places], axis=1)
            ci, bca = resamples.intervals(values), resamples.intervals(values, method="bca")
        for place, percentile, corrected in zip(places, ci, bca, strict=True):
            mean = means[place]
            found[place] = Measure(
                target=mean.target,
                protocol=mean.protocol,
                query=mean.query,
                metric=mean.metric,
                value=float(mean.values.mean()),
                ci=percentile,
                bca=corrected,
                chance=mean.chance,
                n=len(patient),
                n_subjects=subjects,
            )
    return [found[place] for place in range(len(means))]


def counted(ranked: Ranked) -> list[Measure]:
    """What has no interval: the median rank, and how many queries have ties with their positive."""

    def of(metric: str, value: float, chance: float | None = None) -> Measure:
        n, subjects = len(ranked.query_row), len(np.unique(ranked.patient))
        return Measure(ranked.target, ranked.protocol, ranked.query, metric, value, None, None, chance, n, subjects)

    level = float(np.median(chance(ranked.n_candidates).mid()))
    return [
        of("median_rank", float(np.median(ranked.ranks.mid())), level),
        of("n_tied_queries", float((ranked.ranks.n_tied > 0).sum())),
    ]


def query_prefix(split: Split, target: str, query: Sequence[str], protocol: str = "candidates") -> str:
    """`<split>/<target>/<protocol>/<query>/`, the query's names in alphabetical order joined by +."""
    return f"{split}/{target}/{protocol}/{'+'.join(sorted(query))}/"


def flat(measures: Sequence[Measure], *, split: Split, full: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Measures under the names of metrics.json.

    Args:
        full: by target, all other modalities: with these, metrics of the protocol "candidates" are called
            `<split>/<target>/<metric>`, all others `<split>/<target>/<protocol>/<query>/<metric>`.

    Returns:
        Each metric, with `_ci_low`, `_ci_high`, `_bca_low`, `_bca_high` and `_chance` where it has them. recall_at_1
        also has `_n` queries and `_n_subjects` patients.
    """
    metrics: dict[str, float] = {}
    for one in measures:
        default = one.protocol == "candidates" and one.query == tuple(sorted(full[one.target]))
        prefix = f"{split}/{one.target}/" if default else query_prefix(split, one.target, one.query, one.protocol)
        name = prefix + one.metric
        if one.ci is not None:
            metrics |= interval_report(name, one.ci)
        metrics[name] = one.value
        if one.bca is not None:
            metrics |= {f"{name}_bca_low": one.bca.low, f"{name}_bca_high": one.bca.high}
        if one.chance is not None:
            metrics[f"{name}_chance"] = one.chance
        if one.metric == "recall_at_1":
            metrics |= {f"{name}_n": float(one.n), f"{name}_n_subjects": float(one.n_subjects)}
    return metrics


def interval_report(name: str, interval: Interval) -> dict[str, float]:
    """An estimate under `name` with `_ci_low` and `_ci_high`."""
    return {name: interval.estimate, f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}


def marginalised_over(
    ranked: Sequence[Ranked], *, split: Split, full: Mapping[str, Sequence[str]], stand_ins: Mapping[str, StandIns]
) -> dict[str, float]:
    """`..._marginalised_over`, for each way of asking with fewer modalities than there are.

    The number of training samples that stand for what is taken away; 0 for learned placeholders alone.
    """
    metrics = {}
    for one in ranked:
        absent = [name for name in full[one.target] if name not in one.query]
        if absent and one.query != (DEMOGRAPHICS,):
            of = stand_ins[one.target]
            over = 0 if all(name in of.placeholders for name in absent) else of.samples
            name = f"{query_prefix(split, one.target, one.query, one.protocol)}recall_at_1_marginalised_over"
            metrics[name] = float(over)
    return metrics


def as_published(full: Ranked, *, split: Split, bootstrap: int, seed: int) -> dict[str, float]:
    """`recall_at_1_bootstrap_mean` and `_se`, the mean and standard deviation over `bootstrap` resamples of queries."""
    accuracies = resample_queries(full.ranks.recall_at(1), bootstrap, query_stream(seed))
    name = f"{split}/{full.target}/recall_at_1_bootstrap"
    return {f"{name}_mean": float(accuracies.mean()), f"{name}_se": float(accuracies.std(ddof=1))}


def tracked(metrics: Mapping[str, float], *, split: Split, target: str) -> dict[str, float]:
    """The metrics that an experiment tracker gets: of one target, and where they name a query, only of recall_at_1.

    Everything about the other targets and metrics is in retrieval.csv, which the tracker gets, too.
    """
    prefix = f"{split}/{target}/"
    own = {name: value for name, value in metrics.items() if name.startswith(prefix)}
    return {
        name: value
        for name, value in own.items()
        if "/" not in name.removeprefix(prefix) or _NAMED_IN_TRACKERS.fullmatch(name)
    }


def patient_stream(seed: int) -> np.random.Generator:
    """The draws of patients, opened anew for all queries and figures, so that all are over the same resamples."""
    return stream(seed, "bootstrap patients")


def query_stream(seed: int) -> np.random.Generator:
    """The draws of queries of the paper's way."""
    return stream(seed, "bootstrap queries")
