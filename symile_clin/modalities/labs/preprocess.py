"""Lab values as percentiles of the train split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ecdf:
    """A right-continuous empirical distribution: share of the fitted values that are <= x.

    Attributes:
        values: (u,) distinct fitted values, ascending.
        counts: (u,) how often each was seen.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def fit(cls, sample: NDArray[np.float64]) -> Ecdf:
        """Fit to a sample; NaN is left out.

        Raises:
            ValueError: nothing is left.
        """
        seen = sample[~np.isnan(sample)]
        if not len(seen):
            raise ValueError("no value to fit to")
        values, counts = np.unique(seen, return_counts=True)
        return cls(values, counts.astype(np.int64))

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Ecdf:
        """The distribution that `plain` was called on."""
        return cls(np.array(plain["values"], dtype=np.float64), np.array(plain["counts"], dtype=np.int64))

    def plain(self) -> dict[str, Any]:
        """JSON-able values that give the same distribution to the bit."""
        return {"values": self.values.tolist(), "counts": self.counts.tolist()}

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """count(fitted <= x) / n, the same shape; NaN stays NaN."""
        at_most = np.concatenate([[0], np.cumsum(self.counts)])
        share: NDArray[np.float64] = at_most[np.searchsorted(self.values, x, side="right")] / at_most[-1]
        share[np.isnan(x)] = np.nan
        return share

    @property
    def mean(self) -> float:
        """Mean percentile of the fitted values, what a missing lab takes; summed in integers, so it is exact."""
        at_most = np.cumsum(self.counts)
        return int((self.counts * at_most).sum()) / int(at_most[-1]) ** 2
