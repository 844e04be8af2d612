"""What sources hold is not trusted to be a file of a sensible size."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.whole_file import read_whole


def test_a_file_up_to_the_limit_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert read_whole(tmp_path / "a", limit=1000) == b"x" * 1000
    assert read_whole(tmp_path / "a", limit=999) == Refusal(Reason.TOO_LARGE, "more than 999 bytes")


def test_what_is_no_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    no_file = Refusal(Reason.WRONG_FORMAT, "no regular file")
    assert read_whole(tmp_path / "pipe", limit=10) == no_file
    assert read_whole(tmp_path / "zero", limit=10) == no_file
    assert read_whole(tmp_path, limit=10) == no_file
    assert read_whole(tmp_path / "empty", limit=10) == Refusal(Reason.TRUNCATED, "empty file")
    assert read_whole(tmp_path / "absent", limit=10) == Refusal(Reason.MISSING)
    assert read_whole(tmp_path / "empty" / "below", limit=10) == Refusal(Reason.UNREADABLE, "Not a directory")
    assert read_whole(tmp_path / "loop", limit=10) == Refusal(Reason.UNREADABLE, os.strerror(errno.ELOOP))


def test_a_file_that_may_not_be_read_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")
    if os.geteuid() == 0:  # who may read everything

        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "open", refuse)
    else:
        (tmp_path / "a").chmod(0)
    assert read_whole(tmp_path / "a", limit=10) == Refusal(Reason.UNREADABLE, "Permission denied")
