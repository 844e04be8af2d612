"""One sample's values as a person reads a lab report: with unit, reference range and what is outside of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import pandas as pd

from symile_clin.modalities.labs.items import SYMILE_ITEMS, LabItem

_KNOWN: Final[Mapping[int, LabItem]] = {item.itemid: item for item in SYMILE_ITEMS}
#: Digits of a value that has more than its item usually has.
_MOST_DECIMALS: Final = 4


def value_table(values: Mapping[int, float], percentiles: Mapping[int, float]) -> pd.DataFrame:
    """Measured items as lines, in the order of panels; items that are not known here have their itemid and value only.

    Args:
        values: by itemid, NaN where it was not measured.
        percentiles: by itemid, share of the train split's values that are not above it, in [0, 1].

    Returns:
        item, value, unit, reference, flag (low, high or empty), percentile (of train, 0 to 100), all text.
    """
    measured = {itemid: value for itemid, value in values.items() if not math.isnan(value)}
    order = [itemid for itemid in _KNOWN if itemid in measured] + [i for i in measured if i not in _KNOWN]
    lines = [{**_line(itemid, measured[itemid]), "percentile": _percent(percentiles[itemid])} for itemid in order]
    return pd.DataFrame(lines, columns=["item", "value", "unit", "reference", "flag", "percentile"], dtype="str")


def _line(itemid: int, value: float) -> dict[str, str]:
    item = _KNOWN.get(itemid)
    if item is None:
        return {"item": str(itemid), "value": _text(value, 0), "unit": "", "reference": "", "flag": ""}
    return {
        "item": item.title,
        "value": _text(value, item.decimals),
        "unit": item.unit,
        "reference": f"{_text(item.lower, 0)} to {_text(item.upper, 0)}",
        "flag": "low" if value < item.lower else "high" if value > item.upper else "",
    }


def _text(value: float, decimals: int) -> str:
    """A value with the digits that its item usually has, and more where they are not zero."""
    digits = len(f"{value:.{_MOST_DECIMALS}f}".rstrip("0").partition(".")[2])
    return f"{value:.{max(decimals, digits)}f}".replace("-", "−")


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f}"
