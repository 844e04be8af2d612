"""Synthetic blood work: values that fit each other, missing by panel, planted pictures in the items that show them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symile_clin.modalities.labs.items import PANELS, SYMILE_ITEMS
from symile_clin.modalities.labs.synthetic import FACTORS, PICTURES, static_tables, write
from symile_clin.modalities.labs.tables import D_LABITEMS, LABEVENTS
from symile_clin.modalities.synthetic_patient import SyntheticOptions
from tests.modalities.synthetic_patient import make_patient


def _rows(
    factors: tuple[int, ...] = (0, 0, 0), *, patients: int = 1, dirt: float = 0.0, seed: int = 0
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index in range(patients):
        patient = make_patient({"blood": factors}, index=index)
        rng = np.random.default_rng((seed, index))
        rows += [
            dict(row) for row in write(patient, Path(), rng, SyntheticOptions(dirt=dirt), name="blood")[LABEVENTS.name]
        ]
    return rows


def _first_draws(rows: list[dict[str, Any]]) -> list[dict[int, float]]:
    """Values of each tube time, by item."""
    draws: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in rows:
        draws[row["labevent_id"] // 4096, row["charttime"]][row["itemid"]] = row["valuenum"]
    return list(draws.values())


def test_the_items_are_fifty_different_ones_each_in_a_panel() -> None:
    assert len({item.itemid for item in SYMILE_ITEMS}) == 50
    assert {item.panel for item in SYMILE_ITEMS} == set(PANELS)
    assert all(item.lower < item.upper and item.sd > 0 for item in SYMILE_ITEMS)
    assert [row["label"] for row in static_tables()[D_LABITEMS.name]] == [item.label for item in SYMILE_ITEMS]
    assert {itemid for picture in PICTURES for itemid in picture} <= {item.itemid for item in SYMILE_ITEMS}


def test_rows_fill_the_table_with_unique_ids_in_order_of_time() -> None:
    rows = _rows(patients=3, dirt=0.1)
    assert all(set(row) == set(LABEVENTS.columns) for row in rows)
    ids = [row["labevent_id"] for row in rows]
    assert ids == sorted(set(ids))
    times = [(row["labevent_id"] // 4096, row["charttime"]) for row in rows]
    assert times == sorted(times)


def test_values_fit_each_other() -> None:
    checked = 0
    for draw in _first_draws(_rows(patients=30, seed=1)):
        if 51222 in draw:
            assert draw[51221] == pytest.approx(100 * draw[51222] / draw[51249], abs=0.8)  # haematocrit
            assert draw[51250] == pytest.approx(10 * draw[51221] / draw[51279], abs=1.5)  # cell volume
        if 50983 in draw:
            gap = draw[50983] + draw[50971] - draw[50902] - draw[50882]
            assert draw[50868] == pytest.approx(gap, abs=2.1)  # each is rounded
        if 51256 in draw:
            cells = sum(draw[item] for item in (51256, 51244, 51254, 51200, 51146))
            assert cells == pytest.approx(100, abs=0.3)
        if 52075 in draw and 51301 in draw:
            assert draw[52075] == pytest.approx(draw[51301] * draw[51256] / 100, rel=0.03, abs=0.05)
            checked += 1
    assert checked > 5


def test_values_stay_where_patients_can_live() -> None:
    limits = {50820: (6.8, 7.75), 50971: (1.8, 9), 50983: (115, 162), 51222: (4, 20), 50912: (0.2, 15), 51256: (5, 100)}
    for factors in ((0, 0, 0), (1, 1, 1)):
        for row in _rows(factors, patients=60):
            low, high = limits.get(row["itemid"], (-30, 20_000))
            assert low <= row["valuenum"] <= high
            assert row["valuenum"] >= 0 or row["itemid"] == 50802


def test_about_35_of_50_items_are_measured_around_admission() -> None:
    present = []
    for index in range(120):
        patient = make_patient({"blood": (0, 0, 0)}, admissions=1, index=index)
        rows = write(patient, Path(), np.random.default_rng(index), SyntheticOptions(), name="blood")[LABEVENTS.name]
        start = patient.admissions[0].admittime
        near = {row["itemid"] for row in rows if abs((row["charttime"] - start).total_seconds()) <= 86_400}
        present.append(len(near))
    assert 32 < np.mean(present) < 38
    assert min(present) < 25


@pytest.mark.parametrize("shown", range(FACTORS))
def test_a_picture_shifts_its_items_by_what_it_says(shown: int) -> None:
    factors = tuple(int(j == shown) for j in range(FACTORS))
    items = {item.itemid: item for item in SYMILE_ITEMS}
    healthy: dict[int, list[float]] = defaultdict(list)
    ill: dict[int, list[float]] = defaultdict(list)
    for values, found in ((healthy, (0,) * FACTORS), (ill, factors)):
        for row in _rows(found, patients=60, seed=2):
            values[row["itemid"]].append(row["valuenum"])
    for itemid, shift in PICTURES[shown].items():
        item, pair = items[itemid], (np.array(ill[itemid]), np.array(healthy[itemid]))
        if item.skewed:
            pair = (np.log(np.maximum(pair[0], 0.1)), np.log(np.maximum(pair[1], 0.1)))
        # each of 60 patients counts about once: a standard error of 0.2
        assert (pair[0].mean() - pair[1].mean()) / item.sd == pytest.approx(shift, abs=0.7)
    unrelated = {51265, 50960} - set(PICTURES[shown])
    for itemid in unrelated:
        assert abs(np.median(ill[itemid]) - np.median(healthy[itemid])) < 0.5 * np.std(healthy[itemid])


def test_nothing_but_values_depends_on_the_factors() -> None:
    kept = set(LABEVENTS.columns) - {"value", "valuenum", "flag"}
    healthy, ill = (
        [{column: row[column] for column in kept} for row in _rows(factors, patients=3, dirt=0.1)]
        for factors in ((0, 0, 0), (1, 1, 1))
    )
    assert healthy == ill


def test_hadm_id_is_often_null_and_sometimes_anothers() -> None:
    rows = _rows(patients=20)
    none = np.mean([row["hadm_id"] is None for row in rows])
    assert 0.35 < none < 0.7
    start = make_patient({"blood": (0, 0, 0)}).admissions[1].admittime
    wrong = [
        row for row in rows if row["hadm_id"] is not None and (row["hadm_id"] % 10 == 1) != (row["charttime"] > start)
    ]
    assert wrong


def test_dirt_puts_text_where_a_number_was_and_quotes_into_comments() -> None:
    rows = _rows(patients=10, dirt=0.2)
    missing = [row for row in rows if row["valuenum"] is None]
    assert 0.15 < len(missing) / len(rows) < 0.25
    assert all(row["value"] and not row["value"][0].isdigit() and row["comments"] for row in missing)
    assert all(float(row["value"]) == row["valuenum"] for row in rows if row["valuenum"] is not None)
    comments = {row["comments"] for row in rows}
    assert all(any(mark in comment for comment in comments) for mark in (",", '"', "___"))
