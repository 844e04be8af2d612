"""The joint distribution of the XOR variables in full, and what follows from it by definition: slow, no closed form."""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

Vector = tuple[int, ...]
Joint = dict[tuple[Vector, ...], float]


def joint(variables: int, bits: int, p: float) -> Joint:
    """P(every combination of vectors) that can occur."""
    vectors = list(itertools.product((0, 1), repeat=bits))
    found: Joint = defaultdict(float)
    for free in itertools.product(vectors, repeat=variables - 1):
        each = 1 / len(vectors) ** (variables - 1)
        xor = tuple(sum(coordinates) % 2 for coordinates in zip(*free, strict=True))
        found[(*free, xor)] += each * p
        found[(*free, free[0])] += each * (1 - p)
    return {values: chance for values, chance in found.items() if chance > 0}


def entropy(joint: Joint, of: Sequence[int]) -> float:
    """Of some of the variables together, in nats."""
    marginal: dict[tuple[Vector, ...], float] = defaultdict(float)
    for values, chance in joint.items():
        marginal[tuple(values[index] for index in of)] += chance
    return -sum(chance * math.log(chance) for chance in marginal.values())


def mutual(joint: Joint, one: int, other: int, given: Sequence[int] = ()) -> float:
    """I(one; other | given)."""
    h = [entropy(joint, [*chosen, *given]) for chosen in ([one], [other], [one, other], [])]
    return h[0] + h[1] - h[2] - h[3]


def total_correlation(joint: Joint, variables: int) -> float:
    """Sum of the entropies less the joint entropy."""
    return sum(entropy(joint, [index]) for index in range(variables)) - entropy(joint, range(variables))


def best_guess(joint: Joint, target: int, of: Sequence[int]) -> float:
    """Probability that the most likely value of the target, given others, is the true one."""
    together: dict[tuple[Vector, ...], dict[Vector, float]] = defaultdict(lambda: defaultdict(float))
    for values, chance in joint.items():
        together[tuple(values[index] for index in of)][values[target]] += chance
    return sum(max(chances.values()) for chances in together.values())
