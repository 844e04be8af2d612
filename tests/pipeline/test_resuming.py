"""Builds that are cut short: the same command finishes them, to the same bytes, without reading again what was read."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from symile_clin import files
from symile_clin.cohort import opening
from symile_clin.cohort.workers import Workers
from symile_clin.data import join
from symile_clin.data.store import newest_cohort, open_cohort
from symile_clin.errors import DiskError, NotFoundError
from symile_clin.modalities.base import Modality, Row
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.resuming import resumable
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree, jpeg

SAMPLES = 40
#: Kills itself at a point of a build, with no chance to clean up; the point is a function that is replaced.
PROGRAM = """
import json, os, signal, sys
# before the forks: these take longer than a build
import duckdb, ibis.backends.duckdb, PIL.Image, pyarrow.parquet
from pathlib import Path
from symile_clin import files
from symile_clin.cohort import opening
from symile_clin.data import join, prepare
from symile_clin.pipeline import cohorts
from symile_clin.progress import Quiet
from symile_clin.sources import cache

opening.SHARD_EVENTS = 8
import symile_clin.cohort.reading as reading
reading.SHARD_EVENTS = 8


def kill_after(module, name, calls):
    original = getattr(module, name)
    def replaced(*arguments, **options):
        replaced.left -= 1
        if replaced.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    replaced.left = calls
    setattr(module, name, replaced)


POINTS = {
    "conversion": (cache, "convert", 2),
    "first shard": (opening, "_write", 0),
    "third shard": (opening, "_write", 3),
    "second modality": (opening, "_write", 7),
    "join": (prepare, "join_shards", 1),
    "lists": (prepare, "write_candidates", 1),
    "manifest": (files, "write_manifest", 0),
    "replacement": (files, "_replace", 0),
    "never": None,
}

def build(source, place, point, overrides):
    os.chdir(place)
    if POINTS[point] is not None:
        kill_after(*POINTS[point])
    roots = {name: source / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
    cohorts.build_cohort(
        spec=str(source / "tiny.yaml"), workers=1, tracking_uri=None, progress=Quiet(), overrides=overrides, **roots
    )


if __name__ == "__main__":
    # each build in a process of its own, forked before any engine has started threads: imports are most of the time
    codes = []
    for place, point, *overrides in json.loads(sys.argv[2]):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                build(Path(sys.argv[1]), place, point, overrides)
                code = 0
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))
"""


class Say(Quiet):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Remember one line."""
        self.lines.append(text)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 admissions that qualify, and one whose X-ray is cut short."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(SAMPLES + 1):
        tree.complete(10_000_000 + number * 2 // 3, 20_000_000 + number, ADMITTED + number % 3 * 400 * HOUR)
    next(iter(sorted(tree.root.rglob("*.jpg")))).write_bytes(jpeg()[:-9])
    tree.write()
    (tree.root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    return tree.root


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a build makes that nothing disturbs."""
    place = tmp_path_factory.mktemp("undisturbed")
    assert run(source, [(place, "never")]) == [0]
    return content(place)


@pytest.fixture
def build(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Build in this process, in an empty working directory, with small shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("symile_clin.cohort.reading.SHARD_EVENTS", 8)
    roots = {name: source / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}

    def call(*overrides: str, **options: Any) -> Any:
        given = {"workers": 1, "progress": Quiet(), **roots, **options}
        return build_cohort(spec=str(source / "tiny.yaml"), overrides=overrides, tracking_uri=None, **given)

    return call


def run(source: Path, builds: Sequence[tuple[Any, ...]]) -> list[int]:
    """Build one after the other: working directory, point of death, overrides. Their return codes."""
    arguments = [sys.executable, "-c", PROGRAM, str(source), json.dumps(builds, default=str)]
    done = subprocess.run(arguments, capture_output=True, timeout=300, check=False)
    codes: list[int] = json.loads(done.stdout)
    return codes


def content(place: Path) -> dict[str, bytes]:
    """Every file of the cohort, without what its manifest tells of the run itself."""
    cohort = place / "data" / "cohorts" / "tiny"
    found = {path.relative_to(cohort).as_posix(): path.read_bytes() for path in cohort.rglob("*") if path.is_file()}
    manifest = json.loads(found.pop("manifest.json"))
    del manifest["runtime"]
    return {**found, "manifest.json": json.dumps(manifest, sort_keys=True).encode()}


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that rooms read from now on, all in this process, where they are seen."""
    found: list[str] = []
    start = Workers.__init__

    def never_cautious(self: Workers, count: int | None = None, *, cautious: bool = False) -> None:  # noqa: ARG001
        start(self, count)

    monkeypatch.setattr(Workers, "__init__", never_cautious)
    for name in ("cxr", "ecg"):
        read = ROOMS[name].read

        def noted(modality: Modality, row: Row, source: Path, read: Any = read) -> Any:
            found.extend(modality.files(row))
            return read(modality, row, source)

        monkeypatch.setattr(ROOMS[name], "read", noted)
    return found


@pytest.mark.parametrize(
    "points",
    [
        ["third shard", "join", "manifest"],
        pytest.param(["conversion", "first shard", "second modality", "lists"], marks=pytest.mark.slow),
    ],
    ids=["some points", "other points"],
)
def test_a_build_that_is_killed_is_finished_to_the_same_bytes(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path, points: list[str]
) -> None:
    for point in points:
        (tmp_path / point).mkdir()
    assert run(source, [(tmp_path / point, point) for point in points]) == [-signal.SIGKILL] * len(points)
    for point in points:
        assert not (tmp_path / point / "data" / "cohorts" / "tiny").exists()
        with pytest.raises(NotFoundError):  # half a cohort is none
            newest_cohort(tmp_path / point / "data" / "cohorts")
    if "third shard" in points:
        assert len(list((tmp_path / "third shard").rglob("outcomes.json"))) == 3
    assert run(source, [(tmp_path / point, "never") for point in points]) == [0] * len(points)
    for point in points:
        assert content(tmp_path / point) == undisturbed
        left = {path.name for path in (tmp_path / point / "data" / "cohorts").iterdir()}
        assert left == {"tiny", ".tiny.lock", ".cache"}


def test_a_replacement_that_is_killed_leaves_the_old_cohort_whole(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    builds = [(tmp_path, "never"), (tmp_path, "replacement", "splits.seed=5")]
    assert run(source, builds) == [0, -signal.SIGKILL]
    assert content(tmp_path) == undisturbed
    assert run(source, [(tmp_path, "never", "splits.seed=5")]) == [0]
    assert open_cohort(tmp_path / "data" / "cohorts" / "tiny").spec["splits"]["seed"] == 5
    assert content(tmp_path)["samples.parquet"] != undisturbed["samples.parquet"]


def test_what_was_read_is_not_read_again(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = opening._write, []

    def full(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)

    monkeypatch.setattr(opening, "_write", full)
    said = Say()
    with pytest.raises(
        DiskError, match=r"tiny could not be written: No space left on device\. Expected more than \d+ kB of room"
    ) as caught:
        build(progress=said)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert said.lines[-1].endswith("the next build there need not read it again.")
    assert len(list(Path("data/cohorts/.tiny.building/shards").iterdir())) == 3
    monkeypatch.setattr(opening, "_write", write)
    paths = reads(monkeypatch)
    build()
    assert len([path for path in paths if path.endswith(".jpg")]) == SAMPLES + 1 - 3 * 8
    assert not Path("data/cohorts/.tiny.building").exists()


def test_a_file_that_changed_meanwhile_is_read_again(
    build: Callable[..., Any], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    roots = {name: copy / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
    monkeypatch.setattr(files, "write_manifest", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        build(**roots)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("symile_clin.cohort.reading.SHARD_EVENTS", 8)
    changed = sorted(copy.rglob("*.jpg"))[20]
    changed.write_bytes(jpeg(level=40))
    paths = reads(monkeypatch)
    build(**roots)
    assert len(paths) == 8
    (again,) = [path for path in paths if (copy / "mimic_cxr" / path) == changed]
    table = pd.read_parquet("data/cohorts/tiny/inputs.parquet").set_index("path")
    assert table.loc[again, "sha256"] == files.sha256(changed)


def test_a_full_disk_in_the_join_leaves_the_old_cohort_and_goes_on_later(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build()

    def full(*_arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file.npy")

    with monkeypatch.context() as patch:
        patch.setattr(join, "_gather", full)
        with pytest.raises(DiskError, match=r"some/file\.npy"):
            build("splits.seed=9")
    assert open_cohort(first.path).hash == first.hash
    paths = reads(monkeypatch)
    assert build("splits.seed=9").hash != first.hash
    assert paths == []


def test_after_a_build_that_died_no_file_is_opened_in_this_process(tmp_path: Path) -> None:
    """It may have died of a file; the first chunk would be read here again, and so for ever."""
    for left in (False, True):
        if left:
            (tmp_path / ".c.building" / "shards").mkdir(parents=True)
        with pytest.raises(ZeroDivisionError), resumable(tmp_path / "c", Quiet()) as place:
            _ = 1 // (place.died is not left)


def test_too_little_room_is_said_before_anything_is_read(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    paths = reads(monkeypatch)
    with pytest.raises(DiskError, match=r"has 100 kB free"):
        build()
    assert paths == []
    assert not Path("data/cohorts/.tiny.building").exists()


def test_one_corrupt_file_among_many_is_in_quarantine_and_no_other_harmed(
    undisturbed: dict[str, bytes], source: Path
) -> None:
    (refused,) = pd.read_parquet(io.BytesIO(undisturbed["quarantine.parquet"])).to_dict("records")
    assert (refused["modality"], refused["reason"]) == ("cxr", "truncated")
    assert refused["path"] == sorted(source.rglob("*.jpg"))[0].relative_to(source / "mimic_cxr").as_posix()
    assert json.loads(undisturbed["manifest.json"])["counts"]["samples"] == SAMPLES


def test_an_old_cohort_that_was_moved_away_is_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot let two directories change places, a kill may fall between two renames."""
    target = tmp_path / "cohort"
    with files.atomic_directory(target) as building:
        (building / "1").touch()
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    rename = Path.rename

    def cut(path: Path, to: Path) -> Path:
        if to == target:
            raise KeyboardInterrupt
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt), files.atomic_directory(target):
            pass
    assert not target.exists()
    with pytest.raises(ZeroDivisionError), files.atomic_directory(target):
        _ = len([path.name for path in target.iterdir() if path.name == "1"]) // 0
    assert [path.name for path in target.iterdir()] == ["1"]
    with files.atomic_directory(target) as building:
        (building / "3").touch()
    assert [path.name for path in target.iterdir()] == ["3"]
    assert [path.name for path in tmp_path.iterdir() if path.name != ".cohort.lock"] == ["cohort"]
