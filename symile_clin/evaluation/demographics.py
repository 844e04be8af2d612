"""A baseline that sees no examination: what sex, age band and view alone tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.strata import strata
from symile_clin.evaluation.scoring import QUERIES_PER_CHUNK, Table
from symile_clin.schema import AGE, AGE_BAND, GENDER

#: Its name where metrics name the query.
DEMOGRAPHICS: Final = "demographics"


def attributes(samples: pd.DataFrame, match_columns: Sequence[str]) -> tuple[str, ...]:
    """What the baseline sees: of sex, age band and the target's own `match_columns`, those that the cohort tells."""
    columns = {GENDER: GENDER, AGE_BAND: AGE, **{name: name for name in match_columns}}
    return tuple(name for name, column in columns.items() if column in samples and samples[column].notna().any())


def alike_tables(samples: pd.DataFrame, seen: Sequence[str]) -> tuple[Iterator[Table], NDArray[np.int64]]:
    """Scores of one who sees only these attributes of query and candidate: 1 if all are equal, otherwise 0.

    Args:
        samples: (n,) queries and candidates, in the order of the pool.
        seen: by `attributes`.

    Returns:
        As `Scorer.tables` and `Scorer.vector_of`, with groups of equal attributes in place of embeddings.
    """
    group = strata(samples, seen) if seen else np.zeros(len(samples), dtype=np.int64)
    groups = np.arange(int(group.max(initial=-1)) + 1)

    def tables() -> Iterator[Table]:
        for start in range(0, len(group), QUERIES_PER_CHUNK):
            chunk = np.arange(start, min(start + QUERIES_PER_CHUNK, len(group)))
            yield Table(chunk, groups, (group[chunk][:, None] == groups).astype(np.float64))

    return tables(), group
