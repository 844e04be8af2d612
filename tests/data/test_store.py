"""Stored arrays: however they are laid out in parts, a sample row gives its own values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symile_clin import files
from symile_clin.data.store import StoredArray, open_cohort
from symile_clin.errors import CohortError, MismatchError

VALUES = np.arange(20 * 3, dtype=np.int16).reshape(20, 3)
ASKED = np.array([19, 0, 7, 7, 12])


def entry(**extra: Any) -> dict[str, Any]:
    return {"dtype": "int16", "shape": [3], **extra}


def test_one_part_is_read_by_row(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    stored = StoredArray(tmp_path, entry(parts=[{"file": "a.npy", "rows": 20}]))
    assert len(stored) == 20
    np.testing.assert_array_equal(stored.take(ASKED), VALUES[ASKED])


def test_parts_without_a_map_follow_one_another(tmp_path: Path) -> None:
    parts = []
    for number, rows in enumerate((VALUES[:7], VALUES[7:8], VALUES[8:])):
        np.save(tmp_path / f"{number}.npy", rows)
        parts.append({"file": f"{number}.npy", "rows": len(rows)})
    stored = StoredArray(tmp_path, entry(parts=parts))
    assert len(stored) == 20
    np.testing.assert_array_equal(stored.take(ASKED), VALUES[ASKED])
    np.testing.assert_array_equal(stored.take(np.arange(20)), VALUES)


def test_a_row_map_finds_rows_in_any_part_and_leaves_others_out(tmp_path: Path) -> None:
    elsewhere = tmp_path / "release/data_npy/train"
    elsewhere.mkdir(parents=True)
    (tmp_path / "release/symile_mimic_data.csv").touch()
    shuffled = np.random.default_rng(0).permutation(20)
    np.save(elsewhere / "x_train.npy", VALUES[shuffled[:9]])
    np.save(tmp_path / "second.npy", VALUES[shuffled[9:]])
    wanted = np.array([4, 17, 2, 11])  # samples 0 to 3
    place = {int(value): (0, i) if i < 9 else (1, i - 9) for i, value in enumerate(shuffled)}
    np.save(tmp_path / "a.rows.npy", np.array([place[int(value)] for value in wanted], dtype=np.int64))
    parts = [{"file": str(elsewhere / "x_train.npy"), "rows": 9}, {"file": "second.npy", "rows": 11}]
    stored = StoredArray(tmp_path, entry(parts=parts, row_map="a.rows.npy"))
    assert len(stored) == 4
    np.testing.assert_array_equal(stored.take(np.array([3, 0, 1, 2, 0])), VALUES[wanted[[3, 0, 1, 2, 0]]])


@pytest.mark.parametrize(
    "places", [[[0, 20]], [[0, -1]], [[1, 0]], [[-2, 0]], [[0, 2**62]], [[0.0, 1.0]], [[0, 0, 0]], [0, 0]]
)
def test_a_row_map_that_leads_beyond_its_parts_is_refused(tmp_path: Path, places: Any) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    np.save(tmp_path / "a.rows.npy", np.array(places))
    with pytest.raises(CohortError, match=r"a\.rows\.npy"):
        StoredArray(tmp_path, entry(parts=[{"file": "a.npy", "rows": 20}], row_map="a.rows.npy"))


@pytest.mark.parametrize("rows", [19, 21])
def test_a_part_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path, rows: int) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(CohortError, match=r"a\.npy holds int16\[20, 3\]"):
        StoredArray(tmp_path, entry(parts=[{"file": "a.npy", "rows": rows}]))


def test_a_folder_of_another_stage_is_no_cohort(tmp_path: Path) -> None:
    files.write_manifest(tmp_path, stage="synthetic", content={})
    with pytest.raises(MismatchError, match=r"was written by the stage 'synthetic'\. Expected a cohort"):
        open_cohort(tmp_path)
