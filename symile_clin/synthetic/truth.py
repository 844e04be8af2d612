"""What is planted in synthetic patients, and how well it can be read from pairs of modalities and from all together.

Every query modality has one factor that it shares with the target, and some synergy factors. The target shows a copy
of each shared factor, then for each j the exclusive or of the queries' j-th synergy factors; every bit of the target
is flipped now and then. A synergy bit of the target is independent of any one query: only all together tell it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from symile_clin.strict import Strict, validate

Factors = NDArray[np.int64]
#: Never 0: then every score is finite.
Flip = Annotated[float, Field(gt=0, lt=0.5)]


class Planting(Strict):
    """What is planted; all factors are drawn anew for each admission, 0 or 1 with equal chance.

    Attributes:
        target: the modality that the queries tell about.
        queries: the other modalities; at least two, or nothing could be synergy.
        synergy_factors: of each query modality, and so of the target.
        shared_flip: chance that a shared bit of the target differs from its query's.
        synergy_flip: chance that a synergy bit of the target differs from the exclusive or.
    """

    target: str
    queries: Annotated[tuple[str, ...], Field(min_length=2)]
    synergy_factors: NonNegativeInt = 2
    shared_flip: Flip = 0.07
    synergy_flip: Flip = 0.01

    @property
    def factors(self) -> dict[str, int]:
        """Number of factors by modality, the target first."""
        shared = {self.target: len(self.queries), **dict.fromkeys(self.queries, 1)}
        return {name: count + self.synergy_factors for name, count in shared.items()}


def read_planting(planted: Mapping[str, Any]) -> Planting:
    """The planting that a manifest records under `planted`.

    Raises:
        ConfigError: not a planting.
    """
    return validate(Planting, dict(planted), source="planted")


def draw_factors(planting: Planting, rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """Factors of one admission by modality."""
    own = {name: rng.integers(0, 2, planting.factors[name]) for name in planting.queries}
    shared = np.array([factors[0] for factors in own.values()])
    synergy = reduce(np.bitwise_xor, [factors[1:] for factors in own.values()])
    flips = np.concatenate(
        [rng.random(len(shared)) < planting.shared_flip, rng.random(len(synergy)) < planting.synergy_flip]
    )
    own = {planting.target: np.concatenate([shared, synergy]) ^ flips, **own}
    return {name: tuple(int(bit) for bit in factors) for name, factors in own.items()}


def scores(
    queries: Mapping[str, Factors], candidates: Factors, planted: Mapping[str, Any], *, synergy: bool
) -> NDArray[np.float64]:
    """Log-likelihood ratio of every candidate for every query, by one who knows the planting and all factors.

    Args:
        queries: factors of each query modality, (q, f) integers.
        candidates: the target's factors, (c, f) integers.
        planted: the planting as the manifest records it.
        synergy: with what only all queries together tell; without, the sum of what each pair tells.

    Returns:
        (q, c) float64, log p(candidate | queries) − log p(candidate) in nats. Equal evidence gives equal bits.
    """
    planting = read_planting(planted)
    evidence = _Evidence(planting)
    shared = np.stack([queries[name][:, 0] for name in planting.queries], axis=1)
    own = len(planting.queries)
    agreeing = _agreements(shared, candidates[:, :own])
    if not synergy:
        return evidence.shared[agreeing]
    combined = reduce(np.bitwise_xor, [queries[name][:, 1:] for name in planting.queries])
    both: NDArray[np.float64] = evidence.shared[agreeing] + evidence.synergy[_agreements(combined, candidates[:, own:])]
    return both


def expected_recall(planted: Mapping[str, Any], n: int = 10) -> dict[str, float]:
    """Best expected recall_at_1 among n candidates, one of them the match and the others drawn at random.

    Exact: summed over what the match and a random candidate can agree in, ties broken at random.

    Returns:
        "pairs": from what each query tells by itself; "full": from all.
    """
    planting = read_planting(planted)
    evidence, own, joint = _Evidence(planting), len(planting.queries), planting.synergy_factors
    match_shared, chance_shared = _binomial(own, 1 - planting.shared_flip), _binomial(own, 0.5)
    match_synergy, chance_synergy = _binomial(joint, 1 - planting.synergy_flip), _binomial(joint, 0.5)
    total = (evidence.shared[:, None] + evidence.synergy[None, :]).ravel()
    return {
        "pairs": _recall_at_1(evidence.shared, match_shared, chance_shared, n),
        "full": _recall_at_1(
            total, np.outer(match_shared, match_synergy).ravel(), np.outer(chance_shared, chance_synergy).ravel(), n
        ),
    }


class _Evidence:
    """Log-likelihood ratio by the number of agreeing bits; looked up, so that ties are exact."""

    def __init__(self, planting: Planting) -> None:
        self.shared = _log_ratio(len(planting.queries), planting.shared_flip)
        self.synergy = _log_ratio(planting.synergy_factors, planting.synergy_flip)


def _log_ratio(bits: int, flip: float) -> NDArray[np.float64]:
    agreeing = np.arange(bits + 1)
    return agreeing * math.log(2 * (1 - flip)) + (bits - agreeing) * math.log(2 * flip)


def _agreements(left: Factors, right: Factors) -> NDArray[np.int64]:
    """In how many bits each row of `left` agrees with each row of `right`."""
    agree: NDArray[np.int64] = (left[:, None, :] == right[None, :, :]).sum(axis=2)
    return agree


def _binomial(bits: int, p: float) -> NDArray[np.float64]:
    return np.array([math.comb(bits, k) * p**k * (1 - p) ** (bits - k) for k in range(bits + 1)])


def _recall_at_1(score: NDArray[np.float64], match: NDArray[np.float64], chance: NDArray[np.float64], n: int) -> float:
    """E[1 / (1 + ties); none greater] for a match drawn with weights `match` among n − 1 drawn with `chance`."""
    total = 0.0
    for own, weight in zip(score, match, strict=True):
        less, tied = float(chance[score < own].sum()), float(chance[score == own].sum())
        # sum over t ties of C(n − 1, t) tied^t less^(n − 1 − t) / (t + 1)
        total += float(weight) * ((less + tied) ** n - less**n) / (n * tied)
    return total
