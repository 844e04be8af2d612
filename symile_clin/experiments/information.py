"""What the XOR variables tell about each other, exactly: information terms and reachable accuracies for any size.

The derivation is in docs/xor.md; all of it rests on c given a being a with probability 1 - p (1 - 2^-bits), and
every other vector equally often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

_SMALLEST: Final = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Information:
    """Information terms of a, b and c in nats, each of the shape that p and bits broadcast to.

    Attributes:
        i_a_c: I(a;c).
        i_b_c: I(b;c), zero: c alone says nothing about b.
        i_a_b_given_c: I(a;b|c).
        i_c_b_given_a: I(c;b|a), equal to I(a;b|c) because b is independent of a and of c.
        tc: total correlation TC(a,b,c), the sum of the first three.
    """

    i_a_c: Values
    i_b_c: Values
    i_a_b_given_c: Values
    i_c_b_given_a: Values
    tc: Values


@dataclass(frozen=True)
class Reachable:
    """Probabilities of guessing one variable, each of the shape that p and bits broadcast to.

    Attributes:
        chance: knowing nothing.
        pairs: knowing what each other variable says about it on its own.
        all: knowing all other variables together; no model can do better on average.
    """

    chance: Values
    pairs: Values
    all: Values


def information(p: ArrayLike, bits: ArrayLike) -> Information:
    """Closed forms of the information terms of a, b ~ Bernoulli(1/2)^bits and c, which is a XOR b or else a.

    Args:
        p: probability, in [0, 1], that c is a XOR b; one draw for all coordinates of a sample.
        bits: coordinates of each vector, at least 1; only logarithms of 2^bits are formed.

    Source:
        the terms of Saporta et al., NeurIPS 2024, figure 3, which the paper's code finds by enumeration.
    """
    share, log_n, chance = _checked(p, bits)
    with np.errstate(divide="ignore"):
        log_share, log_rest = np.log(share), np.log1p(-share)
    # P(c = a | a), the rest of it, minus the logarithm of the first, and the logarithm of its ratio to P(c).
    same, other = (1 - share) + share * chance, share * -np.expm1(-log_n)
    surprise = np.where(other < 0.5, -np.log1p(-np.minimum(other, 0.5)), -np.log(np.maximum(same, _SMALLEST)))
    log_ratio = np.logaddexp(log_share, log_n + log_rest)
    negentropy = _product(share, log_share) + _product(1 - share, log_rest)
    i_a_c = same * log_ratio + _product(other, log_share)
    synergy = same * surprise + (1 - chance) * (share * log_n + _product(1 - share, log_rest))
    return Information(
        i_a_c=np.maximum(i_a_c, 0.0),  # rounding
        i_b_c=np.zeros_like(i_a_c),
        i_a_b_given_c=np.maximum(synergy, 0.0),
        i_c_b_given_a=np.maximum(synergy, 0.0),
        tc=log_n + (1 - chance) * negentropy,
    )


def reachable(p: ArrayLike, bits: ArrayLike, *, ends: bool) -> Reachable:
    """How often a variable can be guessed among all 2^bits vectors.

    Args:
        p, bits: see `information`.
        ends: the variable is the first or the last; false for those between, such as b of three.
    """
    share, _, chance = _checked(p, bits)
    if ends:  # the other end is equal to it unless the XOR was drawn, and not all of the others cancel
        pairs, everything = 1 - share * (1 - chance), chance + (1 - chance) * np.maximum(share, 1 - share)
    else:
        pairs, everything = chance, chance + (1 - chance) * share
    return Reachable(chance=chance, pairs=pairs, all=everything)


def _checked(p: ArrayLike, bits: ArrayLike) -> tuple[Values, Values, Values]:
    """p, log 2^bits and 2^-bits, broadcast against each other."""
    share, size = np.broadcast_arrays(np.asarray(p, dtype=np.float64), np.asarray(bits, dtype=np.float64))
    if not ((share >= 0) & (share <= 1)).all() or not (size >= 1).all():
        raise ValueError(f"p {p!r} and bits {bits!r}; expected probabilities, and at least one bit")
    return share, size * np.log(2), np.exp2(-size)


def _product(value: Values, log: Values) -> Values:
    """value * log, zero where value is, whatever its logarithm."""
    return np.where(value > 0, value * np.where(value > 0, log, 0.0), 0.0)
