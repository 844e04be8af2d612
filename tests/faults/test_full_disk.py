"""A full disk in every stage: one line that names the path and the room, old files as they were, nothing left over.

Really full: a tmpfs of a chosen size (`small_disks`). At every write: ENOSPC instead of what takes room (`points`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import pandas as pd
import pytest
import torch
from _pytest.mark import ParameterSet
from safetensors.torch import save_file

from symile_clin import disk, files
from symile_clin.errors import DiskError
from tests.faults.points import GROWS, ROOT, Fault, Outcome, Session, firsts
from tests.faults.small_disks import LARGE, MORE, UNCHECKED, SmallDisk
from tests.faults.stages import STAGES

#: Path, reason and room, in one line.
LINE: Final = re.compile(
    r"symile-clin: \S.* could not be written: (No space left on device|it was taken only in part)\. "
    r"Expected (more than )?(\d[\d.,]* [kMGT]?B of )?room for \S.*\.\n?"
)
BEFORE: Final = re.compile(r"symile-clin: the disk of \S+ has \d[\d.]* \w+ free\. Expected \d[\d.]* \w+ for .*\.\n?")
#: What outlives a failure: locks, whole copies of tables, answers, and what a build has read.
KEPT: Final = re.compile(
    r"\.lock$|/\.cache(/|$)|/\.tiny\.building(/shards(/[0-9a-f]{32}(/.*)?)?)?$|^mlflow\.db|^mlartifacts"
)
#: Of the room that a stage takes.
SHARES: Final = (0.0, 0.4, 0.9)
#: The others' work is seconds of a core each.
QUICK: Final = frozenset({"synth", "checkpoint", "embed", "index"})
ALL_STAGES: Final = {**STAGES, **MORE}
ON_REAL_DISKS: Final = (
    "synth", "checkpoint", "embed", "index", "export", "build", "rebuild", "train", "embed npz", "eval", "report",
    "information", "audit", "compare",
)  # fmt: skip
#: With the bytes that are free: less than what a stage looks for.
LOOKED_FOR: Final = {"train": 1 << 18, "index": 0, "embed": 0, "export": 1 << 18, "eval": 1 << 18, "build": 1 << 18}
INJECTED: Final = ("synth", "checkpoint", "embed", "embed npz", "index", "build", "rebuild", "train", "eval", "report")


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One process that starts them all, with a disk of its own where that can be."""
    place = tmp_path_factory.mktemp("disk")
    can = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(place)]
    is_able = shutil.which("unshare") and not subprocess.run(can, capture_output=True, check=False).returncode
    with SmallDisk(place) if is_able else Session() as opened:
        yield opened


@pytest.fixture
def session(anywhere: Session) -> SmallDisk:
    """The same, if it has a disk of its own."""
    if not isinstance(anywhere, SmallDisk):
        pytest.skip("no mount namespace of one's own here: the injected ENOSPC shows the same")
    return anywhere


def _slow(stages: Iterable[str], quick: Collection[str]) -> list[ParameterSet]:
    return [pytest.param(stage, marks=[] if stage in quick else pytest.mark.slow) for stage in stages]


def content(folder: Path) -> dict[str, str]:
    """Digest of every file, by path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _refused(done: Outcome, before: dict[str, str], folder: Path, stage: str, line: re.Pattern[str] = LINE) -> None:
    """It failed with one line, changed nothing that was there, and left nothing."""
    assert done.code == 1, f"{done.code}: {done.output}"
    said = done.output
    if stage == "checkpoint":  # a function of Python, not a command: its error is what a traceback ends with
        said = said.splitlines()[-1].replace("symile_clin.errors.DiskError: ", "symile-clin: ")
    assert line.fullmatch(said), done.output
    now = content(folder)
    assert {path: digest for path, digest in now.items() if path in before and not KEPT.search(path)} == {
        path: digest for path, digest in before.items() if not KEPT.search(path)
    }
    new = {path for path in now.keys() - before.keys() if not KEPT.search(path)}
    if stage in ("train", "checkpoint", "eval"):  # checkpoints that a run goes on from; an evaluation without its page
        new = {path for path in new if ".building" in path or ".tmp" in path}
    assert new == set()


@pytest.mark.parametrize("stage", _slow(ON_REAL_DISKS, QUICK - {"index"}))
def test_a_disk_that_is_really_full_costs_no_old_file_and_is_said_in_one_line(
    stage: str, session: SmallDisk, tmp_path: Path
) -> None:
    start, work = tmp_path / "start", session.place / "work"
    start.mkdir()
    ALL_STAGES[stage].prepare(session, start)
    before = content(start)
    session.mount()
    try:
        shutil.copytree(start, session.seen / "work")
        empty = session.used
        clean = session.run(stage, work)
        assert clean.code == 0, clean.output
        grown = session.used - empty
        for share in SHARES:
            shutil.rmtree(session.seen / "work")
            shutil.copytree(start, session.seen / "work")
            session.resize(session.used + int(grown * share) // 4096 * 4096)
            done = session.run(f"{UNCHECKED}{stage}", work)
            _refused(done, before, session.seen / "work", stage)
            session.resize(LARGE)
            again = session.run(_again(stage, session.seen / "work"), work)
            assert again.code == 0, again.output
    finally:
        session.unmount()


def _again(stage: str, folder: Path) -> str:
    choose = ALL_STAGES[stage].again
    return stage if choose is None else choose(folder) or stage


@pytest.mark.parametrize("stage", _slow(LOOKED_FOR, {"train", "index"}))
def test_too_little_room_is_said_before_the_work(stage: str, session: SmallDisk, tmp_path: Path) -> None:
    start, work = tmp_path / "start", session.place / "work"
    start.mkdir()
    ALL_STAGES[stage].prepare(session, start)
    before = content(start)
    session.mount()
    try:
        shutil.copytree(start, session.seen / "work")
        clean = session.run(stage, work)
        assert clean.code == 0, clean.output
        shutil.rmtree(session.seen / "work")
        shutil.copytree(start, session.seen / "work")
        session.resize(session.used + LOOKED_FOR[stage])
        done = session.run(stage, work)
        _refused(done, before, session.seen / "work", stage, line=BEFORE)
        assert done.seconds < clean.seconds
    finally:
        session.unmount()


@pytest.mark.parametrize("stage", _slow(INJECTED, QUICK))
def test_a_disk_that_is_full_at_any_place_of_the_code_costs_no_old_file(
    stage: str, anywhere: Session, tmp_path: Path
) -> None:
    start, work = tmp_path / "start", tmp_path / "work"
    start.mkdir()
    STAGES[stage].prepare(anywhere, start)
    before = content(start)
    shutil.copytree(start, work)
    clean = anywhere.run(stage, work)
    assert clean.code == 0, clean.output
    places = [point for point in firsts(clean.points) if point.event in GROWS]
    assert len(places) >= 2
    for point in places:
        shutil.rmtree(work)
        shutil.copytree(start, work)
        done = anywhere.run(stage, work, Fault.full(point))
        _refused(done, before, work, stage)


def _into(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)


WRITERS: Final[dict[str, Callable[[Path], object]]] = {
    "text": lambda path: path.write_text("x" * 10_000),
    "numpy": lambda path: _into(path, lambda file: np.save(file, np.zeros(10_000))),
    "zip": lambda path: _into(path, lambda file: np.savez(file, a=np.zeros(10_000))),
    "parquet": lambda path: pd.DataFrame({"a": np.random.default_rng(0).random(10_000)}).to_parquet(path),
    "csv": lambda path: pd.DataFrame({"a": np.arange(10_000)}).to_csv(path),
    "safetensors": lambda path: save_file({"a": torch.zeros(10_000)}, path),
    "torch": lambda path: _into(path, lambda file: torch.save({"a": torch.zeros(10_000)}, file)),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that libraries leave open
@pytest.mark.parametrize("library", WRITERS)
def test_whatever_library_writes_a_refusal_is_one_error_that_names_the_file(library: str, tmp_path: Path) -> None:
    """Files of this process may not grow beyond 4 kB: a real refusal of the system, that no library can know of."""
    path = tmp_path / "made"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # Python ignores its signal
    try:
        with pytest.raises(DiskError) as caught, files.atomic(path) as temporary:
            WRITERS[library](temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value).startswith(f"{path} could not be written: ")
    assert f"of room for {path}." in str(caught.value) or f"room for {path}." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("named", [False, True])
def test_another_refusal_of_the_disk_is_one_line_that_names_the_file(tmp_path: Path, number: int, named: bool) -> None:
    path = tmp_path / "made"
    with pytest.raises(DiskError) as caught, files.atomic(path) as temporary:
        raise OSError(number, os.strerror(number), *([str(temporary)] if named else []))
    assert str(caught.value) == f"{path} could not be written: {os.strerror(number)}."
    with pytest.raises(DiskError) as caught, files.atomic_directory(path) as folder, files.atomic(folder / "a"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"{path / 'a'} could not be written: {os.strerror(number)}."
    assert [one for one in tmp_path.iterdir() if one.suffix != ".lock"] == []


def test_what_another_file_refuses_is_not_said_of_this_one(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), files.atomic(tmp_path / "made"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")
    with pytest.raises(BrokenPipeError), files.atomic(tmp_path / "made"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def _half_a_directory(path: Path) -> None:
    with files.atomic_directory(path, needed=7_000_000) as folder:
        files.write_text(folder / "first", "x" * 2_000_000)
        with files.atomic(folder / "second"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_room_that_is_said_is_of_the_whole(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        _half_a_directory(tmp_path / "all")
    assert str(caught.value) == (
        f"{tmp_path / 'all' / 'second'} could not be written: No space left on device. "
        f"Expected 7.0 MB of room for {tmp_path / 'all'}. Free some and run it again."
    )


def test_room_is_looked_for_on_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    disk.require_space(tmp_path / "a" / "b", free // 2)
    with pytest.raises(DiskError, match=r"the disk of \S+/a/b has .* free\. Expected .* for a cohort"):
        disk.require_space(tmp_path / "a" / "b", 2 * free + 1, what="a cohort")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_one_line_and_a_code(more: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "symile_clin", "synth", str(tmp_path / "tree"), "--patients", "1"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--workers", "1", *more], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"symile-clin: stdout could not be written: No space .* Expected \d+ kB of room .*", line)


def test_a_join_that_spills_onto_a_full_disk_names_the_place_and_the_room(session: SmallDisk) -> None:
    """In a process of the session's namespace, on a disk of 2 MB."""
    session.mount()
    try:
        session.resize(2 << 20)
        done = session.run("spill", session.place)
    finally:
        session.unmount()
    assert done.code == 1
    assert re.fullmatch(
        r"symile-clin: the join does not fit into 64MB of memory and what is free on the disk of \S+\. "
        r"Expected more than [\d.]+ \w+ of room there for what it spills\. .*--threads\.\n",
        done.output,
    ), done.output


@pytest.mark.parametrize("room", [8 << 10, pytest.param(300 << 10, marks=pytest.mark.slow)])
def test_a_tracker_whose_disk_is_full_does_not_stop_training(session: SmallDisk, tmp_path: Path, room: int) -> None:
    """The store is on a small disk, or one that is full as soon as it is made; the run is elsewhere."""
    ALL_STAGES["tracked train"].prepare(session, tmp_path)
    (tmp_path / "store").symlink_to(session.place)
    session.mount()
    try:
        session.resize(room)
        done = session.run("tracked train", tmp_path)
    finally:
        session.unmount()
    assert done.code == 0, done.output
    assert files.read_manifest(tmp_path / "runs/run") is not None
