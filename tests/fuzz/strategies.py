"""Hypothesis' ways to make hostile files: valid ones with something done to them, or nothing valid at all."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from tests.fuzz.targets import seeds

#: Bytes that mean something to one reader or another.
TOKENS = (
    b"\0", b"\n", b"\r", b"\xff", b'"', b",", b" ", b"0", b"-1", b"99999999999999999999", b"nan", b"inf", b"1e400",
    b"../", b"/etc/passwd", b": ", b"- ", b"{", b"[", b"&a ", b"*a", b"!!python/object/apply:os.system ['true']", b"? ",
    b"<<: ", b"!!int ", b"!!binary ", b"!!timestamp ", b"2001-99-99", b"#", b"(0)/mV", b"\xff\xd8",
    b"\xff\xd9", b"\xff\xda",
    b"\x1f\x8b", b"\xef\xbb\xbf", "․․/".encode(), "\udc80".encode("utf-8", "surrogatepass"), b"\x7f" * 4, b"[" * 50,
)  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, target: str) -> bytes:
    """A valid file with up to four pieces replaced, put in, taken out or doubled; sometimes any bytes."""
    data = bytearray(draw(st.sampled_from(seeds(target))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from((0, 1, 1, 2, 4, 16, 200)))
        piece = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6)))
        if draw(st.integers(0, 7)) == 0:
            piece = bytes(data[place : place + 64])
        data[place : place + length] = piece
    return bytes(data)


def _scalars() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(0, 3), st.floats(), st.text(max_size=8), st.dates(),
        st.datetimes(), st.binary(max_size=4), st.sampled_from(["rest", "24h", "-24h", "all", "subject", "cxr", "1e5"]),
    )  # fmt: skip


def _values() -> st.SearchStrategy[Any]:
    keys = st.text(max_size=5) | st.integers()
    return st.recursive(
        _scalars(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )


@st.composite
def settings(draw: st.DrawFn, target: str) -> bytes:
    """The YAML of a valid settings file in which some values are others, gone, or beside keys that nobody knows."""
    raw = yaml.safe_load(draw(st.sampled_from(seeds(target))))
    for _ in range(draw(st.integers(0, 3))):
        owner = raw
        while True:
            keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(owner[key], dict | list) and draw(st.integers(0, 3)):
                owner = owner[key]
                continue
            if isinstance(owner, dict) and draw(st.integers(0, 3)) == 0:
                owner[draw(st.text(max_size=6) | st.integers() | st.none())] = draw(_values())
            elif draw(st.integers(0, 3)) == 0:
                del owner[key]
            else:
                owner[key] = draw(_values())
            break
    return yaml.safe_dump(raw, allow_unicode=True).encode("utf-8", "surrogatepass")


def files_of(target: str) -> st.SearchStrategy[bytes]:
    """What a target is given."""
    spoilt = spoiled(target)
    if target in ("spec", "config"):
        return st.one_of(settings(target), settings(target), spoilt, st.binary(max_size=200))
    return st.one_of(spoilt, spoilt, spoilt, st.binary(max_size=200))
