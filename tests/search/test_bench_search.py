"""The benchmark of searches runs on few items, and what it says of exactness holds."""

from __future__ import annotations

import re

import pytest

from scripts import bench_search


def test_the_benchmark_runs_on_few_items(capsys: pytest.CaptureFixture[str]) -> None:
    bench_search.main(["--items", "600", "--dim", "16", "--queries", "12"], standalone_mode=False)
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| symile-clin, (\w+) \| [\d.]+ \| [\d.]+ \| [\d.]+ \| 1\.000 \|", printed, flags=re.MULTILINE)
    assert rows == ["warm", "cold"]
