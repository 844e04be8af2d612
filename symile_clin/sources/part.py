"""The part of a CSV file that a look at it reads, gzipped or plain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from isal import isal_zlib

from symile_clin.errors import SourceError

#: Bytes of text after which no more is read; what is smaller is read whole.
RAW_BYTES: Final = 96 << 20
#: Of an archive larger than this, less is enough for an estimate.
WHOLE_ARCHIVE_BYTES: Final = 24 << 20
HEAD_BYTES: Final = 24 << 20
CHUNK_BYTES: Final = 1 << 20
#: At a time: a chunk may hold a thousand times its size.
INFLATED_BYTES: Final = 16 << 20
#: Blocks of a large plain file, taken from all over it.
BLOCKS: Final = 12
BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Part:
    """Whole lines of a CSV file.

    Attributes:
        header: its first line, without the line's end.
        body: whole lines behind it.
        rows: of the file; counted if `whole`, estimated from the part's bytes per row otherwise.
        whole: the part is all of it.
        times: how many times the file is as long as the part.
    """

    header: bytes
    body: bytes
    rows: int
    whole: bool
    times: float


def read_part(path: Path, *, seconds: float, raw_bytes: int | None = None) -> Part:
    """Read a part of a CSV file.

    Args:
        seconds: after which no more is read.
        raw_bytes: of text to read; by default as much as an estimate needs.

    Raises:
        SourceError: the archive is damaged in the part that was read, or ends too early.
        OSError: the file cannot be opened or read.
    """
    end = time.monotonic() + seconds
    size = path.stat().st_size
    if path.suffix == ".gz":
        most = raw_bytes or (RAW_BYTES * 2 if size <= WHOLE_ARCHIVE_BYTES else HEAD_BYTES)
        text, consumed = _inflate(path, most, end)
        return _part(text, [], share=consumed / size)
    if raw_bytes is None and size > RAW_BYTES:
        return _from_all_over(path, size, end)
    with path.open("rb") as file:
        text = file.read(raw_bytes or RAW_BYTES)
    return _part(text, [], share=min(1.0, len(text) / size))


def _part(head: bytes, blocks: list[bytes], *, share: float) -> Part:
    """The part that consists of a file's head and of whole lines from behind it."""
    header, _, rest = head.partition(b"\n")
    whole = share >= 1
    if not whole:
        rest = rest[: rest.rfind(b"\n") + 1]
    body = b"".join([rest, *blocks])
    lines = body.count(b"\n") + (bool(body) and not body.endswith(b"\n"))
    total = lines if whole else round(lines / max(share, 1e-12))
    return Part(header.rstrip(b"\r"), body, total, whole, 1.0 if whole else 1 / max(share, 1e-12))


def _inflate(path: Path, most: int, end: float) -> tuple[bytes, int]:
    """The head of an archive of any number of members: text, and the bytes of the archive that it came from."""
    parts: list[bytes] = []
    raw = consumed = 0
    member = isal_zlib.decompressobj(31)
    fresh = True  # nothing of the member has been read
    with path.open("rb") as file:
        while raw < most and time.monotonic() < end:
            data = file.read(CHUNK_BYTES)
            if not data:
                if not fresh:
                    raise _damaged(path, "it ends in the middle")
                break
            consumed += len(data)
            while data:
                try:
                    text = member.decompress(data, INFLATED_BYTES)
                except Exception:  # isal names its error in ways that types do not follow
                    raise _damaged(path, "it does not inflate") from None
                fresh = False
                parts.append(text)
                raw += len(text)
                data = member.unconsumed_tail
                if member.eof:
                    data = member.unused_data.lstrip(b"\0")  # members may be padded
                    member = isal_zlib.decompressobj(31)
                    fresh = True
                if raw >= most:
                    consumed -= len(data)
                    break
    if not raw:
        raise _damaged(path, "nothing is in it") if consumed else TimeoutError(f"no answer in time from {path.name}")
    return b"".join(parts), consumed


def _damaged(path: Path, how: str) -> SourceError:
    return SourceError(
        f"{path} is a damaged archive: {how}",
        remedy="Check the file against the release's SHA256SUMS.txt and download it again",
    )


def _from_all_over(path: Path, size: int, end: float) -> Part:
    """The head of a large plain file and whole lines of blocks at seeded places behind it."""
    rng = np.random.default_rng(0)
    with path.open("rb") as file:
        head = file.read(BLOCK_BYTES)
        head = head[: head.rfind(b"\n") + 1]
        step = (size - 2 * BLOCK_BYTES) / BLOCKS
        blocks: list[bytes] = []
        for number in range(BLOCKS):
            if time.monotonic() > end:
                break
            file.seek(BLOCK_BYTES + int(step * (number + rng.random())))
            block = file.read(BLOCK_BYTES)
            blocks.append(block[block.find(b"\n") + 1 : block.rfind(b"\n") + 1])
    return _part(head, blocks, share=(len(head) + sum(map(len, blocks))) / size)
