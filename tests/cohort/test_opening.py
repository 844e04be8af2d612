"""Shards: whole or not there, the same whoever makes them, and no worse for a file that kills its reader."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from symile_clin.cohort import workers
from symile_clin.cohort.opening import Outcome, Read, died, identify, open_work, read_shard
from symile_clin.cohort.workers import Workers
from symile_clin.modalities.base import Modality, Reason, Refusal
from symile_clin.modalities.registry import ROOMS
from tests.cohort.number_files import Numbers
from tests.cohort.tree import tiny_spec

NUMBERS = cast("Modality", Numbers())


def write(source: Path, texts: list[str]) -> list[dict[str, Any]]:
    """Files, and the events that name them."""
    source.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (source / str(number)).write_text(text)
    return [{"sample_id": str(number), "rank": 1, "path": str(number)} for number in range(len(texts))]


def values(work: Path, outcomes: list[Outcome]) -> list[Any]:
    """What was read, by event."""
    return [
        np.load(work / one.shard / "value.npy")[one.position].tolist() if isinstance(one, Read) else one.reason
        for one in outcomes
    ]


def test_a_shard_holds_what_was_read_and_why_the_rest_was_not(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", ["5", "refuse", "8"])
    first, second, third = read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows)
    assert second == Refusal(Reason.TRUNCATED, "short", "drop")
    assert isinstance(first, Read)
    assert isinstance(third, Read)
    assert (first.position, third.position, third.scalars) == (0, 1, {"numbers_half": 4.0})
    assert (third.files[0].path, third.files[0].bytes) == ("2", 1)
    assert values(tmp_path / "work", [first, second, third]) == [[5, 7], "truncated", [8, 7]]
    assert {path.name for path in (tmp_path / "work" / first.shard).iterdir()} == {"value.npy", "outcomes.json"}


def test_a_shard_that_is_there_is_taken_and_nothing_is_opened(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", ["5", "refuse", "8"])
    first = read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows)
    stat = (tmp_path / "source" / "0").stat()
    (tmp_path / "source" / "0").write_text("6")  # the same size and time: the same file, as far as a build looks
    os.utime(tmp_path / "source" / "0", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows) == first


def test_an_answer_hangs_on_file_options_and_event_not_on_the_sample(tmp_path: Path) -> None:
    (row,) = write(tmp_path, ["5"])
    key = identify(NUMBERS, tmp_path, [row])
    assert identify(NUMBERS, tmp_path, [row | {"sample_id": "x", "rank": 3}]) == key
    assert identify(NUMBERS, tmp_path, [row | {"event_time": 3}]) != key
    assert identify(NUMBERS, tmp_path, [row | {"path": "no such file"}]) != key
    assert identify(NUMBERS, tmp_path, [row | {"path": "a\0b"}]) != key
    os.utime(tmp_path / "0", ns=(1, 1))
    assert identify(NUMBERS, tmp_path, [row]) != key
    sizes = [tiny_spec(f"modalities.cxr.short_side={side}").make_modalities(ROOMS)["cxr"] for side in (32, 33)]
    row |= {"dicom_id": "", "subject_id": 1, "study_id": 1}
    assert identify(sizes[0], tmp_path, [row]) != identify(sizes[1], tmp_path, [row])


def test_what_a_killed_process_left_half_made_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".abc.17.tmp").mkdir()
    (tmp_path / "whole").mkdir()
    open_work(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_shard_that_a_killed_process_had_half_removed_is_read_again(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", ["1", "2"])
    expected = read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows)
    (outcomes,) = tmp_path.glob("work/*/outcomes.json")
    outcomes.unlink()
    assert read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows) == expected


def test_a_shard_with_files_that_were_out_of_reach_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write(tmp_path / "source", ["5", "forbid", "refuse"])
    monkeypatch.setenv("forbidden", "")  # the file's mode is no part of its size and time
    before = read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows)
    assert values(tmp_path / "work", before) == [[5, 7], "not readable", "truncated"]
    monkeypatch.delenv("forbidden")
    after = read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows)
    assert values(tmp_path / "work", after) == [[5, 7], [4, 7], "truncated"]
    assert len(list((tmp_path / "work").iterdir())) == 1


def test_a_file_that_goes_away_while_it_is_read_costs_its_own_event(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", ["vanish", "5"])
    found = read_shard(NUMBERS, tmp_path / "source", tmp_path / "work", rows)
    assert found[0] == Refusal(Reason.UNREADABLE, "No such file or directory", "drop")
    assert values(tmp_path / "work", found) == ["not readable", [5, 7]]


@pytest.mark.parametrize("harm", ["die", "hang"])
def test_a_file_that_kills_or_hangs_its_reader_is_refused_and_no_other_harmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(workers, "SECONDS_PER_ITEM", 1.5)
    texts = [str(number) for number in range(40)]
    texts[13] = harm
    rows = write(tmp_path / "source", texts)
    with Workers(2, cautious=True) as pool:
        read = partial(read_shard, NUMBERS, tmp_path / "source", tmp_path / "work")
        outcomes = list(pool.map(read, rows, chunk=8, died=partial(died, "drop")))
    expected: list[Any] = [[number, 7] for number in range(40)]
    expected[13] = "its reader died"
    assert values(tmp_path / "work", outcomes) == expected
    refusal = outcomes[13]
    assert isinstance(refusal, Refusal)
    assert refusal.then == "drop"


@pytest.mark.parametrize("count", [1, 2])
def test_shards_are_the_same_whatever_the_number_of_workers(tmp_path: Path, count: int) -> None:
    rows = write(tmp_path / "source", [str(number) for number in range(50)])
    with Workers(count, cautious=True) as pool:
        read = partial(read_shard, NUMBERS, tmp_path / "source", tmp_path / "work")
        outcomes = list(pool.map(read, rows, chunk=16))
    alone = [
        outcome
        for start in range(0, 50, 16)
        for outcome in read_shard(NUMBERS, tmp_path / "source", tmp_path / "other", rows[start : start + 16])
    ]
    assert [replace(one, files=()) for one in outcomes if isinstance(one, Read)] == [
        replace(one, files=()) for one in alone if isinstance(one, Read)
    ]
