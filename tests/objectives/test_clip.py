"""Pairwise CLIP against a loop, torch's cross-entropy and its own score."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from symile_clin.objectives import PairwiseClip
from tests.objectives.oracles import embeddings, slow_pairwise_clip
from tests.objectives.rival_oracles import every_pattern, slow_clip
from tests.objectives.xor import xor_accuracy

SCALE = torch.tensor(0.7, dtype=torch.float64)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_loss_equals_the_loop(k: int) -> None:
    tensors = embeddings(k, n=5, d=3)
    pairs = slow_pairwise_clip(list(tensors.values()), 0.7)
    assert len(pairs) == k * (k - 1) // 2
    mean, total = (PairwiseClip(reduction).loss(tensors, SCALE) for reduction in ("mean", "sum"))
    assert float(mean.detach()) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert float(total.detach()) == pytest.approx(sum(pairs), abs=1e-12)


def test_two_modalities_are_plain_clip() -> None:
    tensors = embeddings(2, n=6, d=4)
    logits = SCALE * tensors["m0"] @ tensors["m1"].T
    matched = torch.arange(6)
    expected = (cross_entropy(logits, matched) + cross_entropy(logits.T, matched)) / 2
    torch.testing.assert_close(PairwiseClip().loss(tensors, SCALE), expected)


@pytest.mark.parametrize("k", [2, 3])
def test_gradients_equal_finite_differences(k: int) -> None:
    tensors = embeddings(k, n=3, d=2)

    def loss(scale: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return PairwiseClip().loss(dict(zip(tensors, values, strict=True)), scale)

    assert torch.autograd.gradcheck(loss, (SCALE.clone().requires_grad_(), *tensors.values()))


def test_score_is_the_sum_of_the_pairs_with_the_candidate() -> None:
    tensors = embeddings(3, n=5, d=4)
    queries = {name: tensor for name, tensor in tensors.items() if name != "m2"}
    score = PairwiseClip().score(queries, tensors["m2"], target="m2")
    expected = tensors["m0"] @ tensors["m2"].T + tensors["m1"] @ tensors["m2"].T
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(PairwiseClip().query_vector(queries, "m2") @ tensors["m2"].T, score)


def test_both_normalisations_start_with_the_same_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = {name: torch.randn(9, 64, generator=generator) for name in ("a", "b", "c")}
    layer_normed = {name: torch.nn.functional.layer_norm(vector, (64,)) for name, vector in vectors.items()}
    unit = {name: torch.nn.functional.normalize(vector, dim=1) for name, vector in layer_normed.items()}
    losses = [
        PairwiseClip(normalization="layernorm").loss(
            layer_normed, torch.tensor(math.exp(PairwiseClip(normalization="layernorm").initial_logit_scale(64, 3)))
        ),
        PairwiseClip(normalization="l2").loss(
            unit, torch.tensor(math.exp(PairwiseClip(normalization="l2").initial_logit_scale(64, 3)))
        ),
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=0)
    assert math.exp(PairwiseClip().initial_logit_scale(64, 3)) == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_every_pattern_of_absence_equals_the_loop(k: int) -> None:
    tensors = embeddings(k, n=2**k + 5, d=3)
    present = every_pattern(tensors)
    slow = slow_clip(tensors, {name: here.tolist() for name, here in present.items()}, 0.7)
    mean, total = (PairwiseClip(reduction).loss(tensors, SCALE, present=present) for reduction in ("mean", "sum"))
    assert float(mean.detach()) == pytest.approx(slow, abs=1e-12)
    assert float(total.detach()) == pytest.approx(k * (k - 1) / 2 * slow, abs=1e-12)


def test_what_stands_where_a_modality_is_absent_does_not_matter() -> None:
    tensors = embeddings(3, n=12, d=5)
    present = every_pattern(tensors)
    loss = PairwiseClip().loss(tensors, SCALE, present=present)
    queries, candidates = {name: tensors[name] for name in ("m1", "m2")}, torch.ones(2, 5, dtype=torch.float64)
    score = PairwiseClip().score(queries, candidates, target="m0", present=present)
    for row in range(12):
        known = sum(float(tensors[name][row].sum().detach()) for name in queries if present[name][row])
        assert score[row].tolist() == pytest.approx([known, known])
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor[~present[name]] = torch.nan
    again = PairwiseClip().loss(tensors, SCALE, present=present)
    torch.testing.assert_close(again, loss)
    for gradient in torch.autograd.grad(again, list(tensors.values())):
        assert gradient.isfinite().all()
    torch.testing.assert_close(PairwiseClip().score(queries, candidates, target="m0", present=present), score)


def test_it_is_blind_to_synergy_that_no_pair_shows() -> None:
    # a sum of a function of (a, c) and one of (b, c) is right for three of the four (a, b) at most
    assert xor_accuracy(PairwiseClip()) < 1
