"""What counts as unlike the training states, and shares of a reference against counting."""

from __future__ import annotations

import numpy as np
import pytest

from symile_clin.audit import unlike
from symile_clin.audit.unlike import Usual, share_below


def states(n: int, d: int = 12, *, seed: int = 0) -> np.ndarray:
    """Correlated states: a few directions hold almost all that there is."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, d))
    return (5 + rng.normal(size=(n, 4)) @ mixing + 0.05 * rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("axes", [64, 6])
def test_a_state_that_breaks_what_coordinates_have_in_common_is_unlike(
    axes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlike, "AXES", axes)
    usual = Usual(states(600), seed=0, name="red")
    reference = usual.unlike(states(200, seed=1))
    broken = states(50, seed=2)
    for column in range(12):  # each coordinate keeps its values, but of different samples
        broken[:, column] = np.roll(broken[:, column], column)
    shares = share_below(usual.unlike(broken), reference, among=False)
    assert np.median(shares) > 0.99
    assert 0.3 < share_below(usual.unlike(states(200, seed=3)), reference, among=False).mean() < 0.7


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_a_state_of_unusual_length_is_unlike(factor: float) -> None:
    usual = Usual(states(600), seed=0, name="red")
    reference = usual.unlike(states(200, seed=1))
    assert share_below(usual.unlike(factor * states(50, seed=2)), reference, among=False).min() > 0.95


def test_scores_are_the_same_again_and_differ_by_seed_and_name() -> None:
    train, new = states(100), states(20, seed=1)
    first = Usual(train, seed=0, name="red").unlike(new)
    assert (first == Usual(train, seed=0, name="red").unlike(new)).all()
    assert (first != Usual(train, seed=1, name="red").unlike(new)).any()
    assert (first != Usual(train, seed=0, name="green").unlike(new)).any()
    assert ((first > 0) & (first < 1)).all()


@pytest.mark.parametrize("d", [3, 80])
def test_collapsed_states_are_all_alike(d: int) -> None:
    usual = Usual(np.zeros((30, d), dtype=np.float32), seed=0, name="red")
    scores = usual.unlike(np.zeros((4, d), dtype=np.float32))
    assert (scores == scores[0]).all()
    assert (share_below(scores, scores, among=True) == 0.5).all()


def test_more_coordinates_than_training_samples() -> None:
    train = np.random.default_rng(0).normal(size=(25, 400)).astype(np.float32)
    usual = Usual(train, seed=0, name="red")
    assert (usual.unlike(10 * train) > usual.unlike(train).mean()).all()


def test_shares_are_those_of_counting() -> None:
    rng = np.random.default_rng(0)
    scores, reference = rng.integers(0, 9, 40).astype(float), rng.integers(0, 9, 30).astype(float)
    counted = [np.mean([(r < s) + 0.5 * (r == s) for r in reference]) for s in scores]
    np.testing.assert_allclose(share_below(scores, reference, among=False), counted)
    among = [
        np.mean([(r < s) + 0.5 * (r == s) for j, r in enumerate(reference) if j != i]) for i, s in enumerate(reference)
    ]
    np.testing.assert_allclose(share_below(reference, reference, among=True), among)
