"""Where the truth stood, query by query, for every way of asking: the file that all later questions are answered from.

Comparisons of runs, subgroups and pictures of ranks read it instead of scoring again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.schema import QUERY_ROW

#: What a query is ranked against: its fixed list; the one without other samples of its patient; one of negatives alike
#: in sex, age band and view; the whole split; the whole split without other samples of its patient.
ListProtocol = Literal["candidates", "candidates_other_subjects", "matched", "gallery", "gallery_other_subjects"]
PROTOCOLS: Final[tuple[ListProtocol, ...]] = get_args(ListProtocol)

#: Key of evaluation.json: digests of the files beside it that comparisons read.
DIGESTS: Final = "sha256"
_COLUMNS: Final = ("target", "protocol", "query", QUERY_ROW, "patient", "n_greater", "n_tied", "n_candidates")


@dataclass(frozen=True)
class Ranked:
    """One way of asking, and where each query's positive stood.

    Attributes:
        target: modality that was retrieved.
        query: what it was asked for with, in alphabetical order: modality names, or the baseline's own name.
        query_row: (q,) int64 sample rows, ascending.
        patient: (q,) int64, equal for queries of one patient; numbers of this file, not ids.
        n_candidates: (q,) int64 length of each list, the positive included.
    """

    target: str
    protocol: ListProtocol
    query: tuple[str, ...]
    query_row: NDArray[np.int64]
    patient: NDArray[np.int64]
    ranks: Ranks
    n_candidates: NDArray[np.int64]


def write_ranked(path: Path, found: Sequence[Ranked]) -> None:
    """Write ranks.parquet, a line for every query of every way of asking."""
    lines = [
        pd.DataFrame(
            {
                "target": one.target,
                "protocol": one.protocol,
                "query": "+".join(one.query),
                QUERY_ROW: one.query_row,
                "patient": one.patient,
                "n_greater": one.ranks.n_greater,
                "n_tied": one.ranks.n_tied,
                "n_candidates": one.n_candidates,
            }
        )
        for one in found
    ]
    with files.atomic(path) as temporary:
        pd.concat(lines, ignore_index=True).to_parquet(temporary, index=False)


def read_ranked(path: Path) -> list[Ranked]:
    """Read ranks.parquet, in the order in which it was written.

    Raises:
        ValueError, OSError: the file is damaged.
    """
    table = pd.read_parquet(path, columns=list(_COLUMNS))

    def numbers(lines: pd.DataFrame, column: str) -> NDArray[np.int64]:
        found: NDArray[Any] = lines[column].to_numpy(dtype=np.int64, copy=True)
        return found

    return [
        Ranked(
            target=str(target),
            protocol=cast(ListProtocol, protocol),
            query=tuple(str(query).split("+")),
            query_row=numbers(lines, QUERY_ROW),
            patient=numbers(lines, "patient"),
            ranks=Ranks(n_greater=numbers(lines, "n_greater"), n_tied=numbers(lines, "n_tied")),
            n_candidates=numbers(lines, "n_candidates"),
        )
        for (target, protocol, query), lines in table.groupby(["target", "protocol", "query"], sort=False)
    ]
