"""Tests of two runs' first places, and what several tests at once ask of their p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class McNemar:
    """Two runs' first places on the queries where both are decided: right or wrong without a tie.

    Attributes:
        only_first, only_second: discordant queries, that one run has right and the other wrong.
        both, neither: the others; they say nothing about a difference.
        dropped: queries where a run has the truth level with others at the top.
        p: exact, two-sided.
    """

    only_first: int
    only_second: int
    both: int
    neither: int
    dropped: int
    p: float


def mcnemar(first: Values, second: Values) -> McNemar:
    """McNemar's exact test of two runs' recall_at_1 (q,), query by query; it takes queries for independent.

    Under the null each of the n discordant queries is either run's with probability 1/2: with m the smaller of the two
    counts, p = min(1, 2 Σ_{i <= m} C(n, i) / 2^n), worked out in whole numbers. Values between 0 and 1 are ties at the
    decision; those queries are dropped and counted.

    Source:
        McNemar (1947), Note on the sampling error of the difference between correlated proportions or percentages,
        Psychometrika 12(2), in its exact form.
    """
    decided = np.isin(first, (0.0, 1.0)) & np.isin(second, (0.0, 1.0))
    a, b = first[decided] == 1, second[decided] == 1
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_first + only_second
    ways, term = 0, 1
    for i in range(min(only_first, only_second) + 1):
        ways += term
        term = term * (discordant - i) // (i + 1)
    p = 1.0 if 2 * ways >= 1 << discordant else 2 * ways / (1 << discordant)
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        both=int((a & b).sum()),
        neither=int((~a & ~b).sum()),
        dropped=int((~decided).sum()),
        p=p,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: in ascending order the j-th of m is max over i <= j of min(1, (m − i + 1) p_i).

    Rejecting those up to 0.05 keeps the chance of any false rejection at 0.05, however the tests depend on each other.

    Source:
        Holm (1979), Scand. J. Stat. 6(2).
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for position, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[place]))
        adjusted[place] = largest
    return adjusted
