"""Symile's two ways of drawing negatives, its score and its scale, against loops and the authors' package."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from symile import Symile as PeerSymile

from symile_clin.errors import ConfigError
from symile_clin.objectives import Symile, negatives
from symile_clin.objectives.similarity import mip
from symile_clin.objectives.slabs import Budget, cost
from symile_clin.objectives.symile import INITIAL_SPREAD
from tests.objectives.oracles import embeddings, slow_exhaustive, slow_permuted

SCALE = torch.tensor(0.7, dtype=torch.float64)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_exhaustive_equals_the_loop(k: int) -> None:
    tensors = embeddings(k, n=4, d=3)
    loss = Symile("exhaustive").loss(tensors, SCALE)
    assert float(loss.detach()) == pytest.approx(slow_exhaustive(list(tensors.values()), 0.7), abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_permuted_equals_the_loop(k: int) -> None:
    tensors = embeddings(k, n=5, d=3)
    loss = Symile("permuted").loss(tensors, SCALE, generator=torch.Generator().manual_seed(3))
    slow = slow_permuted(list(tensors.values()), 0.7, torch.Generator().manual_seed(3))
    assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (6, 5), (17, 33)])
def test_exhaustive_equals_the_authors_package_with_its_gradients(n: int, d: int) -> None:
    tensors = embeddings(3, n=n, d=d, seed=n)
    scale = SCALE.clone().requires_grad_()
    inputs = [*tensors.values(), scale]
    loss = Symile("exhaustive").loss(tensors, scale)
    peer = PeerSymile(negative_sampling="n_squared")(list(tensors.values()), scale)
    torch.testing.assert_close(loss, peer, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(peer, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("negatives", ["exhaustive", "permuted"])
def test_gradients_equal_finite_differences(k: int, negatives: str) -> None:
    tensors = embeddings(k, n=3, d=2)
    objective = Symile("exhaustive" if negatives == "exhaustive" else "permuted")

    def loss(scale: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return objective.loss(dict(zip(tensors, values, strict=True)), scale, generator=generator)

    assert torch.autograd.gradcheck(loss, (SCALE.clone().requires_grad_(), *tensors.values()))


def test_order_of_modalities_does_not_matter_to_exhaustive() -> None:
    tensors = embeddings(3, n=5, d=4)
    turned = dict(reversed(tensors.items()))
    torch.testing.assert_close(Symile().loss(tensors, SCALE), Symile().loss(turned, SCALE))


def test_with_equal_embeddings_the_loss_is_that_of_guessing() -> None:
    same = {name: torch.ones(6, 4) for name in ("a", "b", "c")}
    scale = torch.tensor(1.0)
    assert float(Symile("exhaustive").loss(same, scale)) == pytest.approx(math.log(36), abs=1e-5)
    assert float(Symile("permuted").loss(same, scale)) == pytest.approx(math.log(6), abs=1e-5)


@pytest.mark.parametrize("negatives", ["exhaustive", "permuted"])
def test_a_batch_of_one_has_nothing_to_lose(negatives: str) -> None:
    one = embeddings(3, n=1, d=4)
    loss = Symile("exhaustive" if negatives == "exhaustive" else "permuted").loss(one, SCALE)
    assert float(loss.detach()) == 0.0


def test_permuted_negatives_follow_the_generator() -> None:
    tensors = embeddings(3, n=8, d=4)

    def loss(seed: int) -> float:
        return float(Symile("permuted").loss(tensors, SCALE, generator=torch.Generator().manual_seed(seed)).detach())

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_synergy_that_no_pair_shows_lowers_the_loss() -> None:
    # c is the XOR of a and b: as signs, c = a * b, so only the triple product is not zero on average.
    signs = torch.tensor(list(product([1.0, -1.0], repeat=2)))
    a, b = signs[:, :1].expand(-1, 16), signs[:, 1:].expand(-1, 16)
    xor = Symile().loss({"a": a, "b": b, "c": a * b}, torch.tensor(1.0))
    unrelated = Symile().loss({"a": a, "b": b, "c": torch.ones_like(a)}, torch.tensor(1.0))
    assert float(xor) < float(unrelated) - 1


def test_the_score_of_matched_tuples_is_their_positive_logit() -> None:
    tensors = embeddings(3, n=5, d=4)
    queries = {name: tensor for name, tensor in tensors.items() if name != "m1"}
    score = Symile().score(queries, tensors["m1"], target="m1")
    assert score.shape == (5, 5)
    torch.testing.assert_close(score.diagonal(), mip(*tensors.values()))
    torch.testing.assert_close(score[2, 4], mip(queries["m0"][2], queries["m2"][2], tensors["m1"][4]))
    vector = Symile().query_vector(queries, "m1")
    torch.testing.assert_close(vector @ tensors["m1"].T, score)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("dim", [64, 1024])
@pytest.mark.parametrize("normalization", ["layernorm", "l2"])
def test_mismatched_logits_start_with_the_same_spread(k: int, dim: int, normalization: str) -> None:
    generator = torch.Generator().manual_seed(0)
    objective = Symile(normalization="l2" if normalization == "l2" else "layernorm")
    tensors = [torch.randn(4000, dim, generator=generator) for _ in range(k)]
    if normalization == "l2":
        tensors = [torch.nn.functional.normalize(tensor, dim=1) for tensor in tensors]
    spread = math.exp(objective.initial_logit_scale(dim, k)) * float(mip(*tensors).std())
    assert spread == pytest.approx(INITIAL_SPREAD, rel=0.1)


def test_more_work_than_hours_is_refused_with_an_estimate() -> None:
    huge = {name: torch.zeros(1, 1).expand(2048, 1024) for name in ("a", "b", "c", "d")}
    expected = r"4 modalities at batch 2,048 .* take 1\.4e\+17 .*about 400\.3 hours.* 96\.\d GiB.*permuted"
    with pytest.raises(ConfigError, match=expected):
        Symile("exhaustive").loss(huge, torch.tensor(1.0))


def test_many_modalities_are_refused_by_their_work_and_not_by_their_number() -> None:
    few = embeddings(7, n=3, d=2)
    loss = Symile("exhaustive").loss(few, SCALE)
    assert float(loss.detach()) == pytest.approx(slow_exhaustive(list(few.values()), 0.7), abs=1e-12)
    many = {f"m{index}": torch.zeros(64, 512) for index in range(8)}
    with pytest.raises(ConfigError, match="8 modalities"):
        Symile("exhaustive").loss(many, torch.tensor(1.0))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_permuted_equals_the_authors_package(k: int) -> None:
    tensors = embeddings(k, n=6, d=5, seed=k)
    scale = SCALE.clone().requires_grad_()
    inputs = [*tensors.values(), scale]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        loss = Symile("permuted").loss(tensors, scale)
        torch.manual_seed(2)
        peer = PeerSymile(negative_sampling="n")(list(tensors.values()), scale)
    torch.testing.assert_close(loss, peer, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(peer, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_bf16_operands_are_rounded_and_only_those_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(9, 64, generator=generator) for name in ("a", "b", "c")}
    scale = torch.tensor(0.1)
    exact, rounded = (float(Symile(precision=precision).loss(tensors, scale)) for precision in ("fp32", "bf16"))
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.01)
    assert float(Symile().loss(tensors, scale)) == exact
    doubled = {name: tensor.double() for name, tensor in tensors.items()}
    assert float(Symile(precision="bf16").loss(doubled, scale)) == pytest.approx(exact, abs=1e-5)


def test_rounding_to_bf16_moves_a_gradient_by_less_than_drawing_negatives_does() -> None:
    generator = torch.Generator().manual_seed(0)
    # Matched tuples with a signal: half of each vector is the product of the others.
    a, b, noise = (torch.randn(48, 256, generator=generator) for _ in range(3))
    tensors = {"a": a, "b": b, "c": (a * b + noise) / 2**0.5}
    scale = torch.tensor(8 / 256)

    def gradient(objective: Symile, seed: int = 0) -> torch.Tensor:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
        loss = objective.loss(leaves, scale, generator=torch.Generator().manual_seed(seed))
        return torch.cat(torch.autograd.grad(loss, list(leaves.values())))

    exact = gradient(Symile(precision="fp32"))
    rounding = float((gradient(Symile(precision="bf16")) - exact).norm() / exact.norm())
    one, other = (gradient(Symile("permuted"), seed) for seed in (0, 1))
    assert rounding < 0.01 < 0.05 < float((one - other).norm() / one.norm())


def test_what_several_cubes_keep_is_reckoned_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few anchors among many rows each modality has a cube of its own, and all wait for the backward."""
    tensors = [torch.zeros(60, 4) for _ in range(3)]
    matched = torch.arange(5).unsqueeze(1).expand(5, 3)
    one = cost((5, 60, 60), 4, element_size=4, budget=Budget.of(torch.device("cpu"), cube=0))
    monkeypatch.setattr(negatives, "MAX_BYTES", 3 * one.kept + one.working - 1)
    with pytest.raises(ConfigError, match="GiB"):
        negatives.exhaustive(tensors, matched)
    monkeypatch.setattr(negatives, "MAX_BYTES", 3 * one.kept + one.working)
    assert negatives.exhaustive(tensors, matched).shape == (3, 5)
