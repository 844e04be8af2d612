"""Gated Symile against loops, its two ends (an open gate, a closed one), and what the gate learns."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from symile_clin.objectives import GatedSymile
from symile_clin.objectives.similarity import mip
from tests.objectives.rival_oracles import every_pattern, slow_gated_score, slow_gated_symile, unit_embeddings
from tests.objectives.xor import xor_accuracy

SCALE = torch.tensor(0.7, dtype=torch.float64)
KINDS = list(product(("sigmoid", "softmax"), (True, False)))


def _objective(names: list[str], *, dim: int, **options: Any) -> GatedSymile:
    """With every parameter away from its start, so that all of them matter; the gate half open."""
    torch.manual_seed(0)
    objective = GatedSymile(dim=dim, modalities=names, **{"gate_dim": 3, "strength": 0.5, **options}).double()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return objective


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize(("kind", "null"), KINDS)
def test_loss_equals_the_loop(k: int, kind: str, null: bool) -> None:
    tensors = unit_embeddings(k, n=4, d=5)
    objective = _objective(list(tensors), dim=5, gate=kind, null=null)
    loss = objective.loss(tensors, SCALE)
    slow = slow_gated_symile(objective, tensors, {name: [True] * 4 for name in tensors}, 0.7)
    assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize(("kind", "null"), KINDS)
def test_every_pattern_of_absence_equals_the_loop(k: int, kind: str, null: bool) -> None:
    tensors = unit_embeddings(k, n=2**k + 3, d=4)
    present = every_pattern(tensors)
    objective = _objective(list(tensors), dim=4, gate=kind, null=null)
    loss = objective.loss(tensors, SCALE, present=present)
    slow = slow_gated_symile(objective, tensors, {name: here.tolist() for name, here in present.items()}, 0.7)
    assert float(loss.detach()) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(("kind", "null"), KINDS)
def test_scores_and_weights_equal_the_loop(kind: str, null: bool) -> None:
    tensors = unit_embeddings(4, n=16, d=4)
    present = every_pattern(tensors)
    objective = _objective(list(tensors), dim=4, gate=kind, null=null)
    queries = {name: tensors[name] for name in ("m3", "m0", "m2")}
    candidates = unit_embeddings(1, n=3, d=4, seed=9)["m0"]
    scores = objective.score(queries, candidates, target="m1", present=present)
    weights = objective.weights(queries, candidates, target="m1", present=present)
    for row, column in product(range(16), range(3)):
        own = {name: query[row].tolist() for name, query in queries.items()}
        here = {name: bool(present[name][row]) for name in queries}
        slow, gated = slow_gated_score(objective, own, candidates[column].tolist(), target="m1", here=here)
        assert scores[row, column].item() == pytest.approx(slow, abs=1e-12)
        assert {name: weight[row, column].item() for name, weight in weights.items()} == pytest.approx(gated)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("kind", "null"), KINDS)
def test_gradients_equal_finite_differences(k: int, kind: str, null: bool) -> None:
    tensors = unit_embeddings(k, n=3, d=3)
    objective = _objective(list(tensors), dim=3, gate=kind, null=null)
    names = [name for name, _ in objective.named_parameters()]
    present = {name: torch.tensor([True, True, name != "m1"]) for name in tensors}

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.objective = objective

        def forward(self, scale: Tensor, *values: Tensor) -> Tensor:
            return self.objective.loss(dict(zip(tensors, values, strict=True)), scale, present=present)

    def loss(scale: Tensor, *values: Tensor) -> Tensor:
        parameters = {f"objective.{name}": value for name, value in zip(names, values[k:], strict=True)}
        found: Tensor = torch.func.functional_call(Loss(), parameters, (scale, *values[:k]))
        return found

    parameters = [parameter.detach().clone().requires_grad_() for parameter in objective.parameters()]
    assert torch.autograd.gradcheck(loss, (SCALE.clone().requires_grad_(), *tensors.values(), *parameters))


def test_a_gate_without_strength_is_symile() -> None:
    tensors = unit_embeddings(3, n=4, d=5)
    objective = _objective(list(tensors), dim=5)
    with torch.no_grad():
        objective.gate.strength_logit.fill_(-60)
    queries = {name: tensors[name] for name in ("m0", "m2")}
    scores = objective.score(queries, tensors["m1"], target="m1")
    expected = mip(queries["m0"].unsqueeze(1), queries["m2"].unsqueeze(1), tensors["m1"])
    torch.testing.assert_close(scores, expected)


def test_null_closes_the_gate_to_every_query() -> None:
    tensors = unit_embeddings(3, n=4, d=5)
    objective = _objective(list(tensors), dim=5, strength=60.0)
    with torch.no_grad():
        objective.gate.null_bias["m1"].fill_(1e3)
    queries = {name: tensors[name] for name in ("m0", "m2")}
    scores = objective.score(queries, tensors["m1"], target="m1")
    by_neutral = mip(objective.gate.neutral("m0"), objective.gate.neutral("m2"), tensors["m1"])
    torch.testing.assert_close(scores, by_neutral.expand(4, 4))


def test_what_stands_where_a_modality_is_absent_does_not_matter() -> None:
    tensors = unit_embeddings(3, n=12, d=5)
    present = every_pattern(tensors)
    objective = _objective(list(tensors), dim=5)
    loss = objective.loss(tensors, SCALE, present=present)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor[~present[name]] = torch.nan
    again = objective.loss(tensors, SCALE, present=present)
    torch.testing.assert_close(again, loss)
    inputs = [*tensors.values(), *objective.parameters()]
    for gradient in torch.autograd.grad(again, inputs):
        assert gradient.isfinite().all()


def test_a_gate_weighs_between_nothing_and_all_and_softmax_shares_with_null() -> None:
    tensors = unit_embeddings(3, n=6, d=5)
    queries = {name: tensors[name] for name in ("m0", "m2")}
    for kind, null in KINDS:
        weights = _objective(list(tensors), dim=5, gate=kind, null=null).weights(queries, tensors["m1"], target="m1")
        together = torch.stack(list(weights.values()))
        assert ((together > 0) & (together < 1)).all()
        if kind == "softmax":
            torch.testing.assert_close(together.sum(0) < 1 - 1e-9, torch.full((6, 6), null))


@pytest.mark.parametrize(("neutral", "learned"), [("learned", True), ("random", False), ("ones", False)])
def test_neutral_directions_are_learned_or_not_and_always_saved(neutral: str, learned: bool) -> None:
    objective = _objective(["m0", "m1"], dim=5, neutral=neutral)
    assert {p.requires_grad for p in objective.gate.directions.parameters()} == {learned}
    assert objective.gate.neutral("m0").norm().item() == pytest.approx(1)
    assert "gate.directions.m0" in objective.state_dict()


def test_mismatched_logits_start_with_a_spread_of_one() -> None:
    for k, dim in product((2, 3, 4), (64, 256)):
        torch.manual_seed(0)
        tensors = {f"m{index}": normalize(torch.randn(200, dim), dim=1) for index in range(k)}
        objective = GatedSymile(dim=dim, modalities=list(tensors), strength=-60.0)
        target, *_ = tensors
        queries = {name: tensor for name, tensor in tensors.items() if name != target}
        scores = objective.score(queries, tensors[target], target=target)
        spread = math.exp(objective.initial_logit_scale(dim, k)) * float(scores.std().detach())
        assert spread == pytest.approx(1, rel=0.1)


def test_it_finds_synergy_that_no_pair_shows() -> None:
    torch.manual_seed(0)
    assert xor_accuracy(GatedSymile(dim=16, modalities=("a", "b", "c"))) == 1


def _half_misaligned(n: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Noisy views of one hidden vector, of which c shows another sample's for half of the samples."""
    hidden = torch.randn(n, 8, generator=generator)
    views = {name: hidden + 0.4 * torch.randn(n, 8, generator=generator) for name in "abc"}
    misaligned = torch.rand(n, generator=generator) < 0.5
    elsewhere = math.sqrt(1 + 0.4**2) * torch.randn(n, 8, generator=generator)
    views["c"] = torch.where(misaligned.unsqueeze(1), elsewhere, views["c"])
    return views, misaligned


def test_the_gate_learns_which_modality_and_which_of_its_samples_not_to_trust() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    objective = GatedSymile(dim=16, modalities=("a", "b", "c"), gate_dim=16, strength=2.0)
    encoders = nn.ModuleDict({name: nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 16)) for name in "abc"})
    logit_scale = torch.tensor(objective.initial_logit_scale(16, 3)).requires_grad_()
    optimizer = torch.optim.Adam([*encoders.parameters(), *objective.parameters(), logit_scale], lr=0.02)

    def embedded(views: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: normalize(encoders[name](view), dim=1) for name, view in views.items()}

    for _ in range(200):
        views, _ = _half_misaligned(64, generator)
        optimizer.zero_grad()
        torch.autograd.backward(objective.loss(embedded(views), logit_scale.exp()))
        optimizer.step()
    with torch.inference_mode():
        views, misaligned = _half_misaligned(512, generator)
        held_out = embedded(views)
        queries = {name: held_out[name] for name in "bc"}
        weights = objective.weights(queries, held_out["a"], target="a")
    trusted = {name: weight.diagonal() for name, weight in weights.items()}
    assert trusted["b"].mean() > 2 * trusted["c"].mean()
    assert trusted["c"][~misaligned].mean() > 1.1 * trusted["c"][misaligned].mean()
    assert abs(trusted["b"][~misaligned].mean() - trusted["b"][misaligned].mean()) < 0.05
