"""What each query modality contributes: retrieval with it taken away, and with another sample's in its place.

Both change the queries and nothing else: model, candidate lists and patients are those of the full query, so the
difference is paired. They ask different things: taken away, the model knows that it does not know; shuffled, it is told
something about another patient.

Source: Breiman, "Random Forests", Machine Learning 45, 2001, section 10, and Fisher, Rudin and Dominici, JMLR 20(177),
2019, on importance by permutation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.evaluation.absence import SEED, StandIns, shuffled
from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.measures import DROP, Mean, query_prefix
from symile_clin.evaluation.ranked import Ranked
from symile_clin.evaluation.retrieval import chance, rank, score_lists
from symile_clin.objectives.base import Objective
from symile_clin.rng import stream
from symile_clin.schema import Split

#: Shuffles whose accuracies are averaged, query by query.
SHUFFLES: Final = 10
#: Of a shuffled modality's name where metrics name the query.
SHUFFLED: Final = "_shuffled"


def shuffled_means(
    *,
    objective: Objective,
    encoded: Embedded,
    rows: NDArray[np.int64],
    lists: CandidateLists,
    stand_ins: StandIns,
    full: Ranked,
) -> list[Mean]:
    """recall_at_1 with each query modality shuffled, and how much lower it is than with none, over the same lists.

    Args:
        encoded: embeddings of samples `rows`.
        lists: those of `full`.
        full: what came of asking with all other modalities as they are; each is shuffled in turn.

    Returns:
        recall_at_1 and recall_at_1_drop of the query `a_shuffled+b`, for each a.

    Raises:
        MismatchError: nothing stands for a modality that a query lacks.
    """
    recall = full.ranks.recall_at(1)
    level = math.fsum(chance(full.n_candidates).recall_at(1)) / len(recall)
    found: list[Mean] = []
    for one in full.query:
        changed = [shuffled(encoded, one, stream(SEED, "shuffled", one, number)) for number in range(SHUFFLES)]
        hits = np.array([_recall(objective, other, rows, lists, full.target, stand_ins) for other in changed])
        query = shuffled_query(full.query, one)
        # differences first: where nothing changes they are zero to the bit
        lost = (recall - hits).mean(axis=0)
        found += [
            Mean(full.target, "candidates", query, "recall_at_1", hits.mean(axis=0), full.patient, level),
            Mean(full.target, "candidates", query, DROP, lost, full.patient),
        ]
    return found


def shuffled_query(query: Sequence[str], one: str) -> tuple[str, ...]:
    """The names of a query of which modality `one` is shuffled."""
    return tuple(name + SHUFFLED if name == one else name for name in sorted(query))


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
            "taken away": f"{query_prefix(split, target, rest)}{DROP}",
            "shuffled": f"{query_prefix(split, target, shuffled_query(query, one))}{DROP}",
        }
        found[one] = {
            way: Interval(metrics[name], metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"])
            for way, name in names.items()
            if name in metrics
        }
    return found


def contribution_table(found: Mapping[str, Mapping[str, Interval]]) -> str:
    """The contributions as lines for a terminal.

    Args:
        found: by `contributions`.
    """
    ways = list(next(iter(found.values())))
    heads = {"taken away": "taken away", "shuffled": f"shuffled (mean of {SHUFFLES})"}
    width = max(12, *map(len, found))
    lines = ["  recall_at_1 lost without one of them (paired 95 % interval)"]
    lines.append(f"  {'':{width}} " + "  ".join(f"{heads[way]:>24}" for way in ways))
    for name, by_way in found.items():
        cells = [f"{one.estimate:.3f}  [{one.low:.3f}, {one.high:.3f}]" for one in by_way.values()]
        lines.append(f"  {name:{width}} " + "  ".join(f"{cell:>24}" for cell in cells))
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
