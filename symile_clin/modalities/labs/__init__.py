"""Laboratory values of MIMIC-IV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from symile_clin.errors import CohortError
from symile_clin.modalities.base import (
    Arrays,
    ArraySpec,
    Choice,
    EncoderOptions,
    Modality,
    Refusal,
    RoomOptions,
    Row,
    Summary,
    Tables,
)
from symile_clin.modalities.labs import encoder_options, synthetic
from symile_clin.modalities.labs.items import SYMILE_ITEMS
from symile_clin.modalities.labs.preprocess import Ecdf
from symile_clin.modalities.labs.tables import D_LABITEMS, LABEVENTS
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows
from symile_clin.sources.tables import TableSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    from torch import Tensor, nn

    from symile_clin.modalities.attribution import ByOcclusion


#: Items in one band of how many were measured.
BAND_ITEMS: Final = 10
#: itemid -> label, of the items whose labels are known without the source.
LABELS: Final[Mapping[int, str]] = {item.itemid: item.title for item in SYMILE_ITEMS}


def _parse_items(value: object) -> Literal["symile"] | tuple[int, ...]:
    if value == "symile":
        return "symile"
    if not isinstance(value, list | tuple) or not value or not all(type(item) is int and item > 0 for item in value):
        raise ValueError("not a panel; write symile, or a list of itemids such as [50912, 50931]")
    if len(set(value)) < len(value):
        raise ValueError("an itemid is repeated")
    return tuple(value)


class LabOptions(RoomOptions):
    """Keys of a lab modality in a cohort spec.

    Attributes:
        items: "symile" for the paper's 50, or itemids of d_labitems.
    """

    items: Annotated[Literal["symile"] | tuple[int, ...], BeforeValidator(_parse_items)] = "symile"


@final
class Labs(Modality):
    """The values of a panel per sample: percentiles of the train split, and which were observed."""

    room: ClassVar[str] = "labs"
    Options: ClassVar[type[RoomOptions]] = LabOptions
    Encoder: ClassVar[type[EncoderOptions]] = encoder_options.Options
    tables: ClassVar[tuple[TableSpec, ...]] = (LABEVENTS,)
    synthetic_only: ClassVar[tuple[TableSpec, ...]] = (D_LABITEMS,)
    synthetic_factors: ClassVar[int] = synthetic.FACTORS
    keyed: ClassVar[bool] = True
    options: LabOptions

    @property
    def items(self) -> tuple[int, ...]:
        """Itemids in the order of the arrays' columns: the published one, of the *strings* `<itemid>_percentile`."""
        chosen = tuple(LABELS) if self.options.items == "symile" else self.options.items
        return tuple(sorted(chosen, key=lambda itemid: f"{itemid}_percentile"))

    @property
    def columns(self) -> Mapping[str, str]:
        """Raw value and percentile of each item, null where it was not measured."""
        values = {self._value(itemid): "float64" for itemid in self.items}
        return values | {self._percentile(itemid): "float64" for itemid in self.items}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The value of each item."""
        return tuple(Choice(str(itemid), self._value(itemid)) for itemid in self.items)

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """`percentile` (items) in [0, 1], missing ones at the item's mean in train; `observed` (items)."""
        shape = (len(self.items),)
        return {
            "percentile": ArraySpec("float32", shape, fitted=True),
            "observed": ArraySpec("bool", shape, fitted=True),
        }

    def _value(self, itemid: int) -> str:
        return f"lab_{itemid}" if self.name == self.room else f"{self.name}_{itemid}"

    def _percentile(self, itemid: int) -> str:
        return f"{self._value(itemid)}_percentile"

    # --- cohort ---

    def events(self, tables: Tables) -> ir.Table:
        """Every lab event; of another item or without a number: not eligible."""
        from symile_clin.modalities.labs.events import lab_events

        return lab_events(tables.table(LABEVENTS.name), items=self.items)

    def is_valid(self, row: Row, source: Path | None) -> Refusal | None:  # noqa: ARG002  part of the contract
        """There is no file to refuse."""
        return None

    def read(self, row: Row, source: Path) -> dict[str, NDArray[Any]] | Refusal:  # noqa: ARG002  part of the contract
        """There is no file to read."""
        return {}

    def collect(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """One column of raw values per item."""
        wide = chosen.pivot(index="sample_id", columns="key", values="valuenum").reindex(columns=list(self.items))
        return wide.set_axis([self._value(itemid) for itemid in self.items], axis="columns")

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        """The distribution of each item in train.

        Raises:
            CohortError: an item that no train sample has.
        """
        unseen = [itemid for itemid in self.items if train[self._value(itemid)].isna().all()]
        if unseen:
            named = ", ".join(f"{itemid} ({LABELS.get(itemid, 'no label known')})" for itemid in unseen)
            raise CohortError(
                f"no train sample has a value of lab {named}",
                expected="at least one, to make percentiles of",
                remedy=f"List the items to use under modalities.{self.name}.items, or build a larger cohort",
            )
        return {str(itemid): Ecdf.fit(_numbers(train[self._value(itemid)])).plain() for itemid in self.items}

    def transform(
        self, samples: pd.DataFrame, state: Mapping[str, Any]
    ) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
        """Percentiles by the distribution in train; a missing value takes the item's mean percentile there."""
        raw = np.stack([_numbers(samples[self._value(itemid)]) for itemid in self.items], axis=1)
        distributions = [Ecdf.from_plain(state[str(itemid)]) for itemid in self.items]
        share = np.stack([ecdf(column) for ecdf, column in zip(distributions, raw.T, strict=True)], axis=1)
        means = np.array([ecdf.mean for ecdf in distributions])
        filled = samples.assign(**{self._percentile(itemid): share[:, i] for i, itemid in enumerate(self.items)})
        percentile = np.where(np.isnan(share), means, share).astype(np.float32)
        return filled, {"percentile": percentile, "observed": ~np.isnan(raw)}

    def placeholder(self) -> dict[str, NDArray[Any]]:
        """No item observed."""
        return {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.arrays.items()}

    def summaries(self, samples: pd.DataFrame) -> list[Summary]:
        """The share of samples that lack each item, and how many items samples have."""
        missing = {
            f"{itemid} {LABELS.get(itemid, '')}".strip(): float(samples[self._value(itemid)].isna().mean())
            for itemid in self.items
        }
        observed = samples[[self._value(itemid) for itemid in self.items]].notna().sum(axis=1)
        numbers = {"mean": observed.mean(), "least": observed.min(), "most": observed.max()}
        return [
            Summary(f"{self.name}: items per sample", {name: float(value) for name, value in numbers.items()}),
            Summary(f"{self.name}: share of samples without the item", missing),
        ]

    # --- synthetic patients ---

    def write_synthetic(
        self, patient: SyntheticPatient, source: Path, rng: np.random.Generator, options: SyntheticOptions
    ) -> TableRows:
        """Rows of labevents around each admission."""
        return synthetic.write(patient, source, rng, options, name=self.name)

    def synthetic_tables(self) -> TableRows:
        """The dictionary of items."""
        return synthetic.static_tables()

    # --- evaluation ---

    def read_query(self, path: Path, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Values in MIMIC's units by itemid, from a CSV or JSON file (`query_file.read_values`)."""
        import pandas as pd

        from symile_clin.modalities.labs.query_file import read_values

        values = read_values(path, items=self.items)
        raw = {self._value(itemid): [values.get(itemid, np.nan)] for itemid in self.items}
        samples, arrays = self.transform(pd.DataFrame(raw, dtype="float64"), state)
        columns = {column: samples[column].to_numpy()[0] for column in self.columns}
        return {name: array[0] for name, array in arrays.items()} | {
            column: np.array(value) for column, value in columns.items()
        }

    def groups(self, samples: pd.DataFrame) -> dict[str, pd.Series[Any]]:
        """How many items were measured, in tens; null where none was."""
        import pandas as pd

        values = [self._value(itemid) for itemid in self.items]
        count = samples.reindex(columns=values).notna().sum(axis=1)
        ends = range(0, len(values) + BAND_ITEMS, BAND_ITEMS)
        names = [f"{first + 1} to {first + BAND_ITEMS}" for first in ends[:-1]]
        return {"items measured": pd.cut(count, ends, labels=names)}

    def observed(self, samples: pd.DataFrame) -> pd.DataFrame:
        """Which items each sample has."""
        there = samples[[self._value(itemid) for itemid in self.items]].notna()
        names = [LABELS.get(itemid, str(itemid)) for itemid in self.items]
        return there.set_axis(names, axis="columns").rename_axis(columns="item")

    def table(self, row: Row) -> pd.DataFrame:
        """The items that were measured, with unit, reference range, flag and percentile in train."""
        from symile_clin.modalities.labs.values import value_table

        def number(column: str) -> float:
            return float("nan") if row[column] is None else float(row[column])

        values = {itemid: number(self._value(itemid)) for itemid in self.items}
        return value_table(values, {itemid: number(self._percentile(itemid)) for itemid in self.items})

    # --- training and pictures ---

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:  # noqa: ARG002  not augmented
        """(b, 2 · items): all percentiles, then all indicators."""
        from symile_clin.modalities.labs.encoder import to_input

        return to_input(arrays["percentile"], arrays["observed"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Percentiles and indicators."""
        return (2 * len(self.items),)

    def encoder(self, dim: int, options: EncoderOptions) -> nn.Module:
        """(b, 2 · items) to (b, dim)."""
        from symile_clin.modalities.labs.encoder import build

        return build(dim, options, items=len(self.items))

    def render(self, arrays: Arrays, row: Row) -> NDArray[np.uint8]:  # noqa: ARG002  part of the contract
        """A bar per observed item: its percentile in train."""
        from symile_clin.modalities.labs.panel import draw_panel

        observed = np.flatnonzero(arrays["observed"])
        labels = [LABELS.get(self.items[i], str(self.items[i])) for i in observed]
        return draw_panel(labels, arrays["percentile"][observed])

    @property
    def attribution(self) -> ByOcclusion:
        """Item by item."""
        from symile_clin.modalities.labs.attribution import LabAttribution

        return LabAttribution(self.items, self._value)


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64]:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)
