"""The benchmarks run at small scale, and their claims that do not hang on a clock hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import bench_cohort, bench_train
from scripts.bench_files import RELEASED_BYTES, RELEASED_ROWS, main


def test_the_benchmark_of_files_runs_on_small_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--patients", "2", "--samples", "4", "--rounds", "1", "--small", "--tree", str(tmp_path / "tree")]
    main(arguments, standalone_mode=False)
    printed = capsys.readouterr().out
    xrays = re.findall(r"\| (\d) \| 0\.\d+ \|$", printed, flags=re.MULTILINE)
    assert len(xrays) == 2
    assert all(int(most) <= 1 for most in xrays), "more than a grey level from a full decode"
    assert re.search(r"^\| 1 \| 4 \| ", printed, flags=re.MULTILINE)
    shares = [float(share) for share in re.findall(r"1/(\d+\.\d)", printed)]
    assert shares[1] >= 8, "more than an eighth of the released files"


def test_the_released_files_are_as_large_as_they_are_known_to_be() -> None:
    assert round(RELEASED_BYTES * RELEASED_ROWS / 1e9) in (33, 34)


def test_the_benchmark_of_the_join_runs_on_small_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_cohort.main(["--scale", "0.004", "--tables", str(tmp_path)], standalone_mode=False)
    printed = capsys.readouterr().out
    assert re.search(r"^\| 0\.004 \| 472,685 \| \d+ \| \d\.\d \| \d+ \| \d\.\d \|$", printed, flags=re.MULTILINE)


def test_the_linear_fit_is_the_lines() -> None:
    text = bench_cohort.linear_fit([(1_000_000, 5.0), (10_000_000, 23.0), (100_000_000, 203.0)])
    assert text.startswith("3 s + 2.00 s per million lab events")


@pytest.mark.slow
def test_the_benchmark_of_training_runs_on_few_samples(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--samples", "12", "--batch-size", "4", "--steps", "1", "--rounds", "1", "--dim", "16"]
    bench_train.main(few, standalone_mode=False)
    printed = capsys.readouterr().out
    row = r"^\| (\w+) \| \d+\.\d \| \d+\.\d\d \| \d+\.\d% \| \d\.\d\d \|$"
    assert re.findall(row, printed, flags=re.MULTILINE) == ["plain", "ours"]
