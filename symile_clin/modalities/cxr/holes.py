"""Pages of a JPEG that a disk or a download left out, and that read as zeros.

A decoder takes zeros for coefficients and warns of nothing. Zero bits are the shortest code of a Huffman table, over
and over. In the standard's own tables (ITU-T T.81, K.3), which OpenCV writes unless told otherwise, that is a factor
of -1 in every place of every block, which no picture has. Where the shortest code says that a block has ended, as in
tables made to measure, a run of zeros may be a black border, and says nothing.
"""

from __future__ import annotations

from typing import Final

#: Two whole blocks and more.
HOLE: Final = bytes(64)
_OTHER_CODINGS: Final = frozenset({0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_TABLES, _SCAN, _FILL = 0xC4, 0xDA, 0xFF
_END_OF_BLOCK: Final = 0


def has_hole(data: bytes) -> bool:
    """Whether the first scan of a baseline JPEG holds zeros that no encoder wrote; false where that cannot be told."""
    shortest: dict[int, int] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == _FILL:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _FILL:
            at += 1
            continue
        segment = data[at + 4 : at + 2 + length]
        if marker in _OTHER_CODINGS:
            return False
        if marker == _TABLES:
            shortest |= _shortest_symbols(segment)
        elif marker == _SCAN:
            table = segment[2] & 15 if len(segment) > 2 else -1  # of the first component: what is grey in it
            if shortest.get(table, _END_OF_BLOCK) == _END_OF_BLOCK:
                return False
            begin = at + 2 + length
            following = data.find(b"\xff\xda", begin)
            end = following if following >= 0 else len(data.rstrip(b"\0"))
            return data.find(HOLE, begin, end) >= 0
        at += 2 + length
    return False


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
