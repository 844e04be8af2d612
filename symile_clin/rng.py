"""Named random streams: every draw in the program comes from a seed and the name of its purpose.

Two purposes never share a stream, so adding a draw in one place changes nothing in another, and any
step can be replayed alone (which is what makes exact resume possible).
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`, the same on every machine and Python version."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the stream called `names`, e.g. `stream(0, "splits")`."""
    return np.random.default_rng(seed_of(seed, *names))
