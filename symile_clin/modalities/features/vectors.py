"""Vectors in a .npy or Parquet file, read a few megabytes at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from symile_clin.errors import ConfigError, SourceError
from symile_clin.strict import nearest

CHUNK_BYTES: Final = 16 << 20


class Vectors(ABC):
    """A file of vectors.

    Attributes:
        count: rows.
        width: numbers of each vector.
        dtype: of a number in the file.
    """

    count: int
    width: int
    dtype: np.dtype[Any]

    @abstractmethod
    def chunks(self) -> Iterator[NDArray[Any]]:
        """Every row in the file's order, some (b, width) at a time, in the file's type; NaN where one is null."""

    @property
    def step(self) -> int:
        """Rows of a chunk."""
        return max(CHUNK_BYTES // (self.width * self.dtype.itemsize), 1)


def open_vectors(path: Path, *, key: str | None, column: str | None) -> Vectors:
    """Look at a file of vectors; only its header and, for lists in Parquet, its first vector are read.

    Args:
        key: the file's column of keys, if it has one.
        column: of the vectors in a Parquet file; None finds it.

    Raises:
        ConfigError: no such file or column.
        SourceError: it is not what its name says, or holds something else than vectors.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}", expected="the vectors that 'path' names, from the working directory")
    found: Vectors = Npy(path) if path.suffix == ".npy" else Parquet(path, key=key, column=column)
    if not found.count or not found.width:
        raise SourceError(f"{path} holds no vectors", expected="at least one row of at least one number")
    return found


@final
class Npy(Vectors):
    """A .npy of shape (rows, width), mapped and never loaded whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        array = self._map()
        if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise SourceError(
                f"{path} holds {array.dtype} of shape {array.shape}",
                expected="float16, float32 or float64 of shape (rows, width)",
            )
        self.count, self.width = array.shape
        self.dtype = array.dtype.newbyteorder("=")

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Mapped and let go again, so that mapped pages do not pile up."""
        for start in range(0, self.count, self.step):
            array = self._map()
            if array.shape != (self.count, self.width):
                raise SourceError(f"{self._path} changed while it was read", remedy="Build again")
            yield np.array(array[start : start + self.step], dtype=self.dtype)

    def _map(self) -> NDArray[Any]:
        try:
            # unlike numpy.load it takes no archives and no pickles for a .npy
            array: NDArray[Any] = np.lib.format.open_memmap(self._path, mode="r")
        except (ValueError, EOFError, OSError, SyntaxError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(
                f"{self._path} is no whole .npy of numbers", remedy="Write it with numpy.save, without objects"
            ) from None
        return array


@final
class Parquet(Vectors):
    """A Parquet file: one column of lists, or a column for each number."""

    def __init__(self, path: Path, *, key: str | None, column: str | None) -> None:
        self._path = path
        with self._open() as file:
            schema, self.count = file.schema_arrow, file.metadata.num_rows
        self._columns = _columns(path, schema, key=key, column=column)
        kind = schema.field(self._columns[0]).type
        self._lists = _is_list(kind)
        self.dtype = np.dtype((kind.value_type if self._lists else kind).to_pandas_dtype())
        self.width = self._width_of_lists(kind) if self._lists else len(self._columns)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """As the contract says; a row group at a time is in memory, compressed."""
        first = 0
        for batch in self._batches(self.step):
            values = self._of_lists(batch.column(0), first) if self._lists else _of_columns(batch, self.dtype)
            first += len(values)
            yield values

    def _width_of_lists(self, kind: pa.DataType) -> int:
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for batch in self._batches(64):
            lengths = pc.list_value_length(batch.column(0)).drop_null()
            if len(lengths):
                return int(lengths[0].as_py())
        return 0

    def _of_lists(self, column: pa.Array, first: int) -> NDArray[Any]:
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.float64)
        odd = np.flatnonzero(~np.isnan(lengths) & (lengths != self.width))
        if len(odd):
            raise SourceError(
                f"{self._path}: row {first + odd[0]:,} of {self._columns[0]} has {lengths[odd[0]]:.0f} numbers",
                expected=f"{self.width}, as in its first row",
            )
        values = np.full((len(column), self.width), np.nan, dtype=self.dtype)
        flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
        values[~np.isnan(lengths)] = flat.reshape(-1, self.width)
        return values

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        try:
            with self._open() as file:
                yield from file.iter_batches(batch_size=rows, columns=self._columns)
        except pa.ArrowException as error:
            if "Expected all lists to be of size" in str(error):  # pyarrow writes such files, and does not read them
                raise SourceError(
                    f"{self._path} has a null in '{self._columns[0]}', a list of fixed size, which cannot be read",
                    remedy="Write it as a list of any length, where a null is a missing vector, or leave the row out",
                ) from None
            raise self._damaged() from None

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self._damaged() from None

    def _damaged(self) -> SourceError:
        return SourceError(f"{self._path} is no whole Parquet file", remedy="Write it again")


def _columns(path: Path, schema: pa.Schema, *, key: str | None, column: str | None) -> list[str]:
    """The columns that vectors are in."""
    lists = [field.name for field in schema if _is_list(field.type) and field.name != key]
    if column is not None:
        if column not in schema.names:
            raise ConfigError(f"{path} has no column '{column}'", remedy=nearest(column, schema.names).capitalize())
        if column not in lists:
            raise ConfigError(
                f"{path}: column '{column}' is {schema.field(column).type}", expected="lists of fractions"
            )
        return [column]
    if len(lists) > 1:
        raise ConfigError(f"{path} has vectors in {', '.join(lists)}", remedy="Say which with 'column'")
    numbers = [field.name for field in schema if pa.types.is_floating(field.type) and field.name != key]
    if not lists and not numbers:
        raise SourceError(
            f"{path} has no column of vectors", expected="one of lists of fractions, or one for each number"
        )
    if not lists and len({schema.field(name).type for name in numbers}) > 1:
        raise SourceError(f"{path} has fractions of several types", expected="one type for all numbers of a vector")
    return lists or numbers


def _is_list(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _of_columns(batch: pa.RecordBatch, dtype: np.dtype[Any]) -> NDArray[Any]:
    values = np.empty((batch.num_rows, batch.num_columns), dtype=dtype)
    for place, column in enumerate(batch.columns):
        values[:, place] = column.to_numpy(zero_copy_only=False)
    return values


def read_keys(path: Path, column: str) -> pd.Series:
    """Keys from a file: a one-dimensional .npy, or a column of a CSV or Parquet file.

    Raises:
        ConfigError: no such file or column.
        SourceError: it is not what its name says.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}", expected="the file of keys, from the working directory")
    try:
        if path.suffix == ".npy":
            return _keys_of_npy(path)
        csv = path.suffix == ".csv"
        names = [str(name) for name in (pd.read_csv(path, nrows=0).columns if csv else pq.read_schema(path).names)]
        if column not in names:
            remedy = f"{nearest(column, names).capitalize()} Name it with 'id'"
            raise ConfigError(f"{path} has no column '{column}'", remedy=remedy)
        keys: pd.Series = (
            pd.read_csv(path, usecols=[column], dtype=str, keep_default_na=False)[column]
            if csv
            else pq.read_table(path, columns=[column]).column(0).to_pandas(integer_object_nulls=True)
        )
    except (ValueError, EOFError, SyntaxError, pa.ArrowException) as error:
        what = f"{path} cannot be read: {type(error).__name__}"
        raise SourceError(what, expected="a whole .npy, CSV or Parquet file") from None
    return keys


def _keys_of_npy(path: Path) -> pd.Series:
    keys: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # no archive, as above
    if keys.ndim != 1 or keys.dtype.kind not in "iuU":
        what = f"{path} holds {keys.dtype} of shape {keys.shape}"
        raise SourceError(what, expected="a whole number or text in each row")
    return pd.Series(keys.tolist(), dtype=object)
