"""Modalities whose events belong to samples by a key, such as vectors that were computed elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.errors import SourceError
from symile_clin.modalities.base import Modality, RoomOptions

#: The key that is no column: the place of a sample in the index table that the user names, from 0.
INDEX_ROW: Final = "index_row"


class Linked(Modality):
    """A modality that a sample has if a key of it is there, whatever the time: its spec has no window.

    Its arrays are made once the splits are drawn (`ArraySpec.fitted`), by `write_arrays` instead of `transform`, so
    that they never have to fit in memory.
    """

    @classmethod
    @abstractmethod
    def completed(cls, name: str, options: RoomOptions) -> RoomOptions:
        """Options with what only the files that they name can tell, such as a width, filled in.

        Raises:
            ConfigError: a file is not there, or the options do not fit it.
            SourceError: a file is not what its name says.
        """

    @property
    @abstractmethod
    def key(self) -> str:
        """The column of samples, of another modality or of the index table by which a sample finds its event."""

    @property
    @abstractmethod
    def paths(self) -> tuple[Path, ...]:
        """The files that the options name; a relative one starts at the working directory."""

    @property
    @abstractmethod
    def portable_options(self) -> RoomOptions:
        """The same options, but files by their names alone: no folder of this machine, for what is shared."""

    @abstractmethod
    def rows(self) -> pd.DataFrame:
        """The events in the order of their file.

        Returns:
            event_id, the key's value as text, null where there is none; fault, why the event cannot be used, empty
            where it can.

        Raises:
            SourceError: a key is there twice, or a file is not what it was.
        """

    @abstractmethod
    def write_arrays(self, samples: pd.DataFrame, state: Mapping[str, Any], folder: Path) -> None:
        """Write `<array>.npy` for every array, one row for each sample in their order, zeros where it is absent."""


def as_text(values: pd.Series, *, what: str) -> NDArray[np.object_]:
    """Keys as text, so that 7, 7.0 beside nulls and "7" are the same; None where there is none.

    Args:
        what: whose values these are, for an error.

    Raises:
        SourceError: they are neither whole numbers nor text.
    """
    found = np.full(len(values), None, dtype=np.object_)
    here = values.notna().to_numpy()
    some = values[here]
    if pd.api.types.is_bool_dtype(some) or pd.api.types.is_datetime64_any_dtype(some):
        raise SourceError(f"{what} are {values.dtype}", expected="whole numbers or text")
    if pd.api.types.is_float_dtype(some):
        if not (some == some.round()).all() or (some.abs() >= 2**53).any():
            raise SourceError(f"{what} are no whole numbers", expected="whole numbers or text")
        some = some.astype("int64")
    if not all(isinstance(value, str | int | np.integer) for value in some.array):
        raise SourceError(f"{what} are {values.dtype}", expected="whole numbers or text")
    found[here] = [str(value) for value in some.array]
    found[found == ""] = None
    return found
