"""Embeddings as a file for other programs: Parquet, or NumPy's .npz without pickles. Patient-level."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from symile_clin import disk, files
from symile_clin.evaluation.embed import Embedded
from symile_clin.search.index import matrix_bytes, write_matrices

SUFFIXES: Final = (".parquet", ".npz")
#: Key of a Parquet file's metadata, and name of an .npz's array, that hold what was embedded by what, as JSON.
ABOUT: Final = "symile_clin"
ROWS_PER_GROUP: Final = 4096
#: At most, of a sample's other columns, and of a file's own description.
ROW_BYTES: Final = 64
LEAST_BYTES: Final = 32 << 10


def write_embeddings(
    path: Path, *, samples: pd.DataFrame, batches: Iterable[Embedded], names: list[str], about: Mapping[str, Any]
) -> None:
    """Write samples' embeddings, a batch in memory at a time.

    Args:
        path: `.parquet`: for each modality a column of its name, lists of `dim` float32. `.npz`: an array (n, dim) of
            its name. NaN where a sample lacks the modality, which `<name>_present` says, too.
        samples: their other columns, in order: row, split, `<name>_present`, and ids if they are wanted; in an .npz a
            null id is -1.
        batches: of these samples, in order.
        about: JSON-able; has `dim`.

    Raises:
        TrainingError: an embedding is not finite.
        DiskError: no room, or another refusal of the disk.
    """
    shape = (len(samples), int(about["dim"]))
    # as matrices first, then, beside them, as one file
    needed = 2 * matrix_bytes(names, *shape) + ROW_BYTES * len(samples) + LEAST_BYTES
    disk.require_space(path, needed, what="the embeddings and a copy of them")
    with ExitStack() as stack:
        with disk.writing(path, needed=needed):
            # the matrices go before the file gets its name: there is no next time that would take them away
            temporary, folder = stack.enter_context(files.atomic(path)), stack.enter_context(files.scratch(path))
        stack.enter_context(disk.writing(path, temporary=folder, needed=needed))
        write_matrices(folder, names, batches, shape=shape)
        matrices = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        if path.suffix == ".npz":
            _write_npz(temporary, samples, matrices, about)
        else:
            _write_parquet(temporary, samples, matrices, about)
        temporary.chmod(0o600)


def _write_parquet(
    path: Path, samples: pd.DataFrame, matrices: Mapping[str, NDArray[np.float32]], about: Mapping[str, Any]
) -> None:
    table = pa.Table.from_pandas(samples, preserve_index=False).replace_schema_metadata()
    kind = pa.list_(pa.float32(), int(about["dim"]))
    schema = pa.schema([*table.schema, *(pa.field(name, kind, nullable=False) for name in matrices)])
    with pq.ParquetWriter(path, schema.with_metadata({ABOUT: json.dumps(about)})) as writer:
        for start in range(0, max(len(samples), 1), ROWS_PER_GROUP):
            part = table.slice(start, ROWS_PER_GROUP)
            flat = [pa.array(matrix[start : start + ROWS_PER_GROUP].ravel()) for matrix in matrices.values()]
            vectors = [pa.FixedSizeListArray.from_arrays(values, type=kind) for values in flat]
            columns = [column.combine_chunks() for column in part.columns]
            writer.write_table(pa.Table.from_arrays([*columns, *vectors], schema=writer.schema))


def _write_npz(
    path: Path, samples: pd.DataFrame, matrices: Mapping[str, NDArray[np.float32]], about: Mapping[str, Any]
) -> None:
    columns = {str(name): _plain(column) for name, column in samples.items()}
    with path.open("wb") as file:  # a name would get an ending
        np.savez(file, allow_pickle=False, **columns, **matrices, **{ABOUT: np.array(json.dumps(about))})


def _plain(column: pd.Series[Any]) -> NDArray[Any]:
    if pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=np.bool_)
    if pd.api.types.is_numeric_dtype(column):
        return column.fillna(-1).to_numpy(dtype=np.int64)
    return column.to_numpy(dtype=np.str_)
