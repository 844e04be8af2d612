"""Estimators of mutual information on correlated Gaussians, where the truth is −d/2 · log(1 − ρ²)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from symile_clin.errors import ConfigError
from symile_clin.evaluation.critics import GaussianConditional, Pair
from symile_clin.evaluation.estimators import (
    ESTIMATORS,
    TAU,
    Estimate,
    clipped_donsker_varadhan,
    contrastive_log_ratio,
    donsker_varadhan,
    estimate_information,
    info_nce,
    nwj,
)


def gaussians(n: int, *, dim: int, information: float, seed: int) -> Pair:
    rho = math.sqrt(1 - math.exp(-2 * information / dim))
    assert -dim / 2 * math.log(1 - rho**2) == pytest.approx(information)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim))
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(n, dim))
    return x.astype(np.float32), y.astype(np.float32)


def estimated(name: str, *, dim: int, information: float, n: int = 128, train: int = 1500) -> Estimate:
    return estimate_information(
        estimator=name,
        train=gaussians(train, dim=dim, information=information, seed=0),
        held_out=gaussians(2048, dim=dim, information=information, seed=1),
        n=n,
        seed=0,
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_independent_vectors_share_nothing(name: str) -> None:
    found = estimated(name, dim=4, information=0.0)
    assert abs(found.value) < 0.06
    if found.bound == "lower":
        assert found.value < 3 * found.standard_error


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "club"])
def test_gaussians_of_one_nat(name: str) -> None:
    found = estimated(name, dim=6, information=1.0)
    assert found.value > 0.8
    if found.bound == "lower":
        assert found.value < 1.0 + 3 * found.standard_error
    assert found.value == pytest.approx(1.0, abs=0.2)


def test_club_is_above_the_truth_where_the_conditional_is_normal() -> None:
    # With the true conditional CLUB is d ρ² / (1 − ρ²), from the second moments alone.
    found = estimated("club", dim=6, information=1.0)
    rho2 = 1 - math.exp(-2 / 6)
    assert found.value > 1.0
    assert found.value == pytest.approx(6 * rho2 / (1 - rho2), abs=0.2)


def test_info_nce_saturates_at_log_n_and_nwj_does_not() -> None:
    few = estimated("infonce", dim=10, information=4.0, n=8)
    assert few.cap == pytest.approx(math.log(8))
    assert 0.85 * math.log(8) < few.value < math.log(8)
    more = estimated("infonce", dim=10, information=4.0, n=128)
    assert math.log(8) < more.value < 4.0
    uncapped = estimated("nwj", dim=10, information=4.0)
    assert uncapped.cap is None
    assert more.value < uncapped.value < 4.0 + 3 * uncapped.standard_error


def test_what_each_claims_to_be() -> None:
    assert {name: one.bound for name, one in ESTIMATORS.items()} == {
        "infonce": "lower",
        "nwj": "lower",
        "mine": "neither",
        "smile": "neither",
        "club": "neither",
    }
    assert all(one.why and one.source for one in ESTIMATORS.values())


def test_formulas_against_loops() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 7)) * 4)
    s = scores.tolist()
    n = len(s)
    others = [s[i][j] for i in range(n) for j in range(n) if i != j]
    matched = sum(s[i][i] for i in range(n)) / n
    rows = [math.log(n * math.exp(s[i][i]) / sum(math.exp(s[i][j]) for j in range(n))) for i in range(n)]
    columns = [math.log(n * math.exp(s[i][i]) / sum(math.exp(s[j][i]) for j in range(n))) for i in range(n)]
    assert float(info_nce(scores)) == pytest.approx(sum(rows + columns) / (2 * n))
    assert float(nwj(scores)) == pytest.approx(matched - sum(math.exp(t - 1) for t in others) / len(others))
    assert float(donsker_varadhan(scores)) == pytest.approx(
        matched - math.log(sum(map(math.exp, others)) / len(others))
    )
    clipped = [math.exp(max(-TAU, min(TAU, t))) for t in others]
    assert max(others) > TAU
    assert float(clipped_donsker_varadhan(scores)) == pytest.approx(matched - math.log(sum(clipped) / len(others)))
    assert float(contrastive_log_ratio(scores)) == pytest.approx(matched - sum(others) / len(others))


def test_mines_plug_in_is_too_large_on_average_and_nwj_is_not() -> None:
    # A critic s x y of independent normal x and y, of which E exp(s x y) = (1 − s²)^(-1/2) is known.
    rng, s, batches = np.random.default_rng(0), 0.6, 4000
    mine, unbiased = np.empty(batches), np.empty(batches)
    for batch in range(batches):
        x, y = torch.from_numpy(rng.normal(size=(2, 3)))
        scores = s * torch.outer(x, y)
        mine[batch], unbiased[batch] = float(donsker_varadhan(scores)), float(nwj(scores))
    standard_errors = mine.std() / math.sqrt(batches), unbiased.std() / math.sqrt(batches)
    assert mine.mean() > 0.5 * math.log(1 - s**2) + 5 * standard_errors[0]
    assert unbiased.mean() == pytest.approx(-math.exp(-1) / math.sqrt(1 - s**2), abs=4 * standard_errors[1])


def test_the_conditional_density_is_the_normal_one_up_to_a_constant() -> None:
    x, y = torch.randn(5, 3), torch.randn(9, 2) * 3 + 1
    conditional = GaussianConditional(x, y)
    with torch.no_grad():
        found = conditional(x, y)
        mean, raw = conditional.moments(x).chunk(2, dim=1)
        deviation = torch.exp(3 * torch.tanh(raw / 6))
        standard = (y - y.mean(0)) / y.std(0)
        for i in range(5):
            normal = torch.distributions.Normal(mean[i], deviation[i])
            difference = found[i] - normal.log_prob(standard).sum(1)  # type: ignore[no-untyped-call]  # torch's
            assert float(difference.std()) < 1e-4
            assert float(difference.mean()) == pytest.approx(math.log(2 * math.pi), abs=1e-4)


def test_same_seed_same_estimate() -> None:
    first, again = (estimated("infonce", dim=4, information=0.5, train=300) for _ in range(2))
    assert first == again
    assert first.n == 128


def test_an_unknown_estimator_suggests_the_nearest() -> None:
    pair = gaussians(10, dim=2, information=0.1, seed=0)
    with pytest.raises(ConfigError, match="infonce"):
        estimate_information(estimator="infoncee", train=pair, held_out=pair, seed=0)
    with pytest.raises(ConfigError, match="fewer than 4"):
        estimate_information(estimator="nwj", train=pair, held_out=(pair[0][:3], pair[1][:3]), seed=0)
