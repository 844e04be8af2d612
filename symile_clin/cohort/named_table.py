"""An index table that the user names: read strictly, whatever it holds besides."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

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


def read_named(index: IndexSpec) -> pd.DataFrame:
    """Read an index table.

    Its columns are subject_id, the two that `index` names, and hadm_id if it has one; others are passed over.

    Returns:
        sample_id, subject_id, hadm_id (Int64), index_time; one row each, in the file's order.

    Raises:
        ConfigError: there is no such file.
        SourceError: it is not read as the table says, a row lacks its patient or its id, or an id is there twice.
    """
    path = named_path(index)
    if path is None or index.id is None:
        raise ValueError("this index is of no named table")
    numbers = path.suffix == ".parquet" and _is_integer(path, index.id)
    columns: dict[str, ColumnType] = {
        SUBJECT_ID: "int", index.id: "int" if numbers else "text", index.time: "time", HADM_ID: "int",
    }  # fmt: skip
    spec = TableSpec(
        name=NAME,
        source=NAME,
        path=path.name,
        columns=columns,
        key=(index.id,),
        optional=frozenset({HADM_ID} - {index.id}),
    )
    with tempfile.TemporaryDirectory() as folder:
        typed = Path(folder) / "index.parquet"
        convert(spec, path, typed)
        rows = pq.read_table(typed).to_pandas(integer_object_nulls=True)
    incomplete = int((rows[SUBJECT_ID].isna() | rows[index.id].isna() | (rows[index.id] == "")).sum())
    if incomplete:
        raise SourceError(f"{path} has {incomplete:,} rows without {SUBJECT_ID} or {index.id}", expected="both in each")
    found = pd.DataFrame(
        {
            SAMPLE_ID: rows[index.id].astype(str).astype(object),
            SUBJECT_ID: rows[SUBJECT_ID].astype("int64"),
            HADM_ID: pd.array(rows[HADM_ID].tolist(), dtype="Int64"),
            INDEX_TIME: rows[index.time].astype("datetime64[us]"),
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
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    return column in schema.names and pa.types.is_integer(schema.field(column).type)
