"""What a score hangs on in a lab panel. Imports matplotlib inside its methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.attribution import ByOcclusion
from symile_clin.modalities.base import Arrays, Row
from symile_clin.modalities.labs.items import SYMILE_ITEMS
from symile_clin.modalities.labs.preprocess import Ecdf

_KNOWN = {item.itemid: item for item in SYMILE_ITEMS}


@final
class LabAttribution(ByOcclusion):
    """Each observed item made one that was not measured.

    Args:
        items: itemids in the order of the arrays.
        value: itemid -> its column of raw values.
    """

    reading: ClassVar[str] = (
        "By how much the score falls if an item had not been measured: bars to the right raise the score, "
        "hatched ones to the left lower it. P is the percentile among training samples."
    )

    def __init__(self, items: Sequence[int], value: Callable[[int], str]) -> None:
        self._items = items
        self._value = value

    def without(self, arrays: Arrays, state: Mapping[str, Any]) -> Mapping[str, Arrays]:
        """Indicator 0, percentile at the mean of train: exactly what a sample has that lacks the item."""
        variants: dict[str, Arrays] = {}
        for place in np.flatnonzero(arrays["observed"]).tolist():
            itemid = self._items[place]
            percentile, observed = arrays["percentile"].copy(), arrays["observed"].copy()
            percentile[place] = Ecdf.from_plain(state[str(itemid)]).mean
            observed[place] = False
            variants[self._label(itemid)] = {"percentile": percentile, "observed": observed}
        return variants

    def draw(self, arrays: Arrays, row: Row, relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """A bar for each of the items that matter most, with value and percentile."""
        from symile_clin.modalities.labs.contributions import draw_contributions

        observed = np.flatnonzero(arrays["observed"]).tolist()
        names = [self._label(self._items[place]) for place in observed]
        values = [self._words(self._items[place], float(arrays["percentile"][place]), row) for place in observed]
        return draw_contributions(names, values, relevance)

    def _label(self, itemid: int) -> str:
        return _KNOWN[itemid].label if itemid in _KNOWN else str(itemid)

    def _words(self, itemid: int, percentile: float, row: Row) -> str:
        item = _KNOWN.get(itemid)
        value = float(row[self._value(itemid)])
        number = f"{value:.{item.decimals}f} {item.unit}".rstrip() if item else f"{value:g}"
        return f"{number}  P{100 * percentile:.0f}"
