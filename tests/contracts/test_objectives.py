"""What every registered objective promises."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from symile_clin.errors import ConfigError
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import OBJECTIVES, build_objective

CASES = list(product(sorted(OBJECTIVES), ("layernorm", "l2"), (2, 3, 4)))
NAMES = ("a", "b", "c", "d")


def _case(name: str, normalization: str, k: int) -> tuple[Objective, dict[str, torch.Tensor], torch.Tensor]:
    objective = build_objective(name, {"normalization": normalization})
    generator = torch.Generator().manual_seed(0)
    raw = {key: torch.randn(6, 16, generator=generator) for key in NAMES[:k]}
    normalise = torch.nn.functional.normalize if normalization == "l2" else _layer_norm
    tensors = {key: normalise(value).requires_grad_() for key, value in raw.items()}
    return objective, tensors, torch.tensor(objective.initial_logit_scale(16, k)).exp()


def _layer_norm(tensor: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(tensor, tensor.shape[-1:])


@pytest.mark.parametrize(("name", "normalization", "k"), CASES)
def test_loss_is_a_finite_scalar_with_gradients_for_every_modality(name: str, normalization: str, k: int) -> None:
    objective, tensors, scale = _case(name, normalization, k)
    assert objective.normalization == normalization
    loss = objective.loss(tensors, scale, generator=torch.Generator().manual_seed(0))
    assert loss.shape == ()
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, list(tensors.values())):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("name", "normalization", "k"), CASES)
def test_descending_the_loss_makes_matched_rows_score_best(name: str, normalization: str, k: int) -> None:
    objective, tensors, scale = _case(name, normalization, k)
    normalise = torch.nn.functional.normalize if normalization == "l2" else _layer_norm
    free = {key: value.detach().clone().requires_grad_() for key, value in tensors.items()}
    logit_scale = scale.log().requires_grad_()
    optimizer = torch.optim.Adam([*free.values(), logit_scale], lr=0.1)
    for step in range(60):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        loss = objective.loss({key: normalise(v) for key, v in free.items()}, logit_scale.exp(), generator=generator)
        torch.autograd.backward(loss)
        optimizer.step()
    final = {key: normalise(value.detach()) for key, value in free.items()}
    for target in final:
        queries = {key: value for key, value in final.items() if key != target}
        scores = objective.score(queries, final[target], target=target)
        assert scores.shape == (6, 6)
        assert scores.argmax(dim=1).tolist() == list(range(6))


@pytest.mark.parametrize(("name", "normalization", "k"), CASES)
def test_a_query_vector_gives_the_score(name: str, normalization: str, k: int) -> None:
    objective, tensors, _ = _case(name, normalization, k)
    queries, candidates = {key: tensors[key][:2] for key in NAMES[1:k]}, tensors["a"]
    vector = objective.query_vector(queries, "a")
    if vector is not None:
        torch.testing.assert_close(vector @ candidates.T, objective.score(queries, candidates, target="a"))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_inputs_are_left_as_they_were(name: str) -> None:
    objective, tensors, scale = _case(name, "layernorm", 3)
    before = {key: value.detach().clone() for key, value in tensors.items()}
    objective.loss(tensors, scale)
    objective.score({key: tensors[key] for key in "bc"}, tensors["a"], target="a")
    for key, value in before.items():
        torch.testing.assert_close(tensors[key].detach(), value, rtol=0, atol=0)


def test_an_unknown_objective_or_option_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no objective is called 'symil'.*Did you mean 'symile'"):
        build_objective("symil", {})
    with pytest.raises(ConfigError, match="unknown key 'negative' \\(did you mean 'negatives'"):
        build_objective("symile", {"negative": "permuted"})
    with pytest.raises(ConfigError, match="'negatives': input should be 'exhaustive' or 'permuted'"):
        build_objective("symile", {"negatives": "all"})
