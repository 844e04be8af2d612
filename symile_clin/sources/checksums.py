"""A source's SHA256SUMS.txt, as PhysioNet ships it: hundreds of thousands of lines, of which few are asked for."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from symile_clin import disk

SUMS: Final = "SHA256SUMS.txt"
#: Of a line: a digest, two spaces or a space and a star, and a path.
MAX_LINE_BYTES: Final = 8192
_DIGEST: Final = 64


def listed_digests(root: Path, wanted: Collection[str]) -> dict[str, str]:
    """The SHA-256 that a source's list has for some of its files; empty where there is no list.

    The list is read line by line: memory is that of what is wanted.

    Args:
        wanted: paths relative to `root`.

    Returns:
        Hex digests by path, of those that are listed. Lines of another form list nothing.
    """
    names = {name.encode(errors="surrogatepass"): name for name in wanted}
    path = root / SUMS
    found: dict[str, str] = {}
    if not names or not path.is_file():  # nor a pipe, which would be waited for
        return found
    with disk.reading(path), path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            name = line[_DIGEST:].strip()
            own = names.get(name)
            if own is None and name[:1] in (b"*", b"."):
                own = names.get(name.removeprefix(b"*").removeprefix(b"./"))
            if own is not None and _is_digest(line[:_DIGEST]):
                found[own] = line[:_DIGEST].decode().lower()
    return found


def _is_digest(text: bytes) -> bool:
    return len(text) == _DIGEST and all(byte in b"0123456789abcdefABCDEF" for byte in text)
