"""TRIANGLE against loops, areas worked out by hand, and what it learns that no pair tells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from symile_clin.objectives import Triangle
from symile_clin.objectives.triangle import area, squared_area
from tests.objectives.rival_oracles import Vector, every_pattern, slow_anchored, slow_area, unit_embeddings
from tests.objectives.xor import xor_accuracy

SCALE = torch.tensor(0.7, dtype=torch.float64)


def _slow_twice_squared(vectors: Sequence[Vector]) -> float:
    return 2 * slow_area(vectors) ** 2


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_the_loop(squared: bool, smoothing: float) -> None:
    tensors = unit_embeddings(3, n=5, d=6)
    everyone = {name: [True] * 5 for name in tensors}
    for anchor, anchors in ((None, list(tensors)), ("m1", ["m1"])):
        loss = Triangle(anchor, squared, smoothing).loss(tensors, SCALE)
        size = _slow_twice_squared if squared else slow_area
        slow = slow_anchored(
            tensors, everyone, 0.7, size=size, anchors=anchors, keep_placeholders=True, label_smoothing=smoothing
        )
        assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


def test_every_pattern_of_absence_equals_the_loop() -> None:
    tensors = unit_embeddings(3, n=19, d=5)
    present = every_pattern(tensors)
    given = {name: here.tolist() for name, here in present.items()}
    loss = Triangle().loss(tensors, SCALE, present=present)
    slow = slow_anchored(tensors, given, 0.7, size=slow_area, anchors=list(tensors), keep_placeholders=True)
    assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)
    for gradient in torch.autograd.grad(loss, list(tensors.values())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("squared", [False, True])
def test_gradients_equal_finite_differences(squared: bool) -> None:
    tensors = unit_embeddings(3, n=3, d=5)

    def loss(scale: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return Triangle(squared=squared).loss(dict(zip(tensors, values, strict=True)), scale)

    assert torch.autograd.gradcheck(loss, (SCALE.clone().requires_grad_(), *tensors.values()))


def test_areas_by_hand() -> None:
    e1, e2, e3 = torch.eye(3, dtype=torch.float64).unsqueeze(1)
    assert area(e1, e2, e3).item() == pytest.approx(math.sqrt(3) / 2)  # equilateral, sides of sqrt(2)
    assert area(e1, e2, -e2).item() == pytest.approx(1)  # base 2, height 1
    assert area(3 * e1, e2, -e2).item() == pytest.approx(3)
    assert area(e1, e1, e2).item() == pytest.approx(0, abs=1e-7)
    assert squared_area(e1, e2, -e2).item() == pytest.approx(1)


def test_the_squared_option_is_the_authors_training_code() -> None:
    tensors = unit_embeddings(3, n=4, d=5)
    x, y, z = (tensor.detach() for tensor in tensors.values())
    u, v = x.unsqueeze(1) - y, x.unsqueeze(1) - z
    published = (u.square().sum(2) * v.square().sum(2) - (u * v).sum(2).square()) / 2
    score = Triangle(squared=True).score({"m1": y, "m2": z}, x, target="m0")
    torch.testing.assert_close(score, -published.T)


def test_score_is_minus_the_area_with_both_queries() -> None:
    tensors = unit_embeddings(3, n=4, d=5)
    scores = Triangle().score({name: tensors[name] for name in ("m0", "m2")}, tensors["m1"], target="m1")
    for i in range(4):
        for j in range(4):
            slow = slow_area([tensors["m0"][i].tolist(), tensors["m1"][j].tolist(), tensors["m2"][i].tolist()])
            assert scores[i, j].item() == pytest.approx(-slow, abs=1e-9)


@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-4, 1e-2])
def test_float32_gradients_of_nearly_equal_points_are_finite_and_bounded(distance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.functional.normalize(torch.randn(8, 32, generator=generator), dim=1)
    near = [
        torch.nn.functional.normalize(base + distance * torch.randn(8, 32, generator=generator), dim=1).requires_grad_()
        for _ in range(3)
    ]
    areas = area(*near)
    true = area(*(tensor.detach().double() for tensor in near))
    torch.testing.assert_close(areas.detach().double(), true, rtol=1e-3, atol=2e-3)
    for gradient in torch.autograd.grad(areas.sum(), near):
        assert gradient.isfinite().all()
        # moving a corner changes the area by at most half the opposite side, here 2 at most, for each of 8 triangles
        assert (gradient.norm(dim=1) <= 8 * 1.01).all()


def test_it_finds_synergy_that_no_pair_shows() -> None:
    assert xor_accuracy(Triangle()) == 1
