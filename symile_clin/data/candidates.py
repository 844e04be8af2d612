"""Fixed candidate lists: which X-rays (or other targets) each query is ranked against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.errors import CohortError
from symile_clin.schema import CANDIDATE_ROWS, QUERY_ROW, SAME_SUBJECT

#: In place of a candidate where a list has ended.
NO_ROW: Final = -1


@dataclass(frozen=True)
class CandidateLists:
    """One list of candidates per query.

    Attributes:
        query_row: (q,) int64 sample rows.
        candidate_rows: (q, n) int64 sample rows, the positive in column 0; `NO_ROW` beyond the end of a list that is
            shorter than the longest, as in a release whose lists had candidates of the query's own patient.
        same_subject: (q, n) bool, true where a candidate is of the query's patient (column 0 always is).
    """

    query_row: NDArray[np.int64]
    candidate_rows: NDArray[np.int64]
    same_subject: NDArray[np.bool_]

    @property
    def listed(self) -> NDArray[np.bool_]:
        """(q, n), false beyond the end of a shorter list."""
        listed: NDArray[np.bool_] = self.candidate_rows != NO_ROW
        return listed


def read_candidates(path: Path) -> CandidateLists:
    """Read candidates/<split>.parquet."""
    table = pq.read_table(path)
    lengths = pc.list_value_length(table[CANDIDATE_ROWS]).to_numpy()
    listed = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    rows, same_subject = np.full(listed.shape, NO_ROW, dtype=np.int64), np.zeros(listed.shape, dtype=np.bool_)
    for column, matrix in ((CANDIDATE_ROWS, rows), (SAME_SUBJECT, same_subject)):
        matrix[listed] = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return CandidateLists(
        query_row=table[QUERY_ROW].to_numpy().astype(np.int64), candidate_rows=rows, same_subject=same_subject
    )


def without_own_patient(lists: CandidateLists) -> CandidateLists:
    """The same lists without candidates of the query's own patient, the positive apart; the rest keeps its order."""
    kept = ~lists.same_subject & lists.listed
    kept[:, 0] = True
    order = np.argsort(~kept, axis=1, kind="stable")[:, : int(kept.sum(axis=1).max(initial=0))]
    stays = np.take_along_axis(kept, order, axis=1)
    return CandidateLists(
        query_row=lists.query_row,
        candidate_rows=np.where(stays, np.take_along_axis(lists.candidate_rows, order, axis=1), NO_ROW),
        same_subject=np.take_along_axis(lists.same_subject, order, axis=1) & stays,
    )


def draw_candidates(
    rows: NDArray[np.int64],
    subjects: NDArray[np.int64],
    *,
    n: int,
    rng: np.random.Generator,
    split: str,
    other_subjects: bool = False,
) -> CandidateLists:
    """One list of `n` per query: the positive, then negatives drawn uniformly without replacement from the split.

    Args:
        rows: (q,) sample rows of the split; each is a query.
        subjects: (q,) their patients.
        split: its name, for the error.
        other_subjects: negatives are never of the query's own patient.

    Raises:
        CohortError: the split has too few samples for such lists.
    """
    own = int(np.unique(subjects, return_counts=True)[1].max(initial=1)) if other_subjects else 1
    fewest = len(rows) - own
    if fewest < n - 1:
        whose = " of other patients" if other_subjects else ""
        raise CohortError(
            f"split '{split}' has {len(rows):,} samples, which leaves a query {fewest:,} negatives{whose}",
            expected=f"{n - 1:,} for lists of {n:,}",
            remedy=f"Use --set candidates.n={max(fewest + 1, 2)} at most, or a larger split",
        )
    chosen = np.empty((len(rows), n), dtype=np.int64)
    for query in range(len(rows)):
        allowed = np.flatnonzero(subjects != subjects[query]) if other_subjects else None
        if allowed is None:
            drawn = rng.choice(len(rows) - 1, size=n - 1, replace=False)
            drawn += drawn >= query  # step over the query itself
        else:
            drawn = rng.choice(allowed, size=n - 1, replace=False)
        chosen[query] = [query, *drawn]
    return CandidateLists(
        query_row=rows, candidate_rows=rows[chosen], same_subject=subjects[chosen] == subjects[:, None]
    )


def draw_matched(
    rows: NDArray[np.int64],
    subjects: NDArray[np.int64],
    alike: NDArray[np.int64],
    *,
    n: int,
    rng: np.random.Generator,
) -> CandidateLists:
    """Lists of `n` whose negatives are like the query: drawn uniformly from its group, never of its own patient.

    A query with fewer than `n` - 1 such negatives has no list.

    Args:
        rows: (q,) sample rows of the split; each may be a query.
        subjects: (q,) their patients.
        alike: (q,) number of the group each is in; negative for none.
    """
    chosen: list[NDArray[np.int64]] = []
    members = {int(number): np.flatnonzero(alike == number) for number in np.unique(alike[alike >= 0])}
    for query in range(len(rows)):
        group = members.get(int(alike[query]), np.empty(0, dtype=np.int64))
        allowed = group[subjects[group] != subjects[query]]
        if len(allowed) >= n - 1:
            chosen.append(np.append(query, rng.choice(allowed, size=n - 1, replace=False)))
    places = np.array(chosen, dtype=np.int64).reshape(-1, n)
    return CandidateLists(
        query_row=rows[places[:, 0]],
        candidate_rows=rows[places],
        same_subject=subjects[places] == subjects[places[:, :1]],
    )


def write_candidates(path: Path, lists: CandidateLists) -> None:
    """Write candidates/<split>.parquet."""
    columns = {
        QUERY_ROW: lists.query_row,
        CANDIDATE_ROWS: _lists(lists.candidate_rows, lists.listed),
        SAME_SUBJECT: _lists(lists.same_subject, lists.listed),
    }
    with files.atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _lists(matrix: NDArray[Any], listed: NDArray[np.bool_]) -> pa.Array:
    rows = [row[here] for row, here in zip(matrix, listed, strict=True)]
    return pa.array(rows, type=pa.list_(pa.from_numpy_dtype(matrix.dtype)))
