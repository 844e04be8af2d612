"""What the bytes of a JPEG tell before it is decoded: its size, and pages that a disk or a download left out.

A decoder takes zeros for coefficients and warns of nothing. Zero bits are the shortest code of a Huffman table, over
and over. In the standard's own tables (ITU-T T.81, K.3), which OpenCV writes unless told otherwise, that is a factor
of -1 in every place of every block, which no picture has. Where the shortest code says that a block has ended, as in
tables made to measure, a run of zeros may be a black border, and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

#: Two whole blocks and more.
HOLE: Final = bytes(64)
#: Markers of a frame; in others than the first two, pixels are coded in another way.
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
BASELINE: Final = frozenset({0xC0, 0xC1})
_TABLES, _SCAN, _FILL = 0xC4, 0xDA, 0xFF
_END_OF_BLOCK: Final = 0


def frame_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the first frame; None where there is none."""
    for marker, begin, end in _segments(data):
        if marker in FRAMES and end - begin >= 5:
            return int.from_bytes(data[begin + 3 : begin + 5], "big"), int.from_bytes(
                data[begin + 1 : begin + 3], "big"
            )
    return None


def has_hole(data: bytes) -> bool:
    """Whether the first scan of a baseline JPEG holds zeros that no encoder wrote; false where that cannot be told."""
    shortest: dict[int, int] = {}
    for marker, begin, end in _segments(data):
        if marker in FRAMES - BASELINE:
            return False
        if marker == _TABLES:
            shortest |= _shortest_symbols(data[begin:end])
        elif marker == _SCAN:
            table = data[begin + 2] & 15 if end - begin > 2 else -1  # of the first component: what is grey in it
            if shortest.get(table, _END_OF_BLOCK) == _END_OF_BLOCK:
                return False
            following = data.find(b"\xff\xda", end)
            return data.find(HOLE, end, following if following >= 0 else len(data.rstrip(b"\0"))) >= 0
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of the content of each segment up to the first scan's."""
    at = 2
    while at + 4 <= len(data) and data[at] == _FILL:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _FILL:
            at += 1
            continue
        yield marker, at + 4, min(at + 2 + length, len(data))
        if marker == _SCAN:
            return
        at += 2 + length


def _shortest_symbols(segment: bytes) -> dict[int, int]:
    """What the shortest code of each of a segment's tables for coefficients stands for, by the table's number."""
    found: dict[int, int] = {}
    at = 0
    while at + 18 <= len(segment):
        kind, number = segment[at] >> 4, segment[at] & 15
        if kind == 1:
            found[number] = segment[at + 17]
        at += 17 + sum(segment[at + 1 : at + 17])
    return found
