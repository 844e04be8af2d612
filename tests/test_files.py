"""Whole under the final name, or not there."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from symile_clin import files
from symile_clin.errors import BusyError, ConfigError, MismatchError


def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1})
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:
        _ = temporary.write_text("half") // 0
    assert files.read_json(path) == {"b": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_writer_left_is_swept_away_or_left_where_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = tmp_path / f".a.{'9' * 30}.tmp", tmp_path / ".a.999999999.tmp"  # of no process
    ours.touch()
    others.touch()
    unlink = Path.unlink

    def sticky(path: Path, missing_ok: bool = False) -> None:
        if path == others:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", sticky)  # a folder's sticky bit, which does not bind root
    files.write_text(tmp_path / "a", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [others.name, "a"]


def test_json_is_the_same_bytes_whatever_the_order_and_refuses_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"x": 1, "y": 2})
    files.write_json(tmp_path / "b", {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "c", {"x": float("nan")})
    assert not (tmp_path / "c").exists()


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(MismatchError, match=r"manifest\.json is not valid JSON"):
        files.read_manifest(tmp_path)


def test_other_json_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(MismatchError, match="is no manifest"):
        files.read_manifest(tmp_path)


def test_atomic_directory_replaces_whole_and_keeps_the_old_one_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "cohort"
    for number in (1, 2):
        with files.atomic_directory(target) as building:
            (building / f"{number}.txt").write_text("x")
    assert [p.name for p in target.iterdir()] == ["2.txt"]
    with pytest.raises(ZeroDivisionError), files.atomic_directory(target) as building:
        _ = (building / "3.txt").write_text("x") // 0
    assert [p.name for p in target.iterdir()] == ["2.txt"]
    assert not list(tmp_path.glob("*.building"))


def _hold(path: str, ready: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with files.lock(Path(path)):
        ready.set()
        done.wait(30)


def test_an_old_directory_that_does_not_go_away_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with files.atomic_directory(tmp_path / "cohort") as building:
        (building / "array").write_text("old")

    def busy(path: str, **_: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", busy)  # as NFS while somebody reads: it keeps the file under another name
        with files.atomic_directory(tmp_path / "cohort") as building:
            (building / "array").write_text("new")
    assert (tmp_path / "cohort" / "array").read_text() == "new"
    with files.atomic_directory(tmp_path / "cohort") as building:
        (building / "array").write_text("newer")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["cohort"]


def test_a_directory_takes_the_place_of_nothing_but_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    before = sorted(tmp_path.iterdir())
    remedies = {
        "link": "a link to .*real. Name the directory",
        "file": "is a file",
        "pipe": "or pipe",
        "device": "a device",
    }
    for name, said in remedies.items():
        with pytest.raises(ConfigError, match=said), files.atomic_directory(tmp_path / name):
            pytest.fail("it begins")
    for name in ("pipe", "device"):
        with pytest.raises(ConfigError, match="is a device or pipe"):
            files.write_text(tmp_path / name, "x")
    assert sorted(tmp_path.iterdir()) == before


def test_a_second_writer_is_refused_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path / ".cohort.lock"), ready, done))
    holder.start()
    assert ready.wait(30)
    with (
        pytest.raises(BusyError, match=r"another process is writing .*cohort"),
        files.atomic_directory(tmp_path / "cohort"),
    ):
        pass
    holder.kill()
    holder.join()
    with files.atomic_directory(tmp_path / "cohort") as building:
        (building / "a").write_text("x")
    assert (tmp_path / "cohort" / "a").is_file()


def test_digest_ignores_key_order() -> None:
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})
