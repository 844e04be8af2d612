"""What each query modality contributes: retrieval with it taken away, and with another sample's in its place.

Both change the queries and nothing else: model, candidate lists and patients are those of the full query, so the
difference is paired. They ask different things: taken away, the model knows that it does not know; shuffled, it is told
something about another patient.

Source: Breiman, "Random Forests", Machine Learning 45, 2001, section 10, and Fisher, Rudin and Dominici, JMLR 20(177),
2019, on importance by permutation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.evaluation.absence import SEED, StandIns, shuffled, without
from symile_clin.evaluation.bootstrap import Interval, bootstrap_interval
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.report import interval_report, mean_report, patient_stream, query_prefix
from symile_clin.evaluation.retrieval import chance, rank, score_lists
from symile_clin.objectives.base import Objective
from symile_clin.rng import stream
from symile_clin.schema import Split

#: Shuffles whose accuracies are averaged, query by query.
SHUFFLES: Final = 10
#: Of a shuffled modality's name where metrics name the query.
SHUFFLED: Final = "_shuffled"


def smaller_queries(query: Sequence[str]) -> list[tuple[str, ...]]:
    """The queries that lack one of these modalities, in their order; none if nothing would be left to ask with."""
    return [tuple(name for name in query if name != left) for left in query] if len(query) > 1 else []


def ablation_report(
    *,
    objective: Objective,
    encoded: Embedded,
    rows: NDArray[np.int64],
    lists: CandidateLists,
    clusters: NDArray[Any],
    stand_ins: StandIns,
    recall: NDArray[np.float64],
    query: Sequence[str],
    subsets: Collection[Sequence[str]],
    seed: int,
    split: Split,
    target: str,
) -> dict[str, float]:
    """recall_at_1 with fewer modalities and with shuffled ones, over the same lists as with all.

    Args:
        encoded: embeddings of samples `rows`.
        clusters: (q,) the patient of each query.
        recall: (q,) recall_at_1 of each query with all modalities.
        query: these modalities; each is shuffled in turn.
        subsets: those to ask with alone, each some of `query`.
        seed: of the resampling of patients; shuffles are the same for all.

    Returns:
        `<split>/<target>/candidates/<subset>/recall_at_1` with `_ci_low`, `_ci_high`, `_chance`, and `_drop`, how much
        lower it is than with all, with its own paired interval `_drop_ci_low`, `_drop_ci_high`; and
        `_marginalised_over`, the number of training samples that stand for what is taken away, 0 for learned
        placeholders alone. The same, without the last, for each modality shuffled: its query is `a_shuffled+b`.

    Raises:
        CohortError: queries of fewer than two patients.
        MismatchError: nothing stands for a modality that is taken away.
    """
    level = chance(lists.listed.sum(axis=1)).recall_at(1)

    def measured(changed: Sequence[Embedded], name: str) -> dict[str, float]:
        hits = np.array([_recall(objective, one, rows, lists, target, stand_ins) for one in changed])
        # differences first: where nothing changes they are zero to the bit
        drop = bootstrap_interval((recall - hits).mean(axis=0), clusters, rng=patient_stream(seed))
        return {
            **mean_report(name, hits.mean(axis=0), chance=level, clusters=clusters, seed=seed),
            **interval_report(f"{name}_drop", drop),
        }

    metrics: dict[str, float] = {}
    for subset in subsets:
        taken = [name for name in query if name not in subset]
        name = f"{query_prefix(split, target, subset)}recall_at_1"
        metrics |= measured([without(encoded, taken, stand_ins)], name)
        marginalised = any(one not in stand_ins.placeholders for one in taken)
        metrics[f"{name}_marginalised_over"] = float(stand_ins.samples if marginalised else 0)
    for one in query:
        changed = [shuffled(encoded, one, stream(SEED, "shuffled", one, number)) for number in range(SHUFFLES)]
        metrics |= measured(changed, shuffled_name(split, target, query, one))
    return metrics


def shuffled_name(split: Split, target: str, query: Sequence[str], one: str) -> str:
    """Name of recall_at_1 where modality `one` of the query is shuffled."""
    names = [name + SHUFFLED if name == one else name for name in sorted(query)]
    return f"{split}/{target}/candidates/{'+'.join(names)}/recall_at_1"


def contributions(
    metrics: Mapping[str, float], *, split: Split, target: str, query: Sequence[str]
) -> dict[str, dict[str, Interval]]:
    """recall_at_1 lost without each modality, as far as metrics tell.

    Returns:
        By modality, "taken away" and "shuffled" with their intervals.
    """
    found: dict[str, dict[str, Interval]] = {}
    for one in query:
        rest = [name for name in query if name != one]
        names = {
            "taken away": f"{query_prefix(split, target, rest)}recall_at_1_drop",
            "shuffled": f"{shuffled_name(split, target, query, one)}_drop",
        }
        found[one] = {
            way: Interval(metrics[name], metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"])
            for way, name in names.items()
            if name in metrics
        }
    return found


def contribution_table(found: Mapping[str, Mapping[str, Interval]], *, method: str) -> str:
    """The contributions as lines for a terminal.

    Args:
        found: by `contributions`.
        method: what stands for a modality that is taken away, in words.
    """
    ways = list(next(iter(found.values())))
    heads = {"taken away": "taken away", "shuffled": f"shuffled (mean of {SHUFFLES})"}
    width = max(12, *map(len, found))
    lines = ["  recall_at_1 lost without one of them (paired 95 % interval)"]
    lines.append(f"  {'':{width}} " + "  ".join(f"{heads[way]:>24}" for way in ways))
    for name, by_way in found.items():
        cells = [f"{one.estimate:.3f}  [{one.low:.3f}, {one.high:.3f}]" for one in by_way.values()]
        lines.append(f"  {name:{width}} " + "  ".join(f"{cell:>24}" for cell in cells))
    if "taken away" in ways:
        lines.append(f"  taken away: {method}")
    return "\n".join(lines)


def _recall(
    objective: Objective,
    encoded: Embedded,
    rows: NDArray[np.int64],
    lists: CandidateLists,
    target: str,
    stand_ins: StandIns,
) -> NDArray[np.float64]:
    scores = score_lists(
        objective, encoded.embeddings, rows, lists, target, present=encoded.present, stand_ins=stand_ins
    )
    return rank(scores).recall_at(1)
