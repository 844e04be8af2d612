"""Whether anybody opened a file, by whatever library, in whatever process: the kernel says so."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_IN_OPEN, _IN_ACCESS, _NON_BLOCKING = 0x20, 0x01, 0o4000
_EVENT = struct.Struct("iIII")


class Opened(list[str]):
    """Names of the watched files that were opened, once `watching` has ended."""


@contextmanager
def watching(*paths: Path) -> Iterator[Opened]:
    """Note every opening of files meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("this system does not say who opens a file")
    handle = libc.inotify_init1(_NON_BLOCKING)
    if handle < 0:
        pytest.skip("the kernel grants no more watches")
    try:
        names = {}
        for path in paths:
            watch = libc.inotify_add_watch(handle, os.fsencode(path), _IN_OPEN | _IN_ACCESS)
            assert watch >= 0, os.strerror(ctypes.get_errno())
            names[watch] = path.name
        opened = Opened()
        yield opened
        try:
            data = os.read(handle, 1 << 20)
        except BlockingIOError:
            return
        while data:
            watch, _, _, length = _EVENT.unpack_from(data)
            opened.append(names[watch])
            data = data[_EVENT.size + length :]
    finally:
        os.close(handle)
