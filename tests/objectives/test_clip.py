"""Pairwise CLIP against a loop, torch's cross-entropy and its own score."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from symile_clin.objectives import PairwiseClip
from tests.objectives.oracles import embeddings, slow_pairwise_clip

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
