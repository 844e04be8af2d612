"""Vectors that were computed elsewhere, such as a foundation model's of notes, found by a key of the sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.errors import CohortError, ConfigError, SourceError
from symile_clin.modalities.base import (
    Arrays,
    ArraySpec,
    Choice,
    EncoderOptions,
    Reason,
    Refusal,
    RoomOptions,
    Row,
    Summary,
    Tables,
    refused,
)
from symile_clin.modalities.features import options as settings
from symile_clin.modalities.features.standard import Moments, fits, standardized
from symile_clin.modalities.features.vectors import Vectors, open_vectors, read_keys
from symile_clin.modalities.linked import INDEX_ROW, Linked, as_text
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows
from symile_clin.sources.tables import TableSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from torch import Tensor, nn


@final
class Features(Linked):
    """A vector per sample from a .npy or Parquet file."""

    room: ClassVar[str] = "features"
    Options: ClassVar[type[RoomOptions]] = settings.FeatureOptions
    Encoder: ClassVar[type[EncoderOptions]] = settings.EncoderSettings
    tables: ClassVar[tuple[TableSpec, ...]] = ()
    synthetic_factors: ClassVar[int] = 0
    options: settings.FeatureOptions

    @classmethod
    def completed(cls, name: str, options: RoomOptions) -> RoomOptions:
        """Width and type as the file has them.

        Raises:
            ConfigError: no such file or column, or another width than the options say.
            SourceError: the file holds no vectors.
        """
        assert isinstance(options, settings.FeatureOptions)
        vectors = _open(options)
        if options.width not in (None, vectors.width):
            raise ConfigError(
                f"'modalities.{name}.width' is {options.width}, and the vectors of {options.path} have {vectors.width}",
                remedy="Leave the key out",
            )
        kept = "float16" if vectors.dtype.itemsize == 2 else "float32"
        return options.model_copy(update={"width": vectors.width, "dtype": options.dtype or kept})

    @property
    def key(self) -> str:
        """As the options name it."""
        return self.options.key

    @property
    def paths(self) -> tuple[Path, ...]:
        """The vectors, and their keys where these are in a file of their own."""
        return tuple(Path(path) for path in (self.options.path, self.options.ids) if path is not None)

    @property
    def portable_options(self) -> RoomOptions:
        """Without the folders of `path` and `ids`."""
        ids = None if self.options.ids is None else Path(self.options.ids).name
        return self.options.model_copy(update={"path": Path(self.options.path).name, "ids": ids})

    @property
    def columns(self) -> Mapping[str, str]:
        """The key by which a sample has its vector, null where it has none."""
        return {self._key: "string"}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """One vector."""
        return (Choice("vector", self._key),)

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """`vector` (width,): standardised, or as in the file."""
        if self.options.width is None or self.options.dtype is None:
            raise ValueError("options of features are completed when their spec is read")
        dtype = "float32" if self.options.standardize else self.options.dtype
        return {"vector": ArraySpec(dtype, (self.options.width,), fitted=True)}

    @property
    def _key(self) -> str:
        return f"{self.name}_key"

    # --- cohort ---

    @cached_property
    def _keys(self) -> NDArray[np.object_]:
        """The key of each row of the file, as text."""
        count = _open(self.options).count
        if self.key == INDEX_ROW:
            return np.array([str(row) for row in range(count)], dtype=np.object_)
        path = Path(self.options.ids or self.options.path)
        keys = as_text(read_keys(path, self.options.id or self.key), what=f"the keys of {path}")
        if len(keys) != count:
            raise SourceError(f"{path} has {len(keys):,} keys for {count:,} vectors", expected="one for each, in order")
        return keys

    @cached_property
    def _rows(self) -> pd.DataFrame:
        keys = pd.Series(self._keys, dtype="string")
        twice = keys[keys.notna() & keys.duplicated()]
        if len(twice):
            raise SourceError(
                f"{self.options.ids or self.options.path} has {len(twice):,} rows more than it has "
                f"different values of {self.options.id or self.key}",
                expected="one vector for each",
                remedy="Keep one row, or their mean, for each; or use a key that tells them apart",
            )
        finite = np.concatenate([fits(chunk, self._stored).all(axis=1) for chunk in self._chunks()])
        return pd.DataFrame({"event_id": keys, "fault": np.where(finite, "", str(Reason.NAN))})

    def rows(self) -> pd.DataFrame:
        """Every vector's key, and whether all of it is numbers that can be stored; read once."""
        return self._rows

    def events(self, tables: Tables) -> ir.Table:
        """Every vector; without a key: not eligible. Neither a patient nor a time is known of it."""
        rows = self.rows()
        without = rows["event_id"].isna()
        return tables.rows(
            rows.assign(
                subject_id=pd.array([None] * len(rows), dtype="Int64"),
                event_time=np.full(len(rows), np.datetime64("NaT", "us")),
                key=np.int64(0),
                eligible=~without,
                ineligible_reason=pd.Series(f"no {self.key}", rows.index, dtype="string").where(without),
            )
        )

    def is_valid(self, row: Row, source: Path | None) -> Refusal | None:  # noqa: ARG002  part of the contract
        """A vector with NaN or infinity is refused."""
        return Refusal(Reason.NAN, "NaN, infinity, or too large to be stored") if row["fault"] else None

    def read(self, row: Row, source: Path) -> dict[str, NDArray[Any]] | Refusal:  # noqa: ARG002  part of the contract
        """Vectors are not read one by one, but by `write_arrays`."""
        return {}

    def collect(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """The key."""
        return chosen.set_index("sample_id")[["event_id"]].set_axis([self._key], axis="columns").astype("string")

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        """Mean and standard deviation of each number over the train samples; nothing if it is not standardised.

        Raises:
            CohortError: no train sample has a vector.
        """
        if not self.options.standardize:
            return {}
        moments = Moments(self.arrays["vector"].shape[0])
        places = self._places(train)
        of_row = np.bincount(places[places >= 0], minlength=len(self._keys))
        if not of_row.any():
            raise CohortError(
                f"no train sample has a vector of '{self.name}'",
                expected="at least one, to standardise by",
                remedy="Check its key, and its file for vectors with NaN, which count as absent",
            )
        first = 0
        for chunk in self._chunks():
            moments.add(chunk, of_row[first : first + len(chunk)])
            first += len(chunk)
        return moments.plain()

    def transform(
        self,
        samples: pd.DataFrame,
        state: Mapping[str, Any],  # noqa: ARG002  part of the contract
    ) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
        """Nothing: `write_arrays` makes the array."""
        return samples, {}

    def write_arrays(self, samples: pd.DataFrame, state: Mapping[str, Any], folder: Path) -> None:
        """Write `vector.npy` in one pass over the file, whatever the order of the samples."""
        spec = self.arrays["vector"]
        places = self._places(samples)
        order = np.argsort(places, kind="stable")
        ordered = places[order]
        path = folder / "vector.npy"
        target = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.dtype(spec.dtype), shape=(len(samples), *spec.shape)
        )
        with path.open("r+b") as file:  # a full disk would kill a process that writes to a map of what is not there yet
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        first = 0
        for chunk in self._chunks():
            low, high = np.searchsorted(ordered, [first, first + len(chunk)])
            values = chunk[ordered[low:high] - first]
            target[order[low:high]] = standardized(values, state) if self.options.standardize else values
            first += len(chunk)
        target.flush()

    def _places(self, samples: pd.DataFrame) -> NDArray[np.int64]:
        """(samples,) Row of each sample's vector in the file; −1 where it has none."""
        place_of = {key: place for place, key in enumerate(self._keys) if key is not None}
        chosen = samples[self._key].astype(object)
        return np.array([place_of.get(key, -1) for key in chosen], dtype=np.int64)

    def _chunks(self) -> Iterator[NDArray[Any]]:
        return _open(self.options).chunks()

    @property
    def _stored(self) -> np.dtype[Any]:
        return np.dtype(self.arrays["vector"].dtype)

    def placeholder(self) -> dict[str, NDArray[Any]]:
        """Zeros."""
        return {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.arrays.items()}

    def summaries(self, samples: pd.DataFrame) -> list[Summary]:
        """How many samples have a vector, and how many vectors that are."""
        keys = samples[self._key]
        values = {"numbers in a vector": float(self.arrays["vector"].shape[0]), "samples": float(keys.notna().sum())}
        return [Summary(f"{self.name}: vectors", {**values, "different vectors": float(keys.nunique())})]

    # --- synthetic patients: their vectors would be a model's, which is not ours to invent ---

    def write_synthetic(
        self,
        patient: SyntheticPatient,  # noqa: ARG002  part of the contract
        source: Path,  # noqa: ARG002
        rng: np.random.Generator,  # noqa: ARG002
        options: SyntheticOptions,  # noqa: ARG002
    ) -> TableRows:
        """Nothing."""
        return {}

    def synthetic_tables(self) -> TableRows:
        """None."""
        return {}

    # --- evaluation ---

    def read_query(self, path: Path, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """One vector: a .npy, or the numbers of a .csv without a header; standardised as those of the cohort."""
        from symile_clin.modalities.features.query_file import read_vector

        spec = self.arrays["vector"]
        values = read_vector(path, width=spec.shape[0])
        if not fits(values, self._stored).all():
            raise refused(path, Refusal(Reason.NAN, "NaN, infinity, or too large to be stored"))
        kept = standardized(values[None], state)[0] if self.options.standardize else values
        return {"vector": kept.astype(spec.dtype)}

    # --- training and pictures ---

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:  # noqa: ARG002  not augmented
        """(b, width) float32."""
        return arrays["vector"].float()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The vector's."""
        return self.arrays["vector"].shape

    def encoder(self, dim: int, options: EncoderOptions) -> nn.Module:
        """(b, width) to (b, dim)."""
        from symile_clin.modalities.features.encoder import build

        return build(dim, options, width=self.arrays["vector"].shape[0])

    def render(self, arrays: Arrays, row: Row) -> NDArray[np.uint8]:  # noqa: ARG002  part of the contract
        """A strip with a line for each number."""
        from symile_clin.modalities.features.strip import draw_strip

        return draw_strip(arrays["vector"])


def _open(options: settings.FeatureOptions) -> Vectors:
    return open_vectors(Path(options.path), key=options.id or options.key, column=options.column)
