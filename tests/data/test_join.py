"""From shards to arrays: joined or left as parts, samples get their own rows, and both have one hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from symile_clin.data import join
from symile_clin.data.join import join_shards, link_shards, stored_sha256
from symile_clin.data.store import StoredArray
from symile_clin.errors import DiskError
from symile_clin.modalities.base import ArraySpec

SPEC = ArraySpec("int32", (2, 2))
VALUES = np.arange(9 * 4, dtype=np.int32).reshape(9, 2, 2) + 1
PLACES = [(0, 0), (0, 1), (-1, -1), (0, 2), (1, 3), (1, 1), (2, 0), (2, 1), (-1, -1), (0, 0)]


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three shards of 3, 4 and 2 rows."""
    folders = [tmp_path / name for name in "abc"]
    for folder, rows in zip(folders, (VALUES[:3], VALUES[3:7], VALUES[7:]), strict=True):
        folder.mkdir()
        np.save(folder / "x.npy", rows)
    (tmp_path / "arrays").mkdir()
    return folders


def expected() -> NDArray[Any]:
    """Row by row."""
    start = {0: 0, 1: 3, 2: 7}
    return np.stack([np.zeros((2, 2), np.int32) if part < 0 else VALUES[start[part] + row] for part, row in PLACES])


@pytest.mark.parametrize("copied_at_once", [16, 40, 1 << 20])
@pytest.mark.parametrize("write", [join_shards, link_shards])
def test_each_sample_gets_its_row_and_zeros_where_it_has_none(
    tmp_path: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch, write: Any, copied_at_once: int
) -> None:
    monkeypatch.setattr(join, "COPY_BYTES", copied_at_once)
    entry = write(parts, np.array(PLACES), tmp_path / "arrays", "x", SPEC)
    stored = StoredArray(tmp_path / "arrays", entry)
    assert len(stored) == len(PLACES)
    np.testing.assert_array_equal(stored.take(np.arange(len(PLACES))), expected())
    np.testing.assert_array_equal(stored.take(np.array([8, 5, 2, 5])), expected()[[8, 5, 2, 5]])
    assert stored_sha256(stored) == entry["sha256"]
    joined = join_shards(parts, np.array(PLACES), tmp_path / "arrays", "x", SPEC)
    assert joined["sha256"] == entry["sha256"]
    np.testing.assert_array_equal(np.load(tmp_path / "arrays" / "x.npy"), expected())


def test_another_value_gives_another_hash(tmp_path: Path, parts: list[Path]) -> None:
    first = join_shards(parts, np.array(PLACES), tmp_path / "arrays", "x", SPEC)["sha256"]
    np.save(parts[1] / "x.npy", VALUES[3:7] + np.int32(1))
    assert join_shards(parts, np.array(PLACES), tmp_path / "arrays", "x", SPEC)["sha256"] != first


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path: Path, parts: list[Path]) -> None:
    huge = ArraySpec("int32", (1 << 30, 1 << 20))
    with pytest.raises(DiskError, match="B free"):
        join_shards(parts, np.array(PLACES), tmp_path / "arrays", "x", huge)
    assert list((tmp_path / "arrays").iterdir()) == []
