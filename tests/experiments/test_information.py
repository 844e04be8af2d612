"""The closed forms against the whole joint distribution, at their ends, and where 2^bits is out of reach."""

import math

import numpy as np
import pytest

from symile_clin.experiments.information import information, reachable
from tests.experiments.enumeration import best_guess, joint, mutual, total_correlation

P = [0.0, 1e-9, 0.1, 0.3, 0.5, 0.77, 0.9, 1 - 1e-9, 1.0]


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("p", P)
def test_every_term_is_the_enumerated_one(p: float, bits: int) -> None:
    whole = joint(3, bits, p)
    found = information(p, bits)
    a, b, c = range(3)
    assert found.i_a_c == pytest.approx(mutual(whole, a, c), abs=1e-12)
    assert found.i_b_c == pytest.approx(mutual(whole, b, c), abs=1e-12)
    assert found.i_a_b_given_c == pytest.approx(mutual(whole, a, b, [c]), abs=1e-12)
    assert found.i_c_b_given_a == pytest.approx(mutual(whole, c, b, [a]), abs=1e-12)
    assert found.tc == pytest.approx(total_correlation(whole, 3), abs=1e-12)


@pytest.mark.parametrize(("variables", "bits"), [(3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (5, 1)])
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_what_is_reachable_is_the_enumerated_best_guess(p: float, variables: int, bits: int) -> None:
    whole = joint(variables, bits, p)
    for target in range(variables):
        others = [index for index in range(variables) if index != target]
        found = reachable(p, bits, ends=target in (0, variables - 1))
        assert found.all == pytest.approx(best_guess(whole, target, others))
        assert found.pairs == pytest.approx(max(best_guess(whole, target, [one]) for one in others))
        assert found.chance == pytest.approx(best_guess(whole, target, []))


@pytest.mark.parametrize("bits", [1, 2, 5, 53, 54, 1000, 5000])
def test_at_the_ends_everything_is_in_one_term(bits: int) -> None:
    pair, xor = information(0.0, bits), information(1.0, bits)
    whole = bits * math.log(2)
    assert [float(x) for x in (pair.i_a_c, pair.i_a_b_given_c, pair.tc)] == pytest.approx([whole, 0, whole], abs=0)
    assert [float(x) for x in (xor.i_a_c, xor.i_a_b_given_c, xor.tc)] == pytest.approx([0, whole, whole], rel=1e-15)


@pytest.mark.parametrize("bits", [1, 2, 5, 30, 52, 53, 54, 1000, 1074, 1100, 5000])
def test_the_chain_rule_holds_to_rounding_at_any_size(bits: int) -> None:
    p = np.concatenate([np.linspace(0, 1, 101), [1e-300, 1e-20, 1e-9, 1 - 1e-9, 1 - 1e-16]])
    found = information(p, bits)
    total = found.i_a_c + found.i_b_c + found.i_a_b_given_c
    np.testing.assert_allclose(total, found.tc, rtol=1e-14)
    for values in vars(found).values():
        assert np.isfinite(values).all()
        assert (values >= 0).all()


def test_many_bits_come_to_the_limit() -> None:
    # 2^-bits gone: I(a;c) = (1-p) bits log 2 - h(p), and of b another p bits log 2.
    p, bits = np.array([0.25, 0.5]), 200
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    found = information(p, bits)
    np.testing.assert_allclose(found.i_a_c, (1 - p) * bits * np.log(2) - entropy, rtol=1e-14)
    np.testing.assert_allclose(found.i_a_b_given_c, p * bits * np.log(2), rtol=1e-14)


def test_near_the_ends_small_terms_keep_their_digits() -> None:
    # First order in p of I(a;b|c): p (1 - 2^-bits) bits log 2; second order in 1 - p of I(a;c): (N - 1)/2 (1 - p)^2.
    assert information(1e-20, 1000).i_a_b_given_c == pytest.approx(1e-20 * 1000 * math.log(2), rel=1e-13)
    assert information(1e-12, 1).i_a_b_given_c == pytest.approx(1e-12 * 0.5 * math.log(2), rel=1e-3)
    assert information(1 - 1e-6, 2).i_a_c == pytest.approx(1.5e-12, rel=1e-2)


def test_p_and_bits_broadcast() -> None:
    grid = information(np.linspace(0, 1, 5)[:, None], np.arange(1, 4))
    assert grid.tc.shape == (5, 3)
    assert grid.tc[1, 2] == information(0.25, 3).tc


@pytest.mark.parametrize(("p", "bits"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.5, 0)])
def test_what_is_no_probability_or_size_is_refused(p: float, bits: int) -> None:
    with pytest.raises(ValueError, match="expected probabilities"):
        information(p, bits)
