"""McNemar and Holm against cases worked out by hand, and against their definitions."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest

from symile_clin.evaluation.paired_tests import holm, mcnemar
from tests.evaluation.asked_runs import drawn


def pairs(only_first: int, only_second: int, both: int = 0, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    counts = ((1.0, 0.0, only_first), (0.0, 1.0, only_second), (1.0, 1.0, both), (0.0, 0.0, neither))
    rows = [(a, b) for a, b, count in counts for _ in range(count)]
    first, second = np.array(rows).reshape(-1, 2).T
    return first, second


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (1, 5, 14 / 64),  # 2 (1 + 6) / 2^6
        (0, 5, 2 / 32),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (3, 3, 1.0),  # the middle counts on both sides: never more than 1
        (0, 0, 1.0),
        (0, 1, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    found = mcnemar(*pairs(only_first, only_second, both=7, neither=4))
    assert (found.only_first, found.only_second, found.both, found.neither) == (only_first, only_second, 7, 4)
    assert found.p == pytest.approx(p, rel=1e-14)
    assert found.dropped == 0


@pytest.mark.parametrize("discordant", range(1, 10))
def test_mcnemar_counts_every_way_that_coins_could_fall(discordant: int) -> None:
    for found_first in range(discordant + 1):
        as_far = abs(2 * found_first - discordant)
        ways = [sum(coins) for coins in product((0, 1), repeat=discordant)]
        p = Fraction(sum(abs(2 * ones - discordant) >= as_far for ones in ways), 2**discordant)
        assert mcnemar(*pairs(found_first, discordant - found_first)).p == pytest.approx(float(p), rel=1e-14)


def test_mcnemar_leaves_out_what_either_run_has_not_decided() -> None:
    first, second = np.array([1, 1, 0, 0.5, 1, 1 / 3]), np.array([0, 0, 1, 1, 0.25, 1 / 3])
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.both, found.neither, found.dropped) == (2, 1, 0, 0, 3)


def test_a_tie_below_the_first_place_is_a_plain_miss() -> None:
    one = drawn(np.random.default_rng(0), hit=0.4, ties=0.5)
    hits = one.ranks.recall_at(1)
    found = mcnemar(hits, np.zeros_like(hits))
    at_the_top = (one.ranks.n_greater == 0) & (one.ranks.n_tied > 0)
    assert ((one.ranks.n_greater > 0) & (one.ranks.n_tied > 0)).any()
    assert found.dropped == at_the_top.sum() > 0
    assert found.only_first == ((one.ranks.n_greater == 0) & (one.ranks.n_tied == 0)).sum()


def test_mcnemar_of_many_queries_neither_overflows_nor_vanishes() -> None:
    assert mcnemar(*pairs(3000, 3000)).p == 1.0
    assert mcnemar(*pairs(0, 500)).p == 2.0**-499
    assert mcnemar(*pairs(0, 5000)).p == 0.0  # below the smallest number


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04], [0.02, 0.04]),
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),  # the third would be 0.03: no smaller than the one before it
        ([0.5, 0.01, 0.6], [1.0, 0.03, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holm_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def rejected(p_values: list[float], level: float) -> set[int]:
    """Holm's own words: from the smallest p on, reject while p_j <= level / (m − j + 1)."""
    found: set[int] = set()
    for j, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > level / (len(p_values) - j):
            break
        found.add(place)
    return found


def test_adjusted_p_values_reject_what_the_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = rng.random(5) ** 3
        for level in (0.01, 0.05, 0.2, 0.5):
            by_adjusted = {place for place, p in enumerate(holm(p_values.tolist())) if p <= level}
            assert by_adjusted == rejected(p_values.tolist(), level)


def test_holm_does_not_hang_on_the_order() -> None:
    p_values = [0.2, 0.001, 0.03, 0.03]
    by_value = dict(zip(p_values, holm(p_values), strict=True))
    for shuffled in permutations(p_values):
        assert holm(shuffled) == [by_value[p] for p in shuffled]
