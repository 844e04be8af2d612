"""A sample's labs as a table: what was measured, against the reference range, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from symile_clin.modalities.labs import LabOptions, Labs
from symile_clin.modalities.labs.items import SYMILE_ITEMS, LabItem
from symile_clin.modalities.labs.values import value_table


def flag(itemid: int, value: float) -> str:
    return str(value_table({itemid: value}, {itemid: 0.5}).loc[0, "flag"])


def test_a_hand_worked_report() -> None:
    values = {99999: 7.25, 50971: 5.2, 50912: 0.95, 50802: -3.0, 50931: np.nan}
    table = value_table(values, {99999: np.nan, 50971: 0.987, 50912: 0.5, 50802: 0.0, 50931: 0.2})
    assert table.to_numpy().tolist() == [
        ["Base Excess", "−3", "mEq/L", "−2 to 2", "low", "0"],
        ["Creatinine", "0.95", "mg/dL", "0.4 to 1.2", "", "50"],
        ["Potassium", "5.2", "mEq/L", "3.3 to 5.1", "high", "99"],
        ["99999", "7.25", "", "", "", ""],
    ]


@pytest.mark.parametrize("item", SYMILE_ITEMS, ids=lambda item: item.label)
def test_the_ends_of_a_range_are_inside(item: LabItem) -> None:
    assert flag(item.itemid, item.lower) == ""
    assert flag(item.itemid, item.upper) == ""
    assert flag(item.itemid, np.nextafter(item.lower, -np.inf)) == "low"
    assert flag(item.itemid, np.nextafter(item.upper, np.inf)) == "high"
    assert item.lower < item.upper


@pytest.mark.parametrize(("value", "shown"), [(4.0, "4.0"), (4.05, "4.05"), (4.123456, "4.1235"), (-0.5, "−0.5")])
def test_digits_are_kept(value: float, shown: str) -> None:
    assert value_table({50971: value}, {50971: 0.1}).loc[0, "value"] == shown


def test_nothing_measured_is_an_empty_table() -> None:
    table = value_table({50971: np.nan}, {50971: np.nan})
    assert table.empty
    assert "flag" in table.columns


def test_the_room_reads_its_own_columns() -> None:
    room = Labs("chem", LabOptions(items=(50971, 50912)))
    row = {"chem_50971": 6.0, "chem_50971_percentile": 0.99, "chem_50912": None, "chem_50912_percentile": None}
    table = room.table(row)
    assert table is not None
    assert table[["item", "flag"]].to_numpy().tolist() == [["Potassium", "high"]]
    samples = pd.DataFrame({"chem_50971": [6.0, np.nan], "chem_50912": [np.nan, np.nan]})
    there = room.observed(samples)
    assert list(there.columns) == ["Creatinine", "Potassium"]
    assert there.to_numpy().tolist() == [[False, True], [False, False]]


def test_indices_of_one_letter_are_written_out() -> None:
    items = {50934: 12.0, 50947: 1.0, 51678: 9.0}
    table = value_table(items, dict.fromkeys(items, 0.5))
    assert list(table["item"]) == ["Haemolysis index", "Icterus index", "Lipaemia index"]
