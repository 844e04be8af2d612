"""The contract of a room's place in the published Symile-MIMIC release: its columns, its arrays, and the way between.

The release has one block of columns and a few arrays for each of its modalities, under names of its own. They live in
the rooms; what the release is as a whole (tables, splits, candidate lists) lives in `data`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.base import Arrays, Modality

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ReleasedArray:
    """One array of the release, kept for each split.

    Attributes:
        dtype: numpy name.
        shape: of one sample; None where any length will do.
        serves_as: the room's array that it can stand for as it lies on disk; None if it is converted.
    """

    dtype: str
    shape: tuple[int | None, ...]
    serves_as: str | None = None


#: How the release's tables write times.
TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


def read_times(column: pd.Series[Any]) -> pd.Series[Any]:
    """Times of a table, whether its reader has understood them already or not.

    Raises:
        ValueError: one that is none.
    """
    import pandas as pd

    return pd.to_datetime(column, format=TIME_FORMAT).astype("datetime64[us]")


class ReleasedForm(ABC):
    """How one modality's samples look in the release's files.

    Args:
        modality: of the cohort that is read from the release, or written as one.
    """

    room: ClassVar[str]
    #: By the name that their files start with.
    arrays: ClassVar[Mapping[str, ReleasedArray]]
    #: JSON files that the room has in the release's root.
    documents: ClassVar[tuple[str, ...]] = ()
    #: What the room's arrays have behind them in the release, in words.
    done: ClassVar[str]
    #: The room's encoder in the released checkpoint, as a config names it.
    encoder: ClassVar[Mapping[str, Any]]
    #: What the names of its weights start with there.
    encoder_prefix: ClassVar[str]
    #: After that, what they start with there -> what they start with in the room's encoder.
    encoder_names: ClassVar[Mapping[str, str]]

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    # --- in ---

    @classmethod
    @abstractmethod
    def options(cls, *, shapes: Mapping[str, tuple[int, ...]], documents: Mapping[str, Any]) -> dict[str, Any]:
        """The room's spec keys that describe the release.

        Args:
            shapes: of one sample, by array.

        Raises:
            SourceError: shapes or documents that cannot be the release's.
        """

    @abstractmethod
    def needed(self) -> tuple[str, ...]:
        """Columns of the release's tables that `columns` reads."""

    @abstractmethod
    def columns(self, table: pd.DataFrame) -> pd.DataFrame:
        """The modality's columns of samples.parquet, from the release's tables; row by row."""

    def convert(self, arrays: Arrays, table: pd.DataFrame) -> dict[str, NDArray[Any]]:  # noqa: ARG002  where none is
        """The modality's arrays that no released one can stand for; none unless the room says so.

        Args:
            arrays: the released ones that do not serve as they are, rows as in `table`.

        Raises:
            MismatchError: arrays and table contradict each other.
        """
        return {}

    # --- out ---

    @abstractmethod
    def table(self, samples: pd.DataFrame) -> pd.DataFrame:
        """The room's block of symile_mimic_data.csv, in its order; what samples.parquet does not hold is empty."""

    @abstractmethod
    def kept(self) -> tuple[str, ...]:
        """Columns of `table` that the tables of splits keep."""

    def added(self, samples: pd.DataFrame) -> pd.DataFrame:
        """Columns that only the tables of splits have; none unless the room says so."""
        return samples[[]]

    def write_documents(self, train: pd.DataFrame) -> dict[str, Any]:  # noqa: ARG002  where none is
        """Contents of `documents`."""
        return {}

    def unlike_published(self) -> str | None:
        """A sentence where the cohort's options make the arrays others than the published ones; None where equal."""
        return None

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample, by released array."""

    @abstractmethod
    def write_arrays(self, arrays: Arrays, draws: NDArray[np.float64] | None) -> Arrays:
        """Stored arrays of some samples as the release has them.

        Args:
            arrays: the modality's, and its `input_columns`.
            draws: of the augmentation that the release froze in train, as `Modality.to_input` takes them; None
                elsewhere.
        """


def frozen_input(modality: Modality, arrays: Arrays, draws: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """The encoder's input of stored arrays, for a file."""
    import torch

    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    found: NDArray[np.float32] = modality.to_input(tensors, None if draws is None else torch.from_numpy(draws)).numpy()
    return found
