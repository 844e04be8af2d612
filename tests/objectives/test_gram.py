"""GRAM against loops, volumes worked out by hand, and what it learns that no pair tells."""

from __future__ import annotations

import math

import pytest
import torch

from symile_clin.errors import ConfigError
from symile_clin.objectives import Gram
from symile_clin.objectives.gram import volume
from tests.objectives.rival_oracles import every_pattern, slow_anchored, slow_volume, unit_embeddings
from tests.objectives.xor import xor_accuracy

SCALE = torch.tensor(0.7, dtype=torch.float64)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_the_loop(k: int, smoothing: float) -> None:
    tensors = unit_embeddings(k, n=4, d=6)
    everyone = {name: [True] * 4 for name in tensors}
    for anchor, anchors in ((None, list(tensors)), ("m1", ["m1"])):
        loss = Gram(anchor, smoothing).loss(tensors, SCALE)
        slow = slow_anchored(
            tensors,
            everyone,
            0.7,
            size=slow_volume,
            anchors=anchors,
            keep_placeholders=False,
            label_smoothing=smoothing,
        )
        assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_every_pattern_of_absence_equals_the_loop(k: int) -> None:
    tensors = unit_embeddings(k, n=2**k + 5, d=5)
    present = every_pattern(tensors)
    given = {name: here.tolist() for name, here in present.items()}
    loss = Gram().loss(tensors, SCALE, present=present)
    slow = slow_anchored(tensors, given, 0.7, size=slow_volume, anchors=list(tensors), keep_placeholders=False)
    assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


def test_what_stands_where_a_modality_is_absent_does_not_matter() -> None:
    tensors = unit_embeddings(3, n=12, d=5)
    present = every_pattern(tensors)
    loss = Gram().loss(tensors, SCALE, present=present)
    queries = {name: tensors[name] for name in ("m1", "m2")}
    score = Gram().score(queries, tensors["m0"], target="m0", present=present)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor[~present[name]] = torch.nan
    torch.testing.assert_close(Gram().loss(tensors, SCALE, present=present), loss)
    for gradient in torch.autograd.grad(Gram().loss(tensors, SCALE, present=present), list(tensors.values())):
        assert gradient.isfinite().all()
    candidates = torch.where(present["m0"].unsqueeze(1), tensors["m0"], 1.0)
    again = Gram().score(queries, candidates, target="m0", present=present)
    torch.testing.assert_close(again[:, present["m0"]], score[:, present["m0"]])


@pytest.mark.parametrize("k", [2, 3, 4])
def test_gradients_equal_finite_differences(k: int) -> None:
    tensors = unit_embeddings(k, n=3, d=5)

    def loss(scale: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return Gram().loss(dict(zip(tensors, values, strict=True)), scale)

    assert torch.autograd.gradcheck(loss, (SCALE.clone().requires_grad_(), *tensors.values()))


def test_volumes_by_hand() -> None:
    e1, e2, e3 = torch.eye(3, dtype=torch.float64).unsqueeze(1)
    slant = 0.5 * e1 + math.sqrt(0.75) * e2  # 60 degrees from e1
    third = 0.5 * e1 + math.sqrt(1 / 12) * e2 + math.sqrt(2 / 3) * e3  # and 60 degrees from both
    assert volume(e1, [e2]).item() == pytest.approx(1)
    assert volume(e1, [e2, e3]).item() == pytest.approx(1)
    assert volume(e1, [slant]).item() == pytest.approx(math.sin(math.pi / 3))
    assert volume(e1, [slant, third]).item() == pytest.approx(math.sqrt(0.5))
    assert volume(2 * e1, [3 * slant, third]).item() == pytest.approx(6 * math.sqrt(0.5))
    assert volume(e1, [-e1]).item() == pytest.approx(0, abs=1e-7)
    assert volume(e1, [slant, e2]).item() == pytest.approx(0, abs=1e-7)  # in one plane


def test_two_orthogonal_samples_cost_by_hand() -> None:
    # Matched pairs are parallel, volume 0; mismatched ones orthogonal, volume 1.
    same = {name: torch.eye(2, dtype=torch.float64) for name in ("a", "b")}
    assert Gram().loss(same, torch.tensor(3.0)).item() == pytest.approx(math.log(1 + math.exp(-3)), abs=1e-6)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_score_is_minus_the_volume_with_the_queries_that_are_present(k: int) -> None:
    tensors = unit_embeddings(k, n=2**k, d=6)
    present = every_pattern(tensors)
    queries = {name: tensor for name, tensor in tensors.items() if name != "m0"}
    scores = Gram().score(queries, tensors["m0"][:3], target="m0", present=present)
    assert scores.shape == (2**k, 3)
    for row in range(2**k):
        known = [query[row].tolist() for name, query in queries.items() if present[name][row]]
        for column in range(3):
            # nothing known: all candidates are level
            slow = -slow_volume([tensors["m0"][column].tolist(), *known]) if known else 0.0
            assert scores[row, column].item() == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-4, 1e-2])
def test_float32_gradients_of_nearly_parallel_vectors_are_finite_and_bounded(distance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.functional.normalize(torch.randn(8, 32, generator=generator), dim=1)
    near = [
        torch.nn.functional.normalize(base + distance * torch.randn(8, 32, generator=generator), dim=1).requires_grad_()
        for _ in range(3)
    ]
    volumes = volume(near[0], near[1:])
    true = volume(near[0].detach().double(), [tensor.detach().double() for tensor in near[1:]])
    torch.testing.assert_close(volumes.detach().double(), true, rtol=1e-3, atol=2e-3)
    for gradient in torch.autograd.grad(volumes.sum(), near):
        assert gradient.isfinite().all()
        # a volume changes by at most the area of its other sides for each unit that a vector moves
        assert (gradient.norm(dim=1) <= 8 * 1.01).all()


def test_it_finds_synergy_that_no_pair_shows() -> None:
    assert xor_accuracy(Gram()) == 1


def test_an_anchor_that_is_no_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the anchor 'm9' is no modality .*valid: m0, m1"):
        Gram("m9").loss(unit_embeddings(2, n=3, d=4), SCALE)


def test_the_scale_starts_as_in_the_authors_code() -> None:
    assert math.exp(Gram().initial_logit_scale(64, 3)) == pytest.approx(1 / 0.07)
