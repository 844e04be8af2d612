"""A source file's bytes as they go by: hashed, inflated if gzipped, and noticed if damaged or changed meanwhile."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, cast

from isal import igzip, isal_zlib

from symile_clin import disk
from symile_clin.errors import SourceError

DOWNLOAD_AGAIN: Final = "Check the file against the release's SHA256SUMS.txt and download it again"
_NOT_INFLATED: Final = (zlib.error, cast("type[Exception]", isal_zlib.error))  # typed as an instance by isal


class Archive:
    """An open source file; use `open_archive`.

    Inflating is ISA-L's: it checks length and CRC of every member and refuses what is cut short or followed by other
    bytes, as Python's gzip does, several times faster.
    """

    def __init__(self, path: Path, raw: io.FileIO) -> None:
        self._path = path
        self._hashing = _Hashing(raw)
        self._bytes: Any = igzip.IGzipFile(fileobj=self._hashing) if path.suffix == ".gz" else self._hashing

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """The text in blocks of `size` bytes, each inflated in a thread of its own while the one before is used.

        Raises:
            SourceError: the archive is damaged.
        """
        with ThreadPoolExecutor(1) as inflater:
            ahead = inflater.submit(self._read, size)
            while data := ahead.result():
                ahead = inflater.submit(self._read, size)
                yield data

    def sha256(self) -> str:
        """Hex digest of the file's own bytes, once all blocks have been read."""
        return self._hashing.digest.hexdigest()

    def _read(self, size: int) -> bytes:
        try:
            with disk.reading(self._path):
                data: bytes = self._bytes.read(size)
        except (EOFError, *_NOT_INFLATED) as error:
            raise self._damaged(error) from None
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's trouble, not the archive's
            raise self._damaged(error) from None
        return data

    def _damaged(self, error: Exception) -> SourceError:
        how = "it is not gzip" if "Not a gzipped" in str(error) else "it is cut short"
        if "CRC" in str(error) or "length" in str(error) or isinstance(error, _NOT_INFLATED):
            how = "it does not inflate to what was packed"
        return SourceError(f"{self._path} is a damaged archive: {how}", remedy=DOWNLOAD_AGAIN)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a source file.

    Raises:
        SourceError: the file was changed while it was read.
    """
    with ExitStack() as stack:
        before = path.stat()
        yield Archive(path, stack.enter_context(path.open("rb", buffering=0)))
        after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SourceError(f"{path} changed while it was read", remedy="Start again when it is complete")


class _Hashing(io.RawIOBase):
    """Passes bytes through and hashes them."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size) or b""
        self.digest.update(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = self._raw.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        return count
