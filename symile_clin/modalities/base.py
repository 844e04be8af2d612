"""The contract of a modality room, and the small types that cross its door.

A modality is an instance: it has a name in its cohort (the prefix of its columns) and its options.
Importing a room must stay cheap: torch is imported inside `to_input` and `encoder`, ibis nowhere
(expressions come from the catalog's tables).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import ConfigError, SourceError
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows
from symile_clin.sources.tables import TableSpec
from symile_clin.strict import Strict

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    from torch import Tensor, nn

    from symile_clin.modalities.attribution import ByLayer, ByOcclusion

Arrays = Mapping[str, NDArray[Any]]
Row = Mapping[str, Any]


class Reason(StrEnum):
    """Why a file or event was refused; the `reason` column of quarantine.parquet and events.csv."""

    MISSING = "file missing"
    UNREADABLE = "not readable"
    OUTSIDE = "path outside the source"
    TRUNCATED = "truncated"
    UNDECODABLE = "not decodable"
    DIED = "its reader died"
    WRONG_FORMAT = "wrong format"
    TOO_LARGE = "too large"
    ALL_ZERO = "all zero"
    NAN = "missing values"
    CONSTANT = "constant"
    CHECKSUM = "checksum differs"
    MIXED_UP = "belongs to another"
    UNLABELLED = "no label"


@dataclass(frozen=True)
class Refusal:
    """A typed no.

    Attributes:
        reason: why.
        detail: one line for a person; no path, no id.
        then: "next" tries the next event in the window, "drop" drops the sample.
    """

    reason: Reason
    detail: str = ""
    then: Literal["next", "drop"] = "next"


def refused(path: Path, refusal: Refusal) -> SourceError:
    """The error of a file that the user named and a room refuses."""
    detail = f" ({refusal.detail})" if refusal.detail else ""
    return SourceError(f"{path}: {refusal.reason}{detail}")


@dataclass(frozen=True)
class ArraySpec:
    """Type and shape of one stored array, without the leading sample axis.

    Attributes:
        dtype: numpy name, e.g. "uint8".
        shape: of one sample.
        fitted: true if the array needs the fitted state (made after the splits), false if it comes from `read`.
    """

    dtype: str
    shape: tuple[int, ...]
    fitted: bool = False


@dataclass(frozen=True)
class Choice:
    """How samples.parquet shows which event a sample takes, so that two cohorts can be compared.

    Attributes:
        label: for a person: of what there is one per sample.
        column: equal values mean the same event, or the same value where events have no column.
        time: column of the event's time; None where it is not kept.
    """

    label: str
    column: str
    time: str | None = None


@dataclass(frozen=True)
class Recordings:
    """What tells one patient's recordings from another's, so that none is in two splits unseen.

    Attributes:
        ids: columns of samples.parquet, by what they number ("study"): two patients never share a value.
        arrays: stored values that two recordings never share.
        but: why equal recordings may be stored as other values, as a clause; empty where they may not.
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    arrays: tuple[str, ...] = ()
    but: str = ""


@dataclass(frozen=True)
class Summary:
    """One small table about a modality for `cohort describe`: label -> value (counts or fractions)."""

    title: str
    values: Mapping[str, float]


class Tables(Protocol):
    """What `events` is given: checked tables as expressions, by `TableSpec.name`."""

    def table(self, name: str) -> ir.Table:
        """The table's used columns, typed; absent optional ones are null."""

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame as a table."""


class RoomOptions(Strict):
    """Base of a room's spec keys."""


#: Whose arrays a modality's are: made by a build, or a release's that was imported as it lies.
Stored = Literal["own", "released"]


def refuse_released(name: str, stored: Stored) -> None:
    """Only an import may say that arrays are a release's: a build makes its own.

    Raises:
        ConfigError: a spec says so.
    """
    if stored == "released":
        raise ConfigError(
            f"'modalities.{name}.stored: released' is for cohorts of `cohort import`", remedy="Leave the key out"
        )


class EncoderOptions(Strict):
    """Base of a room's encoder settings in a training config; `arch` is fixed by each room as a Literal.

    A room whose encoders can start from other weights calls these fields `pretrained` and `weights`.
    """

    def blank(self) -> Self:
        """The same architecture without weights to start from: a checkpoint fills it, and nothing is downloaded."""
        start = {"pretrained": "none", "weights": None}
        return self.model_copy(update={key: value for key, value in start.items() if key in type(self).model_fields})


class Modality(ABC):
    """A modality of a cohort: its events, files, arrays, tensors, encoder and pictures.

    Args:
        name: prefix of its columns and key of its tensors; the room's own name by default.
        options: validated options of the cohort spec.
    """

    room: ClassVar[str]
    Options: ClassVar[type[RoomOptions]]
    Encoder: ClassVar[type[EncoderOptions]]
    #: Tables the room reads, and so the tables its synthetic writer fills.
    tables: ClassVar[tuple[TableSpec, ...]]
    #: Tables that only its synthetic writer fills, such as lists of files that cohorts do not read.
    synthetic_only: ClassVar[tuple[TableSpec, ...]] = ()
    #: Sources that can hold the room's files instead, and the option that says so.
    other_files: ClassVar[Mapping[str, str]] = {}
    #: How many planted factors the room's synthetic files can show.
    synthetic_factors: ClassVar[int]
    #: False: one event per sample. True: one event per sample and key (labs: itemid).
    keyed: ClassVar[bool] = False
    #: After a file that is there and cannot be used: the "next" event in the window is tried, or the sample dropped.
    after_unreadable: ClassVar[Literal["next", "drop"]] = "next"

    def __init__(self, name: str, options: RoomOptions) -> None:
        self.name = name
        self.options = options

    # --- cohort: tables and files, no torch ---

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, str]:
        """Columns the modality adds to samples.parquet, in order: name -> pandas dtype."""

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """What a sample takes of the modality: one event, or one for each key."""

    @property
    @abstractmethod
    def arrays(self) -> Mapping[str, ArraySpec]:
        """Arrays stored for the modality, by file stem."""

    @property
    def reads_from(self) -> str | None:
        """The source that holds the events' files; None if there are none, and then `is_valid` is not asked."""
        return None

    def files(self, row: Row) -> tuple[str, ...]:  # noqa: ARG002  a room without files has none
        """Files behind an event, relative to the root of `reads_from`."""
        return ()

    @property
    def match_columns(self) -> tuple[str, ...]:
        """Columns in which a matched negative of this modality equals the positive, such as an image's view."""
        return ()

    @property
    def recordings(self) -> Recordings:
        """Nothing, where equal values of two patients are no surprise: measured numbers, or vectors made elsewhere."""
        return Recordings()

    @abstractmethod
    def events(self, tables: Tables) -> ir.Table:
        """Events with columns subject_id, event_time, event_id, key and payload columns.

        A room with files has a payload column `path`, relative to the root of `reads_from`.

        Every event of the table that could ever be taken; a boolean column `eligible` is false, and a text column
        `ineligible_reason` says why, for events that no window may take (wrong view, null value).
        """

    @abstractmethod
    def is_valid(self, row: Row, source: Path | None) -> Refusal | None:
        """Whether a chosen event may be used; asked lazily, in the order of the window's ranks.

        Args:
            row: the event's columns.
            source: root directory of `reads_from`; None where files are out of reach, and only the row can speak.
        """

    @abstractmethod
    def read(self, row: Row, source: Path) -> dict[str, NDArray[Any]] | Refusal:
        """The event's arrays that need no fitted state (empty where there are none), or a typed refusal.

        Also may add scalar columns: a key of `columns` with a 0-d array is written to samples.parquet.
        """

    @abstractmethod
    def collect(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Turn chosen events (one row per sample, or per sample and key) into `columns`, indexed by sample_id."""

    @abstractmethod
    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        """JSON-able state fitted on train samples only (empty where there is none)."""

    @abstractmethod
    def transform(
        self, samples: pd.DataFrame, state: Mapping[str, Any]
    ) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
        """Fill the columns and make the arrays that need the state, for samples in row order."""

    @abstractmethod
    def placeholder(self) -> dict[str, NDArray[Any]]:
        """Array rows of a sample in which the modality is absent (zeros)."""

    @abstractmethod
    def summaries(self, samples: pd.DataFrame) -> list[Summary]:
        """What `cohort describe` tells about the modality."""

    @abstractmethod
    def write_synthetic(
        self, patient: SyntheticPatient, source: Path, rng: np.random.Generator, options: SyntheticOptions
    ) -> TableRows:
        """Write one synthetic patient's files under `source`; return the rows of the room's tables."""

    @abstractmethod
    def synthetic_tables(self) -> TableRows:
        """Rows that do not depend on patients, such as dictionaries."""

    # --- evaluation: what is known of samples beside their arrays; all optional ---

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        """Findings that probes may predict, (n, findings) float64 in the order of `samples`: 1 there, 0 not there, −1
        uncertain, NaN not mentioned. No column where the modality has none, or the cohort was built without them.
        """
        return samples.iloc[:, :0]

    def groups(self, samples: pd.DataFrame) -> dict[str, pd.Series[Any]]:  # noqa: ARG002  a room without groups
        """Groups that metrics are shown by: title -> (n,) group of each sample as text, null for none."""
        return {}

    def table(self, row: Row) -> pd.DataFrame | None:  # noqa: ARG002  a room whose picture says it all
        """One sample's values as a small table for reports; None where `render`'s picture says it all.

        A column `flag`, if there is one, says in words what is unusual about a line; it is empty where nothing is.
        """
        return None

    def observed(self, samples: pd.DataFrame) -> pd.DataFrame:
        """Which of its parts each sample has, where a modality has parts (labs: items): (n, parts) bool, a column for
        each part, called as a person does; the columns' name is that of one part. No column where there are no parts.
        """
        return samples.iloc[:, :0]

    def read_query(self, path: Path, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """One file that is no cohort's, as the arrays of one sample, and the columns that `to_input` and `render` need.

        The file of a sample gives that sample's arrays to the bit.

        Args:
            state: what the modality fitted on train, of the cohort that the model was trained on.

        Raises:
            ConfigError: this modality cannot be asked with by a file.
            SourceError: the file is missing, or refused by the same rules as a cohort's.
        """
        raise ConfigError(f"{self.name} cannot be read from a file", remedy="Ask with a sample of the cohort")

    # --- training and pictures: torch and matplotlib inside the call ---

    @abstractmethod
    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:
        """Stored arrays of a batch (b, ...) to the encoder's float32 input (b, ...), on the arrays' device.

        Args:
            arrays: by name, in their stored types; `input_columns` come under their column name, each (b,).
            draws: (b, augmentation_draws) float64, uniform in [0, 1), of augmentation, which happens here and nowhere
                else; None in evaluation.
        """

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample in `to_input`'s tensor; a checkpoint fits wherever it is the same."""

    @property
    def augmentation_draws(self) -> int:
        """Random numbers that augmenting one sample takes; 0 for a modality that is not augmented."""
        return 0

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Numeric sample columns that `to_input` needs beside the arrays."""
        return ()

    @abstractmethod
    def encoder(self, dim: int, options: EncoderOptions) -> nn.Module:
        """A module from `to_input`'s tensor to (b, dim), without final normalisation.

        Raises:
            ConfigError: pretrained weights that cannot be had.
        """

    @abstractmethod
    def render(self, arrays: Arrays, row: Row) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of one sample's stored arrays, for galleries."""

    @property
    def attribution(self) -> ByLayer | ByOcclusion | None:
        """How a score is traced back to a sample's input; None where there is nothing to be shown."""
        return None
