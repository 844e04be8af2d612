"""Fixed candidate lists: which X-rays (or other targets) each query is ranked against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from symile_clin.schema import CANDIDATE_ROWS, QUERY_ROW, SAME_SUBJECT


@dataclass(frozen=True)
class CandidateLists:
    """One list of candidates per query, all of the same length.

    Attributes:
        query_row: (q,) int64 sample rows.
        candidate_rows: (q, n) int64 sample rows, the positive in column 0.
        same_subject: (q, n) bool, true where a candidate is of the query's patient (column 0 always is).
    """

    query_row: NDArray[np.int64]
    candidate_rows: NDArray[np.int64]
    same_subject: NDArray[np.bool_]


def read_candidates(path: Path) -> CandidateLists:
    """Read candidates/<split>.parquet."""
    table = pq.read_table(path)
    queries = len(table)

    def matrix(column: str) -> NDArray[np.generic]:
        flat: NDArray[np.generic] = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(queries, -1)

    return CandidateLists(
        query_row=table[QUERY_ROW].to_numpy().astype(np.int64),
        candidate_rows=matrix(CANDIDATE_ROWS).astype(np.int64),
        same_subject=matrix(SAME_SUBJECT).astype(np.bool_),
    )
