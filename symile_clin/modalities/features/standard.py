"""Mean and spread of each number of many vectors, in one pass, and vectors standardised by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: A number that varies less than this share of its size is taken as constant: it is the file's rounding.
ROUNDING: Final = 1e-6


class Moments:
    """Weighted mean and variance of each of `width` numbers, in float64.

    Chunks are merged as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.
    """

    def __init__(self, width: int) -> None:
        self._weight = 0.0
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)

    def add(self, values: NDArray[Any], weights: NDArray[np.int64]) -> None:
        """Add vectors (b, width), each `weights` times (b,)."""
        here = weights > 0
        if not here.any():
            return
        some, weight = values[here].astype(np.float64), weights[here].astype(np.float64)
        total = weight.sum()
        mean = weight @ some / total
        squares = weight @ (some - mean) ** 2
        apart, both = mean - self._mean, self._weight + total
        self._squares += squares + apart**2 * self._weight * total / both
        self._mean += apart * total / both
        self._weight = both

    def plain(self) -> dict[str, list[float]]:
        """`mean` and `spread`, the standard deviation; 1 for numbers that are constant."""
        spread = np.sqrt(self._squares / max(self._weight, 1.0))
        varies = spread > ROUNDING * np.abs(self._mean)
        return {"mean": self._mean.tolist(), "spread": np.where(varies, spread, 1.0).tolist()}


def standardized(values: NDArray[Any], state: Mapping[str, Any]) -> NDArray[np.float32]:
    """Vectors (b, width), each number less its mean and over its spread."""
    mean, spread = np.array(state["mean"]), np.array(state["spread"])
    found: NDArray[np.float32] = ((values.astype(np.float64) - mean) / spread).astype(np.float32)
    return found


def fits(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """Which numbers are finite, and stay so as `dtype`."""
    with np.errstate(over="ignore", invalid="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(values) & np.isfinite(values.astype(dtype))
    return finite
