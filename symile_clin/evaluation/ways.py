"""Every way of asking: each modality retrieved from all the others, from each part of them, under every protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.evaluation.absence import StandIns, without
from symile_clin.evaluation.demographics import DEMOGRAPHICS, alike_tables, attributes
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.protocols import Pool, pool_of, rank_pool
from symile_clin.evaluation.ranked import ListProtocol, Ranked
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.evaluation.scoring import Scorer, Table
from symile_clin.modalities.base import Modality
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress, Quiet
from symile_clin.schema import ROW, SUBJECT_ID

#: Multiplications that marginalising one way's whole gallery may take: some minutes on two cores. Beyond it only the
#: lists are scored, and a note says so.
MARGINALISED_BUDGET: Final = 2_000_000_000_000


@dataclass(frozen=True)
class Ways:
    """What was asked, and what could not be.

    Attributes:
        ranked: by target, the cohort's own first; then by query, all modalities first and the baseline last.
        notes: a line for all that was left out.
    """

    ranked: Sequence[Ranked]
    notes: Sequence[str]

    def one(self, target: str, protocol: ListProtocol, query: Sequence[str]) -> Ranked | None:
        """The way of asking that is so; None where it was left out."""
        wanted = (target, protocol, tuple(sorted(query)))
        return next((one for one in self.ranked if (one.target, one.protocol, one.query) == wanted), None)


def query_subsets(names: Sequence[str], target: str) -> list[tuple[str, ...]]:
    """What `target` can be asked for with: all other modalities, then ever fewer of them."""
    query = [name for name in names if name != target]
    return [subset for size in range(len(query), 0, -1) for subset in combinations(query, size)]


def every_way(
    *,
    objective: Objective,
    encoded: Embedded,
    samples: pd.DataFrame,
    lists: Mapping[ListProtocol, CandidateLists],
    modalities: Mapping[str, Modality],
    stand_ins: Mapping[str, StandIns],
    progress: Progress | None = None,
) -> Ways:
    """Rank every query of a split in every way.

    Args:
        objective: the one that the model was trained with.
        encoded: embeddings of the split.
        samples: (n,) its samples, in the same order, ascending in row.
        lists: the split's, drawn for one target; for another they serve without entries that lack it.
        stand_ins: for what queries lack, by target; in this order targets are retrieved, and no others.

    Raises:
        MismatchError: nothing stands for what a query lacks.
        TrainingError: a score is not finite.
    """
    rows = samples[ROW].to_numpy(dtype=np.int64)
    _, patient = np.unique(samples[SUBJECT_ID].to_numpy(), return_inverse=True)
    found: list[Ranked] = []
    notes: list[str] = []
    pools = {target: pool_of(rows, encoded.present[target], patient, lists) for target in stand_ins}
    subsets = {target: query_subsets(list(modalities), target) for target in stand_ins}
    total = sum(len(subsets[target]) * len(pool.row) for target, pool in pools.items())
    with (progress or Quiet()).track("ranking", total) as advance:

        def counted(tables: Iterator[Table]) -> Iterator[Table]:
            for table in tables:
                yield table
                advance(len(table.queries))

        for target, pool in pools.items():
            notes += [f"{target}: no query has a list ({name})" for name in pool.listed if not len(pool.queries(name))]
            for query in subsets[target]:
                taken = [name for name in modalities if name not in (*query, target)]
                scorer = Scorer(
                    objective=objective,
                    encoded=without(encoded, taken, stand_ins[target]),
                    target=target,
                    queries=pool.place,
                    candidates=pool.place,
                    stand_ins=stand_ins[target],
                )
                whole = scorer.work <= MARGINALISED_BUDGET
                tables = scorer.tables(None if whole else _wanted(pool, scorer.vector_of))
                found += _ranked(target, query, pool, rank_pool(pool, counted(tables), scorer.vector_of, whole=whole))
                if not whole:
                    notes.append(
                        f"{target} from {' + '.join(query)}: the whole split is left out, for marginalising would take "
                        f"{scorer.work:.1e} multiplications, beyond {MARGINALISED_BUDGET:.0e}"
                    )
            of_pool = samples.iloc[pool.place]
            tables, group = alike_tables(of_pool, attributes(of_pool, modalities[target].match_columns))
            found += _ranked(target, (DEMOGRAPHICS,), pool, rank_pool(pool, tables, group, whole=True))
    return Ways(found, notes)


def _wanted(pool: Pool, vector_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, m) numbers of the distinct embeddings that any list of a sample holds, negative for none."""
    places = np.hstack(list(pool.listed.values()))
    return np.where(places >= 0, vector_of[places], -1)


def _ranked(target: str, query: Sequence[str], pool: Pool, ranks: Mapping[ListProtocol, Ranks]) -> list[Ranked]:
    return [
        Ranked(
            target=target,
            protocol=protocol,
            query=tuple(sorted(query)),
            query_row=pool.row[pool.queries(protocol)],
            patient=pool.patient[pool.queries(protocol)],
            ranks=one,
            n_candidates=pool.n_candidates(protocol),
        )
        for protocol, one in ranks.items()
        if len(one.n_greater)
    ]
