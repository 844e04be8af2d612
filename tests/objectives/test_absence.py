"""Symile where samples lack modalities, against loops over anchors, samples and the tuples that they may take."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from symile_clin.objectives import Symile
from symile_clin.objectives.presence import presence_patterns
from tests.objectives.oracles import (
    embeddings,
    slow_exhaustive_with_absence,
    slow_permuted_with_absence,
    with_absence,
)

SCALE = torch.tensor(0.7, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "n"), [(2, 5), (3, 7), (4, 6)])
def test_exhaustive_equals_the_loop(k: int, n: int, seed: int) -> None:
    tensors, present = with_absence(k, n=n, d=3, seed=seed)
    slow = slow_exhaustive_with_absence(tensors, present, 0.7)
    assert slow is not None
    assert float(Symile().loss(tensors, SCALE, present=present).detach()) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "n"), [(2, 5), (3, 7), (4, 12)])
def test_permuted_equals_the_loop(k: int, n: int, seed: int) -> None:
    tensors, present = with_absence(k, n=n, d=3, seed=seed)
    generators = (torch.Generator().manual_seed(3) for _ in range(2))
    loss = Symile("permuted").loss(tensors, SCALE, present=present, generator=next(generators))
    slow = slow_permuted_with_absence(tensors, present, 0.7, next(generators))
    assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("negatives", ["exhaustive", "permuted"])
def test_gradients_equal_finite_differences(negatives: str) -> None:
    vectors = list(embeddings(3, n=5, d=2).values())
    placeholders = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    table = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]], dtype=torch.bool)
    present = {f"m{index}": here for index, here in enumerate(table.unbind(1))}

    def loss(scale: Tensor, placeholders: Tensor, *vectors: Tensor) -> Tensor:
        tensors = {
            name: torch.where(here.unsqueeze(1), vector, placeholder)
            for (name, here), vector, placeholder in zip(present.items(), vectors, placeholders, strict=True)
        }
        objective = Symile("exhaustive" if negatives == "exhaustive" else "permuted")
        return objective.loss(tensors, scale, present=present, generator=torch.Generator().manual_seed(1))

    assert torch.autograd.gradcheck(loss, (SCALE.clone().requires_grad_(), placeholders, *vectors))


@pytest.mark.parametrize("negatives", ["exhaustive", "permuted"])
def test_presence_throughout_changes_no_bit(negatives: str) -> None:
    tensors = embeddings(3, n=6, d=4)
    objective = Symile("exhaustive" if negatives == "exhaustive" else "permuted")
    everyone = dict.fromkeys(tensors, torch.ones(6, dtype=torch.bool))
    losses = [
        objective.loss(tensors, SCALE, present=present, generator=torch.Generator().manual_seed(0))
        for present in (None, everyone, {})
    ]
    assert losses[0] == losses[1] == losses[2]


def test_by_hand() -> None:
    # Sample 2 lacks b. Its c is contrasted with the a of all three samples, its a with the c of all three.
    rows = {"a": [1.0, 2.0, 3.0], "b": [1.0, -1.0, 5.0], "c": [1.0, 0.5, 2.0]}
    tensors = {name: torch.tensor(values).unsqueeze(1) for name, values in rows.items()}
    present = {"b": torch.tensor([True, True, False])}
    lone = math.log(sum(math.exp(a * 5 * 2) for a in (1, 2, 3))) - 30
    lone += math.log(sum(math.exp(3 * 5 * c) for c in (1, 0.5, 2))) - 30
    both = 0.0
    for i in (0, 1):
        a, b, c = (values[i] for values in rows.values())
        both += math.log(sum(math.exp(a * y * z) for y in (1, -1) for z in (1, 0.5, 2))) - a * b * c
        both += math.log(sum(math.exp(x * b * z) for x in (1, 2, 3) for z in (1, 0.5, 2))) - a * b * c
        both += math.log(sum(math.exp(x * y * c) for x in (1, 2, 3) for y in (1, -1))) - a * b * c
    loss = Symile().loss(tensors, torch.tensor(1.0), present=present)
    assert float(loss) == pytest.approx((lone + both) / 8, rel=1e-6)


@pytest.mark.parametrize("negatives", ["exhaustive", "permuted"])
def test_with_nothing_to_contrast_loss_and_gradients_are_zero(negatives: str) -> None:
    tensors = embeddings(3, n=3, d=2)
    one_each = {f"m{index}": torch.arange(3) == index for index in range(3)}
    scale = SCALE.clone().requires_grad_()
    objective = Symile("exhaustive" if negatives == "exhaustive" else "permuted")
    loss = objective.loss(tensors, scale, present=one_each)
    assert float(loss.detach()) == 0.0
    for gradient in torch.autograd.grad(loss, [scale, *tensors.values()]):
        assert not gradient.any()


def test_what_no_tuple_may_use_is_not_touched() -> None:
    # Sample 0 has one modality only, so not even a model without placeholders (NaN) is asked for the others.
    tensors = {name: tensor.detach().clone() for name, tensor in embeddings(3, n=4, d=2).items()}
    tensors["m1"][0] = tensors["m2"][0] = torch.nan
    here = torch.tensor([False, True, True, True])
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    loss = Symile().loss(leaves, SCALE, present={"m1": here, "m2": here})
    assert torch.isfinite(loss)
    for gradient in torch.autograd.grad(loss, list(leaves.values())):
        assert torch.isfinite(gradient).all()


def test_a_modality_that_none_has_leaves_the_others_as_they_are() -> None:
    tensors = embeddings(3, n=5, d=4)
    tensors["m2"] = torch.ones(5, 4, dtype=torch.float64, requires_grad=True)
    nobody = torch.zeros(5, dtype=torch.bool)
    loss = Symile().loss(tensors, SCALE, present={"m2": nobody})
    pair = Symile().loss({name: tensors[name] for name in ("m0", "m1")}, SCALE)
    torch.testing.assert_close(loss, pair)


def test_the_pattern_of_absence_teaches_nothing() -> None:
    # Presence is all that differs between samples: every pattern's loss is that of guessing among its own tuples.
    tensors = {name: torch.ones(6, 4) for name in ("a", "b", "c")}
    tensors["c"] = torch.where(torch.arange(6).unsqueeze(1) < 2, 1.0, -7.0).expand(6, 4)
    here = torch.arange(6) < 2
    loss = Symile().loss(tensors, torch.tensor(1.0), present={"c": here})
    expected = 2 * (math.log(6 * 2) * 2 + math.log(36)) + 4 * 2 * math.log(6)
    assert float(loss) == pytest.approx(expected / (2 * 3 + 4 * 2), rel=1e-6)


def test_patterns_hold_every_sample_that_has_two_modalities_once() -> None:
    tensors, present = with_absence(4, n=40, d=1, seed=5)
    table = torch.stack(list(present.values()), dim=1)
    patterns = presence_patterns(tensors, present)
    assert sum(len(pattern.matched) for pattern in patterns) == int((table.sum(1) > 1).sum())
    for pattern in patterns:
        assert len(pattern.tensors) + len(pattern.placeholders) == 4
        assert int(pattern.matched.max()) < max(len(tensor) for tensor in pattern.tensors)
