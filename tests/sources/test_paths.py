"""Paths that tables name stay inside their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from symile_clin.sources.paths import inside


def test_a_path_inside_is_found_whether_the_file_exists_or_not(tmp_path: Path) -> None:
    assert inside(tmp_path, "files/p10/a.jpg") == tmp_path / "files/p10/a.jpg"


@pytest.mark.parametrize(
    "hostile",
    ["", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\0b", "x" * 2000, "x" * 400, "loop/x", "out/x", "out", "file://../x",
     "é" * 200, "a\udc80/x"],
)  # fmt: skip
def test_hostile_paths_are_refused(tmp_path: Path, hostile: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "loop").symlink_to(root / "loop")
    (root / "out").symlink_to(tmp_path)
    assert inside(root, hostile) is None


@pytest.mark.parametrize("alike", ["․․/x", "．．/x", "..．/x", "‥/x", "..\u200b/x", "a∕..∕..∕x", "%2e%2e/x", "~/x"])
def test_what_only_looks_like_climbing_stays_inside(tmp_path: Path, alike: str) -> None:
    found = inside(tmp_path, alike)
    assert found is not None
    assert found.is_relative_to(tmp_path)


def test_links_inside_the_source_and_a_linked_root_are_fine(tmp_path: Path) -> None:
    (tmp_path / "disk" / "p10").mkdir(parents=True)
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "disk" / "p10")
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert inside(tmp_path / "root", "again/a.jpg") == tmp_path / "disk/p10/a.jpg"
