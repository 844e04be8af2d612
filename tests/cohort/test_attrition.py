"""The books add up: every admission and every event is counted once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.events import count_events
from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.registry import ROOMS
from tests.cohort.tree import ADMITTED, HOUR, Tree, build, open_catalog, tiny_spec, waveform


@pytest.fixture
def index() -> pd.DataFrame:
    return pd.DataFrame({"sample_id": list("abcde"), "subject_id": [1, 1, 2, 3, 3]})


def test_a_sample_leaves_once_under_its_first_reason(index: pd.DataFrame) -> None:
    books = Attrition(index)
    books.leave("x", {"a": "late", "d": "late", "c": "early"})
    books.leave("y", {"a": "again", "e": "lost"})
    table = books.table()
    assert table.to_numpy().tolist() == [
        ["index events", "", 5, 3],
        ["x", "early", 1, 1],
        ["x", "late", 2, 2],
        ["y", "lost", 1, 1],
        ["cohort", "", 1, 1],
    ]
    assert books.samples["sample_id"].tolist() == ["b"]
    assert books.in_one_line() == (
        "of 5 index events, 1 left at x (early), 2 left at x (late), 1 left at y (lost); 1 remain"
    )


def test_each_sample_that_left_is_listed_with_its_first_reason(index: pd.DataFrame) -> None:
    books = Attrition(index)
    books.leave("x", {"d": "late", "c": "early"})
    books.leave("y", {"a": "lost", "d": "lost"})
    books.leave("x", {"e": "late"})
    assert books.left().to_numpy().tolist() == [
        ["a", 1, "y", "lost"],
        ["c", 2, "x", "early"],
        ["d", 3, "x", "late"],
        ["e", 3, "x", "late"],
    ]
    assert books.table().to_numpy().tolist()[1:-1] == [["x", "early", 1, 1], ["x", "late", 2, 1], ["y", "lost", 1, 1]]
    assert Attrition(index).left().columns.tolist() == ["sample_id", "subject_id", "step", "reason"]


def test_a_file_that_two_samples_asked_for_is_quarantined_once(index: pd.DataFrame) -> None:
    books = Attrition(index)
    for _ in range(2):
        books.refuse("ecg", {"event_id": 7, "path": "files/7"}, Refusal(Reason.NAN, "lead V1"))
    assert books.quarantine().to_dict("records") == [
        {"modality": "ecg", "id": "7", "path": "files/7", "reason": "missing values", "detail": "lead V1"}
    ]


def test_no_refusals_is_an_empty_table_with_its_columns(index: pd.DataFrame) -> None:
    assert Attrition(index).quarantine().columns.tolist() == ["modality", "id", "path", "reason", "detail"]


def test_every_event_of_every_table_is_counted_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.complete(10_000_001, 20_000_001)
    # inside the windows of two admissions: one takes it, the other lacks labs
    tree.admission(10_000_001, 20_000_002, ADMITTED + 40 * HOUR)
    tree.xray(10_000_001, 50_000_050, ADMITTED + 69 * HOUR)  # of both windows; the first takes an earlier one
    tree.xray(10_000_001, 50_000_051, ADMITTED + 100 * HOUR)  # of the second admission's only, which leaves
    tree.xray(10_000_001, 50_000_052, ADMITTED + 900 * HOUR)  # of none
    tree.xray(10_000_001, 50_000_053, ADMITTED + 29 * HOUR, view="LL")
    tree.xray(10_000_001, 50_000_054, ADMITTED + 29 * HOUR, file=False)
    tree.ecg(10_000_001, 40_000_060, ADMITTED, signal=waveform() * 0)
    tree.ecg(10_000_001, 40_000_061, ADMITTED + 2 * HOUR)
    tree.lab(10_000_001, ADMITTED, None)
    tree.lab(10_000_001, ADMITTED, 1.0, item=1)
    tree.lab(99, ADMITTED, 1.0)
    spec = tiny_spec()
    built = build(tree)
    assert built.samples["hadm_id"].tolist() == [20_000_001]
    counted: dict[str, dict[str, int]] = {}
    with open_catalog(tree.roots, tmp_path / "cache") as catalog:
        for name, modality in spec.make_modalities(ROOMS).items():
            table = count_events(
                modality,
                spec.modalities[name].window,
                catalog=catalog,
                index=built.index,
                samples=built.samples,
                chosen=built.chosen[name],
                refused=built.attrition.refused,
            )
            assert (table["modality"] == name).all()
            counted[name] = {reason: n for reason, n in zip(table["reason"], table["events"], strict=True) if n}
    assert counted["cxr"] == {
        "in the cohort": 1, "refused: file missing": 1, "in a window, another was chosen": 1,
        "in a window, its sample left": 1, "outside every window": 1, "not eligible: other view": 1,
    }  # fmt: skip
    assert counted["ecg"] == {"in the cohort": 1, "refused: all zero": 1, "in a window, another was chosen": 1}
    assert counted["labs"] == {
        "in the cohort": 2, "outside every window": 1, "not eligible: no numeric value": 1,
        "not eligible: other item": 1,
    }  # fmt: skip
    for name, table_name in [("cxr", "cxr_metadata"), ("ecg", "ecg_records"), ("labs", "labevents")]:
        assert sum(counted[name].values()) == len(tree.rows[table_name])
