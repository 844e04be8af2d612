"""Labs in the published Symile-MIMIC release: percentiles of train, and an indicator that is 1 where OBSERVED."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.errors import MismatchError, SourceError
from symile_clin.modalities.base import Arrays
from symile_clin.modalities.labs import Labs
from symile_clin.modalities.labs.items import SYMILE_ITEMS
from symile_clin.modalities.released import ReleasedArray, ReleasedForm

PERCENTILES: Final = "labs_percentiles"
#: Called so in the release, and 1 where the item was observed.
INDICATOR: Final = "labs_missingness"
MEANS: Final = "labs_means.json"
SUFFIX: Final = "_percentile"
ALL_MISSING: Final = "labs_all_nan"
#: The release's order of item columns in its tables (its arrays have the order of the sorted strings).
TABLE_ORDER: Final = (
    51221, 51265, 50912, 50971, 51222, 51301, 51249, 51279, 51250, 51248, 51277, 51006, 50983, 50902, 50882, 50868,
    50931, 50960, 50893, 50970, 51237, 51274, 51275, 51146, 51256, 51254, 51200, 51244, 52172, 50934, 51678, 50947,
    50861, 50878, 50813, 50863, 50885, 50820, 50862, 50802, 50821, 50804, 50818, 52075, 52073, 52074, 52069, 51133,
    50910, 52135,
)  # fmt: skip


@final
class ReleasedLabs(ReleasedForm):
    """`labs_percentiles`: float32 (items,); `labs_missingness`: int64 (items,), 1 where observed."""

    room: ClassVar[str] = "labs"
    arrays: ClassVar[Mapping[str, ReleasedArray]] = {
        PERCENTILES: ReleasedArray("float32", (None,)),
        INDICATOR: ReleasedArray("int64", (None,)),
    }
    documents: ClassVar[tuple[str, ...]] = (MEANS,)
    done: ClassVar[str] = "percentiles of train, missing ones at the mean percentile; copied, the indicator as bool"
    encoder: ClassVar[Mapping[str, Any]] = {"arch": "mlp", "hidden": [256, 1024]}
    encoder_prefix: ClassVar[str] = "labs_encoder."
    encoder_names: ClassVar[Mapping[str, str]] = {"fc1.": "0.", "fc2.": "2.", "fc3.": "4."}

    @classmethod
    def options(cls, *, shapes: Mapping[str, tuple[int, ...]], documents: Mapping[str, Any]) -> dict[str, Any]:
        """The items are those of labs_means.json."""
        means = documents[MEANS]
        if not isinstance(means, dict) or not all(key.removesuffix(SUFFIX).isdecimal() for key in means):
            raise SourceError(f"{MEANS} has other keys", expected="one '<itemid>_percentile' for each item")
        items = [int(key.removesuffix(SUFFIX)) for key in means]
        for stem, shape in shapes.items():
            if shape != (len(items),):
                raise SourceError(
                    f"{stem} has {shape[0]:,} columns", expected=f"{len(items):,}, one for each item of {MEANS}"
                )
        return {"items": "symile" if set(items) == {item.itemid for item in SYMILE_ITEMS} else items}

    def needed(self) -> tuple[str, ...]:
        """Values and percentiles."""
        return (*map(str, self._values), *(f"{itemid}{SUFFIX}" for itemid in self._values))

    def columns(self, table: pd.DataFrame) -> pd.DataFrame:
        """Values and percentiles."""
        return table[list(self.needed())].set_axis(list(self.modality.columns), axis="columns").astype("float64")

    def convert(self, arrays: Arrays, table: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Percentiles as they are, the indicator as bool: true where observed, as in the release."""
        indicator = arrays[INDICATOR]
        observed = table[list(map(str, self._values))].notna().to_numpy()
        if not np.array_equal(indicator, observed):
            hint = "; it is inverted" if np.array_equal(indicator, ~observed) else ""
            raise MismatchError(
                f"{INDICATOR} and the tables differ in {int((indicator != observed).sum()):,} values{hint}",
                expected="1 where a value is observed",
            )
        return {"percentile": arrays[PERCENTILES], "observed": indicator.astype(np.bool_)}

    def table(self, samples: pd.DataFrame) -> pd.DataFrame:
        """A column of values for each item, and 0: no sample lacks them all."""
        own = {str(itemid): samples[self._values[itemid]] for itemid in self._table_order}
        return pd.DataFrame(own).assign(**{ALL_MISSING: 0})

    def kept(self) -> tuple[str, ...]:
        """All values."""
        return tuple(map(str, self._table_order))

    def added(self, samples: pd.DataFrame) -> pd.DataFrame:
        """The percentiles."""
        columns = {f"{itemid}{SUFFIX}": f"{self._values[itemid]}{SUFFIX}" for itemid in self._table_order}
        return samples[list(columns.values())].set_axis(list(columns), axis="columns")

    def write_documents(self, train: pd.DataFrame) -> dict[str, Any]:
        """The mean percentile of each item in train."""
        return {MEANS: {str(name): float(column.mean()) for name, column in self.added(train).items()}}

    def unlike_published(self) -> str | None:
        """Where there are other items."""
        if set(self._values) == set(TABLE_ORDER):
            return None
        return (
            f"There are {len(self._values):,} lab items; the release has {len(TABLE_ORDER)}, and its code wants these."
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """One column for each item."""
        return dict.fromkeys(self.arrays, (len(self._values),))

    def write_arrays(self, arrays: Arrays, draws: NDArray[np.float64] | None) -> Arrays:  # noqa: ARG002  not augmented
        """Percentiles, and 1 where observed."""
        return {PERCENTILES: arrays["percentile"], INDICATOR: arrays["observed"].astype(np.int64)}

    @property
    def _values(self) -> dict[int, str]:
        """Our column of each item's values, in the order of the arrays."""
        assert isinstance(self.modality, Labs)
        return dict(zip(self.modality.items, self.modality.columns, strict=False))  # the percentiles follow

    @property
    def _table_order(self) -> list[int]:
        others = [itemid for itemid in self._values if itemid not in TABLE_ORDER]
        return [itemid for itemid in TABLE_ORDER if itemid in self._values] + others
