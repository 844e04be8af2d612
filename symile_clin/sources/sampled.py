"""Some rows of the tables behind an engine in memory: rooms make events of them, as they do of whole tables."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, final

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    import ibis.expr.types as ir

_PANDAS_TYPES: Final = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype()}


@final
class SampledTables(AbstractContextManager["SampledTables"]):
    """What `Modality.events` is given, over rows that are in memory. Nothing is written.

    Args:
        samples: typed rows by table name.
    """

    def __init__(self, samples: Mapping[str, pa.Table]) -> None:
        self._samples = samples
        self._engine = ibis.duckdb.connect(
            threads=1, autoinstall_known_extensions=False, autoload_known_extensions=False, temp_directory=""
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.disconnect()

    def table(self, name: str) -> ir.Table:
        """The rows of a table."""
        return ibis.memtable(self._samples[name])

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame as a table."""
        return ibis.memtable(pa.Table.from_pandas(frame, preserve_index=False))

    def eligible(self, events: ir.Table) -> list[dict[str, Any]]:
        """Events that a window may take, as rooms take them: one mapping of column to value each."""
        answer: pa.Table = self._engine.to_pyarrow(events.filter(events.eligible).order_by("event_id"))
        rows: list[Any] = answer.to_pandas(types_mapper=_PANDAS_TYPES.get).to_dict("records")
        return rows


def thin(sample: pa.Table, rows: int, *, seed: int) -> pa.Table:
    """At most `rows` of a table's rows, drawn from all over it."""
    if sample.num_rows <= rows:
        return sample
    chosen = np.random.default_rng(seed).choice(sample.num_rows, rows, replace=False)
    return sample.take(pa.array(np.sort(chosen)))
