"""What each query is ranked against: fixed lists or the whole split, with or without others of its own patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from symile_clin.data.candidates import NO_ROW, CandidateLists
from symile_clin.data.store import Cohort
from symile_clin.errors import NotFoundError
from symile_clin.evaluation.ranked import ListProtocol
from symile_clin.evaluation.retrieval import Ranks, rank
from symile_clin.evaluation.scoring import Table
from symile_clin.schema import Split

_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")
#: The protocols without lists: everybody in the split is a candidate.
WHOLE_SPLIT: Final[tuple[ListProtocol, ...]] = ("gallery", "gallery_other_subjects")


@dataclass(frozen=True)
class Pool:
    """The samples of a split that have one modality: the queries and the candidates where it is retrieved.

    Attributes:
        row: (n,) sample rows, ascending.
        place: (n,) where each is in the split's embeddings.
        patient: (n,) number of its patient.
        listed: by protocol with lists, (n, m) places in the pool of each sample's candidates, its own first, negative
            where there is none: the sample has no list, its list is shorter, or the entry lacks the modality.
    """

    row: NDArray[np.int64]
    place: NDArray[np.int64]
    patient: NDArray[np.int64]
    listed: Mapping[ListProtocol, NDArray[np.int64]]

    def queries(self, protocol: ListProtocol) -> NDArray[np.int64]:
        """Places in the pool of a protocol's queries."""
        listed = self.listed.get(protocol)
        return np.arange(len(self.row)) if listed is None else np.flatnonzero(listed[:, 0] >= 0)

    def n_candidates(self, protocol: ListProtocol) -> NDArray[np.int64]:
        """Length of the list of each of a protocol's queries, the positive included."""
        if protocol in self.listed:
            count: NDArray[np.int64] = (self.listed[protocol][self.queries(protocol)] >= 0).sum(axis=1)
            return count
        everybody = np.full(len(self.row), len(self.row), dtype=np.int64)
        if protocol == "gallery_other_subjects":
            everybody -= np.bincount(self.patient)[self.patient] - 1
        return everybody


def candidate_lists(cohort: Cohort, split: Split) -> dict[ListProtocol, CandidateLists]:
    """The lists of a split that a cohort has, queries ascending; matched ones may be missing.

    Raises:
        NotFoundError: the split has no candidate lists.
    """
    found: dict[ListProtocol, CandidateLists] = {
        "candidates": cohort.candidates(split),
        "candidates_other_subjects": cohort.candidates(split, other_subjects=True),
    }
    with suppress(NotFoundError):
        found["matched"] = cohort.candidates(split, matched=True)
    return {protocol: _ascending(lists) for protocol, lists in found.items() if len(lists.query_row)}


def _ascending(lists: CandidateLists) -> CandidateLists:
    """The same lists in the order of their queries' rows."""
    order = np.argsort(lists.query_row, kind="stable")
    return CandidateLists(lists.query_row[order], lists.candidate_rows[order], lists.same_subject[order])


def pool_of(
    rows: NDArray[np.int64],
    present: NDArray[np.bool_],
    patient: NDArray[np.int64],
    lists: Mapping[ListProtocol, CandidateLists],
) -> Pool:
    """The samples that have a modality, with what is left of lists that may have been drawn for another.

    Args:
        rows: (s,) sample rows of the split, ascending.
        present: (s,) which of them have the modality.
        patient: (s,) number of each one's patient.
    """
    place = np.flatnonzero(present)
    row = rows[place]

    def places(wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.minimum(np.searchsorted(row, wanted), max(len(row) - 1, 0))
        known = (wanted != NO_ROW) & (row[found] == wanted) if len(row) else np.zeros(wanted.shape, dtype=np.bool_)
        return np.where(known, found, NO_ROW)

    listed: dict[ListProtocol, NDArray[np.int64]] = {}
    for protocol, one in lists.items():
        queries, candidates = places(one.query_row), places(one.candidate_rows)
        listed[protocol] = np.full((len(row), candidates.shape[1]), NO_ROW)
        listed[protocol][queries[queries >= 0]] = candidates[queries >= 0]
    return Pool(row, place, patient[place], listed)


def rank_pool(
    pool: Pool, tables: Iterable[Table], vector_of: NDArray[np.int64], *, whole: bool
) -> dict[ListProtocol, Ranks]:
    """Rank every query's own sample under every protocol, from one pass over its scores.

    Args:
        tables: scores of the pool's samples; of all that have a list, or with `whole` of all.
        vector_of: (n,) number of each sample's embedding among the distinct ones.
        whole: rank against the whole split, too; the tables then have all columns.

    Returns:
        By protocol, ranks of `pool.queries(protocol)` in that order.
    """
    protocols = (*pool.listed, *(WHOLE_SPLIT if whole else ()))
    above, level = ({name: np.zeros(len(pool.row), dtype=np.int64) for name in protocols} for _ in range(2))
    copies = np.bincount(vector_of).astype(np.float64)
    for table in tables:
        column_of = np.searchsorted(table.vectors, vector_of)
        for name, listed in pool.listed.items():
            asked = np.flatnonzero(listed[table.queries, 0] >= 0)
            ranks = _ranks(table, asked, listed[table.queries[asked]], column_of)
            above[name][table.queries[asked]], level[name][table.queries[asked]] = ranks.n_greater, ranks.n_tied
        if whole:
            own = np.take_along_axis(table.scores, column_of[table.queries][:, None], axis=1)
            above["gallery"][table.queries] = _counted(table.scores > own, copies)
            level["gallery"][table.queries] = _counted(table.scores == own, copies) - 1
            same = _of_own_patient(pool.patient, table.queries)
            ranks = _ranks(table, np.arange(len(table.queries)), same, column_of)
            for counts, of_patient in ((above, ranks.n_greater), (level, ranks.n_tied)):
                counts["gallery_other_subjects"][table.queries] = counts["gallery"][table.queries] - of_patient
    return {
        name: Ranks(n_greater=above[name][pool.queries(name)], n_tied=level[name][pool.queries(name)])
        for name in protocols
    }


def _ranks(
    table: Table, lines: NDArray[np.int64], candidates: NDArray[np.int64], column_of: NDArray[np.int64]
) -> Ranks:
    """Ranks of some lines of a table, each among its own candidates: places in the pool, negative for none."""
    scores = table.scores[lines[:, None], np.where(candidates >= 0, column_of[candidates], 0)]
    return rank(np.where(candidates >= 0, scores, -np.inf))


def _counted(columns: NDArray[np.bool_], copies: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b,) how many samples have the marked embeddings; a line at a time, for all lines as numbers would be large."""
    return np.array([line @ copies for line in columns])


def _of_own_patient(patient: NDArray[np.int64], queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """(b, most) places of all samples of each query's patient, the query first, negative beyond their end."""
    order = np.argsort(patient, kind="stable")
    start, end = (np.searchsorted(patient[order], patient[queries], side=side) for side in _SIDES)
    grid = start[:, None] + np.arange(int((end - start).max(initial=0)))
    others = np.where(grid < end[:, None], order[np.minimum(grid, len(order) - 1)], NO_ROW)
    return np.hstack([queries[:, None], np.where(others == queries[:, None], NO_ROW, others)])
