"""Inputs far from the training data: an isolation forest over the encoder's states and their lengths."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from symile_clin.rng import seed_of

Values = NDArray[np.float64]

#: Principal axes of the states that the forest sees; all of them, where there are fewer.
AXES: Final = 64
TREES: Final = 300
#: Training samples below which nothing is fitted.
FEWEST: Final = 20
#: Axes along which training states spread by less than this share of the largest spread are no direction to be far in.
_LEAST_VARIANCE: Final = 1e-6
_TINY: Final = 1e-12


@final
class Usual:
    """What training states of one modality look like.

    A tree of an isolation forest cuts one coordinate at a time. Coordinates of a learned space mean nothing by
    themselves, and a state can be far off while each of them is usual; so the forest is given the state in the
    principal axes of the training states, where directions in which they hardly differ have a coordinate of their own.
    Two lengths come beside them, each a logarithm: of the state itself, and of its difference from the mean in units of
    the training states' spread along each axis (the Mahalanobis distance; what is beyond the kept axes counts with its
    mean spread).

    Args:
        states: (n, d) of training samples, n >= `FEWEST`.
        seed: of the forest.
        name: of the modality; each has its own random stream.

    Source:
        Liu, Ting and Zhou, "Isolation Forest", ICDM 2008; Tipping and Bishop, "Probabilistic principal component
        analysis", J. R. Stat. Soc. B 61(3), 1999, for the spread beyond the kept axes.
    """

    def __init__(self, states: NDArray[Any], *, seed: int, name: str) -> None:
        rows, dim = states.shape
        self._axes = PCA(min(AXES, dim, rows - 1), random_state=seed_of(seed, "audit", "axes", name) % 2**32)
        with np.errstate(invalid="ignore"):  # the share of the variance, which nothing needs, where there is none
            self._axes.fit(np.asarray(states, dtype=np.float64))
        variance = self._axes.explained_variance_
        least = max(_LEAST_VARIANCE * float(variance.max()), _TINY)
        self._spread = np.sqrt(np.maximum(variance, least))
        self._rest = max(float(self._axes.noise_variance_), least) if dim > len(variance) else np.inf
        self._forest = IsolationForest(n_estimators=TREES, random_state=seed_of(seed, "audit", "forest", name) % 2**32)
        self._forest.fit(self._features(states))

    def unlike(self, states: NDArray[Any]) -> Values:
        """(n,) the forest's anomaly score of each state, in (0, 1): up to 0.5 is usual, towards 1 easily isolated."""
        scores: Values = -self._forest.score_samples(self._features(states))
        return scores

    def _features(self, states: NDArray[Any]) -> Values:
        whole = np.asarray(states, dtype=np.float64)
        along = self._axes.transform(whole)
        beyond = ((whole - self._axes.inverse_transform(along)) ** 2).sum(axis=1)
        distance = np.sqrt(((along / self._spread) ** 2).sum(axis=1) + beyond / self._rest)
        lengths = [np.linalg.norm(whole, axis=1), distance]
        return np.column_stack([along, *(np.log(length + _TINY) for length in lengths)])


def share_below(scores: Values, reference: Values, *, among: bool) -> Values:
    """(n,) share of reference scores below each score, equal ones counted half.

    Args:
        among: the scores are the reference itself, and none is compared with itself.
    """
    ordered = np.sort(reference)
    below, up_to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    level = up_to - below - int(among)
    share: Values = (below + level / 2) / (len(ordered) - int(among))
    return share
