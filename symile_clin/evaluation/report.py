"""From ranks to the numbers of a report: estimates, intervals and chance, under their fixed names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import Interval, bootstrap_interval, resample_queries
from symile_clin.evaluation.retrieval import Ranks, chance
from symile_clin.rng import stream
from symile_clin.schema import Split

#: Metrics that are means over queries, and so have intervals: name -> value of each query.
MEANS: Final[Mapping[str, Callable[[Ranks], NDArray[np.float64]]]] = {
    "recall_at_1": lambda ranks: ranks.recall_at(1),
    "recall_at_5": lambda ranks: ranks.recall_at(5),
    "mrr": Ranks.reciprocal,
    "mean_rank": Ranks.mid,
}


def retrieval_report(
    *,
    ranks: Ranks,
    clusters: NDArray[Any],
    candidates_n: int,
    bootstrap: int | None,
    seed: int,
    split: Split,
    target: str,
) -> dict[str, float]:
    """Metrics of the default protocol: `target` retrieved from all other modalities among `candidates_n` candidates.

    Args:
        clusters: (q,) the patient of each query.
        bootstrap: B of the paper's resampling of queries; None leaves it out.

    Returns:
        `<split>/<target>/<metric>` for recall_at_1, recall_at_5, mrr, mean_rank (each with `_ci_low`, `_ci_high`,
        `_chance`) and median_rank (with `_chance`). recall_at_1 also has `_n` queries, `_n_subjects` and, with
        `bootstrap`, `_bootstrap_mean` and `_bootstrap_se`.

    Raises:
        CohortError: queries of fewer than two patients.
    """
    prefix = f"{split}/{target}/"
    metrics: dict[str, float] = {}
    level = chance(candidates_n)
    for name, of in MEANS.items():
        metrics |= mean_report(prefix + name, of(ranks), chance=of(level), clusters=clusters, seed=seed)
    metrics[f"{prefix}median_rank"] = float(np.median(ranks.mid()))
    metrics[f"{prefix}median_rank_chance"] = float(chance(candidates_n).mid()[0])
    metrics[f"{prefix}recall_at_1_n"] = float(len(ranks.n_greater))
    metrics[f"{prefix}recall_at_1_n_subjects"] = float(len(np.unique(clusters)))
    if bootstrap is not None:
        accuracies = resample_queries(ranks.recall_at(1), bootstrap, query_stream(seed))
        metrics[f"{prefix}recall_at_1_bootstrap_mean"] = float(accuracies.mean())
        metrics[f"{prefix}recall_at_1_bootstrap_se"] = float(accuracies.std(ddof=1))
    return metrics


def other_subjects_report(
    *,
    ranks: Ranks,
    clusters: NDArray[Any],
    candidates_n: NDArray[np.int64],
    seed: int,
    split: Split,
    target: str,
    query: tuple[str, ...],
) -> dict[str, float]:
    """recall_at_1 over lists that hold no other sample of the query's own patient.

    Args:
        candidates_n: (q,) length of each list; chance is the mean of their reciprocals.

    Returns:
        `<split>/<target>/candidates_other_subjects/<query>/recall_at_1` with `_ci_low`, `_ci_high`, `_chance`, `_n`.
    """
    name, of = f"{query_prefix(split, target, query, 'candidates_other_subjects')}recall_at_1", MEANS["recall_at_1"]
    metrics = mean_report(name, of(ranks), chance=of(chance(candidates_n)), clusters=clusters, seed=seed)
    return {**metrics, f"{name}_n": float(len(ranks.n_greater))}


def query_prefix(split: Split, target: str, query: Sequence[str], protocol: str = "candidates") -> str:
    """`<split>/<target>/<protocol>/<query>/`, the query's names in alphabetical order joined by +."""
    return f"{split}/{target}/{protocol}/{'+'.join(sorted(query))}/"


def mean_report(
    name: str, values: NDArray[np.float64], *, chance: NDArray[np.float64], clusters: NDArray[Any], seed: int
) -> dict[str, float]:
    """The mean of `values` (q,) under `name`, with `_ci_low` and `_ci_high`, and the mean of `chance` as `_chance`."""
    interval = bootstrap_interval(values, clusters, rng=patient_stream(seed))
    return {**interval_report(name, interval), f"{name}_chance": float(chance.mean())}


def interval_report(name: str, interval: Interval) -> dict[str, float]:
    """An estimate under `name` with `_ci_low` and `_ci_high`."""
    return {name: interval.estimate, f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}


def patient_stream(seed: int) -> np.random.Generator:
    """The draws of patients, opened anew for every metric and figure, so that all are over the same resamples."""
    return stream(seed, "bootstrap patients")


def query_stream(seed: int) -> np.random.Generator:
    """The draws of queries of the paper's way."""
    return stream(seed, "bootstrap queries")


def table(metrics: Mapping[str, float], *, split: Split, target: str, query: tuple[str, ...]) -> str:
    """The report of one evaluation as lines for a terminal.

    Args:
        metrics: as in metrics.json.
        query: modalities that the target was retrieved from.
    """
    own = {name.removeprefix(f"{split}/{target}/"): value for name, value in metrics.items()}
    lines = [
        f"{target} retrieved from {' + '.join(query)}, {split} split: {own['recall_at_1_n']:,.0f} queries "
        f"of {own['recall_at_1_n_subjects']:,.0f} patients",
        f"  {'':12} {'value':>7}   {'95 % interval':16} {'chance':>7}",
    ]
    for name in (*MEANS, "median_rank"):
        interval = f"[{own[f'{name}_ci_low']:.3f}, {own[f'{name}_ci_high']:.3f}]" if name in MEANS else ""
        lines.append(f"  {name:12} {own[name]:7.3f}   {interval:16} {own[f'{name}_chance']:7.3f}")
    if "recall_at_1_ceiling" in own:
        lines.append(
            f"  a perfect model's recall_at_1 on these lists: {own['recall_at_1_ceiling']:.3f}; "
            f"from pairs alone: {own['recall_at_1_ceiling_pairs']:.3f}"
        )
    for name, value in own.items():
        if name.startswith("candidates_other_subjects/") and name.endswith("/recall_at_1"):
            interval = f"[{own[f'{name}_ci_low']:.3f}, {own[f'{name}_ci_high']:.3f}]"
            chance_here = own[f"{name}_chance"]
            among = f"   chance {chance_here:.3f}" if not math.isclose(chance_here, own["recall_at_1_chance"]) else ""
            lines.append(f"  recall_at_1 without the patient's own other samples: {value:.3f}   {interval}{among}")
    if "recall_at_1_bootstrap_mean" in own:
        lines.append(
            f"  recall_at_1 the paper's way (queries resampled): mean {own['recall_at_1_bootstrap_mean']:.3f}, "
            f"standard deviation {own['recall_at_1_bootstrap_se']:.3f}"
        )
    return "\n".join(lines)
