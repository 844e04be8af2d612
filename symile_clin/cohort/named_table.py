"""An index table that the user names: read strictly, whatever it holds besides."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from symile_clin.cohort.spec import IndexSpec
from symile_clin.errors import ConfigError, SourceError
from symile_clin.schema import HADM_ID, INDEX_TIME, SAMPLE_ID, SUBJECT_ID
from symile_clin.sources.convert import convert
from symile_clin.sources.tables import ColumnType, TableSpec

#: In messages, and of the table's specification.
NAME: Final = "index table"
SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")


def named_path(index: IndexSpec) -> Path | None:
    """The file of an index table that the user names; None where MIMIC's own tables make the samples.

    Raises:
        ConfigError: there is no such file, or it is of another kind.
    """
    if index.path is None:
        return None
    path = Path(index.path)
    if not path.is_file():
        raise ConfigError(f"no file {path}", expected="the table that 'index.path' names, from the working directory")
    if not path.name.endswith(SUFFIXES):
        raise ConfigError(f"{path} is named as no table", expected=f"a file ending in {', '.join(SUFFIXES)}")
    return path


def read_named(index: IndexSpec, *, further: Sequence[str] = ()) -> pd.DataFrame:
    """Read an index table.

    Its columns are subject_id, those that `index` names, and hadm_id if it has one; others are passed over. A table
    without times stands alone, and may do without subject_id: each sample is then its own subject.

    Args:
        further: columns beside these that are read, as text or whole numbers.

    Returns:
        sample_id, subject_id, hadm_id (Int64), index_time, and `further`; one row each, in the file's order.

    Raises:
        ConfigError: there is no such file.
        SourceError: it is not read as the table says, a row lacks its patient or its id, or an id is there twice.
    """
    path = named_path(index)
    if path is None or index.id is None:
        raise ValueError("this index is of no named table")
    alone = index.time is None
    columns: dict[str, ColumnType] = {SUBJECT_ID: "int", HADM_ID: "int"}
    columns |= {name: "int" if _is_integer(path, name) else "text" for name in (index.id, *further)}
    if index.time is not None:
        columns[index.time] = "time"
    spec = TableSpec(
        name=NAME,
        source=NAME,
        path=path.name,
        columns=columns,
        key=(index.id,),
        optional=frozenset({HADM_ID, *([SUBJECT_ID] if alone else [])} - {index.id, *further}),
    )
    with tempfile.TemporaryDirectory() as folder:
        typed = Path(folder) / "index.parquet"
        convert(spec, path, typed)
        rows = pq.read_table(typed).to_pandas(integer_object_nulls=True)
    if alone and rows[SUBJECT_ID].isna().all():
        rows[SUBJECT_ID] = np.arange(1, len(rows) + 1)
    incomplete = int((rows[SUBJECT_ID].isna() | rows[index.id].isna() | (rows[index.id] == "")).sum())
    if incomplete:
        raise SourceError(f"{path} has {incomplete:,} rows without {SUBJECT_ID} or {index.id}", expected="both in each")
    found = pd.DataFrame(
        {
            SAMPLE_ID: rows[index.id].astype(str).astype(object),
            SUBJECT_ID: rows[SUBJECT_ID].astype("int64"),
            HADM_ID: pd.array(rows[HADM_ID].tolist(), dtype="Int64"),
            INDEX_TIME: pd.Series(pd.NaT if alone else rows[index.time], index=rows.index).astype("datetime64[us]"),
            **{name: rows[name] for name in further},
        }
    )
    if found[SAMPLE_ID].duplicated().any():
        raise SourceError(
            f"{path} has {len(found):,} rows but {found[SAMPLE_ID].nunique():,} values of {index.id}",
            expected="one row each",
        )
    return found


def _is_integer(path: Path, column: str) -> bool:
    """Whether a Parquet file keeps a column as integers; what else is wrong with it shows when it is read."""
    if path.suffix != ".parquet":
        return False
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    return column in schema.names and pa.types.is_integer(schema.field(column).type)
