"""What every registered objective promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from symile_clin.data.candidates import CandidateLists
from symile_clin.errors import ConfigError
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import OBJECTIVES, build_objective
from symile_clin.ranks import Ranks
from symile_clin.training.checkpoint import load_weights, save_weights

NAMES = ("a", "b", "c", "d")
DIM = 16


def _normalizations(name: str) -> tuple[str | None, ...]:
    """What can be asked for; None where the objective has but one."""
    return ("layernorm", "l2") if "normalization" in OBJECTIVES[name].Options.model_fields else (None,)


def _sizes(name: str) -> tuple[int, ...]:
    defined_for = OBJECTIVES[name].defined_for
    return (2, 3, 4) if defined_for is None else (defined_for,)


SIZED = [(name, k) for name in sorted(OBJECTIVES) for k in _sizes(name)]
CASES = [(name, normalization, k) for name, k in SIZED for normalization in _normalizations(name)]


def _build(name: str, k: int, options: dict[str, Any] | None = None) -> Objective:
    torch.manual_seed(0)
    return build_objective(name, options or {}, dim=DIM, modalities=NAMES[:k])


def _unit(objective: Objective, tensor: Tensor) -> Tensor:
    return normalize(tensor, dim=-1) if objective.normalization == "l2" else layer_norm(tensor, tensor.shape[-1:])


def _case(
    name: str, k: int, normalization: str | None = None, *, n: int = 6
) -> tuple[Objective, dict[str, Tensor], Tensor]:
    objective = _build(name, k, {} if normalization is None else {"normalization": normalization})
    generator = torch.Generator().manual_seed(0)
    raw = {key: torch.randn(n, DIM, generator=generator) for key in NAMES[:k]}
    tensors = {key: _unit(objective, value).requires_grad_() for key, value in raw.items()}
    return objective, tensors, torch.tensor(objective.initial_logit_scale(DIM, k)).exp()


def _loss(objective: Objective, tensors: dict[str, Tensor], scale: Tensor, **given: Any) -> Tensor:
    return objective.loss(tensors, scale, generator=torch.Generator().manual_seed(0), **given)


@pytest.mark.parametrize(("name", "normalization", "k"), CASES)
def test_loss_is_a_finite_scalar_with_gradients_for_every_modality(
    name: str, normalization: str | None, k: int
) -> None:
    objective, tensors, scale = _case(name, k, normalization)
    assert objective.normalization == normalization or normalization is None
    loss = _loss(objective, tensors, scale)
    assert loss.shape == ()
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, [*tensors.values(), *_trained(objective)], materialize_grads=True):
        assert gradient.isfinite().all()
    for gradient in torch.autograd.grad(_loss(objective, tensors, scale), list(tensors.values())):
        assert gradient.abs().sum() > 0


def _trained(objective: Objective) -> list[torch.nn.Parameter]:
    return [parameter for parameter in objective.parameters() if parameter.requires_grad]


@pytest.mark.parametrize(("name", "normalization", "k"), CASES)
def test_descending_the_loss_makes_matched_rows_score_best(name: str, normalization: str | None, k: int) -> None:
    objective, tensors, scale = _case(name, k, normalization)
    free = {key: value.detach().clone().requires_grad_() for key, value in tensors.items()}
    logit_scale = scale.log().requires_grad_()
    optimizer = torch.optim.Adam([*free.values(), logit_scale, *_trained(objective)], lr=0.1)
    for step in range(60):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        unit = {key: _unit(objective, value) for key, value in free.items()}
        torch.autograd.backward(objective.loss(unit, logit_scale.exp(), generator=generator))
        optimizer.step()
    final = {key: _unit(objective, value.detach()) for key, value in free.items()}
    for target in final:
        queries = {key: value for key, value in final.items() if key != target}
        scores = objective.score(queries, final[target], target=target)
        assert scores.shape == (6, 6)
        assert scores.argmax(dim=1).tolist() == list(range(6))


@pytest.mark.parametrize(("name", "normalization", "k"), CASES)
def test_a_query_vector_gives_the_score(name: str, normalization: str | None, k: int) -> None:
    objective, tensors, _ = _case(name, k, normalization)
    queries, candidates = {key: tensors[key][:2] for key in NAMES[1:k]}, tensors["a"]
    vector = objective.query_vector(queries, "a")
    if vector is not None:
        torch.testing.assert_close(vector @ candidates.T, objective.score(queries, candidates, target="a"))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_inputs_are_left_as_they_were(name: str) -> None:
    objective, tensors, scale = _case(name, 3)
    before = {key: value.detach().clone() for key, value in tensors.items()}
    _loss(objective, tensors, scale)
    objective.score({key: tensors[key] for key in "bc"}, tensors["a"], target="a")
    for key, value in before.items():
        torch.testing.assert_close(tensors[key].detach(), value, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_score_depends_on_its_own_query_and_candidate_alone(name: str) -> None:
    objective, tensors, _ = _case(name, 3)
    tensors = {key: value.detach().double() for key, value in tensors.items()}
    objective = objective.double()
    queries = {key: tensors[key] for key in "bc"}
    whole = objective.score(queries, tensors["a"], target="a")
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    turned = objective.score({key: value[order] for key, value in queries.items()}, tensors["a"][order], target="a")
    torch.testing.assert_close(turned, whole[order][:, order])
    one = objective.score({key: value[2:3] for key, value in queries.items()}, tensors["a"][4:5], target="a")
    torch.testing.assert_close(one, whole[2:3, 4:5])


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_candidates_of_a_collapsed_encoder_are_level_to_the_last_bit(name: str) -> None:
    objective, tensors, _ = _case(name, 3, n=40)
    embeddings = {key: value.detach().numpy() for key, value in tensors.items()}
    embeddings["a"] = np.broadcast_to(embeddings["a"][:1], (40, DIM))
    rows = np.arange(40)
    lists = CandidateLists(query_row=rows, candidate_rows=(rows[:, None] + rows[:10]) % 40, same_subject=_none(40, 10))
    found = rank(score_lists(objective, embeddings, rows, lists, "a"))
    assert (found.n_tied == 9).all()


def _none(*shape: int) -> NDArray[np.bool_]:
    return np.zeros(shape, dtype=np.bool_)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_collapsed_batch_has_finite_gradients_and_the_loss_of_guessing(name: str) -> None:
    objective, tensors, scale = _case(name, 3)
    vector = next(iter(tensors.values())).detach()[:1]
    # All equal, and every modality the same vector: volumes and areas are zero, where a root has no derivative.
    same = {key: vector.expand(6, DIM).clone().requires_grad_() for key in tensors}
    loss = _loss(objective, same, scale)
    guessing = torch.tensor([6.0, 36.0]).log()  # of six anchors or tuples, or of all pairs of the others
    assert (loss.detach() - guessing).abs().min() < 1e-4
    for gradient in torch.autograd.grad(loss, list(same.values())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("name", "k"), SIZED)
def test_all_present_is_as_if_nothing_were_said_of_it(name: str, k: int) -> None:
    objective, tensors, scale = _case(name, k)
    everyone = {key: torch.ones(6, dtype=torch.bool) for key in tensors}
    torch.testing.assert_close(_loss(objective, tensors, scale, present=everyone), _loss(objective, tensors, scale))
    queries = {key: tensors[key] for key in NAMES[1:k]}
    there = {key: everyone[key] for key in queries}
    with_it = objective.score(queries, tensors["a"], target="a", present=there)
    torch.testing.assert_close(with_it, objective.score(queries, tensors["a"], target="a"))


def _absent(tensors: dict[str, Tensor], objective: Objective, *, n: int) -> dict[str, Tensor]:
    """Every pattern of presence in turn, the placeholder in the absent rows."""
    k = len(tensors)
    present = {
        key: torch.tensor([bool((row % 2**k) >> axis & 1) for row in range(n)]) for axis, key in enumerate(tensors)
    }
    placeholders = _unit(objective, torch.randn(k, DIM, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        for placeholder, key in zip(placeholders, tensors, strict=True):
            tensors[key][~present[key]] = placeholder
    return present


@pytest.mark.parametrize(("name", "k"), SIZED)
def test_samples_with_one_modality_alone_change_nothing_where_it_is_not_another_s_negative(name: str, k: int) -> None:
    objective, tensors, scale = _case(name, k)
    present = {key: torch.tensor([True, True, True, True, False, False]) for key in tensors}
    with torch.no_grad():
        for value in tensors.values():
            value[4:] = torch.full((DIM,), DIM**-0.5)
    loss = _loss(objective, tensors, scale, present=present)
    first = {key: value[:4] for key, value in tensors.items()}
    torch.testing.assert_close(loss, _loss(objective, first, scale))


@pytest.mark.parametrize(("name", "k"), SIZED)
def test_every_pattern_of_absence_has_a_finite_loss_and_gradient(name: str, k: int) -> None:
    n = 2**k * 3
    objective, tensors, scale = _case(name, k, n=n)
    present = _absent(tensors, objective, n=n)
    loss = _loss(objective, tensors, scale, present=present)
    assert loss.isfinite()
    assert loss > 0
    for gradient in torch.autograd.grad(loss, list(tensors.values())):
        assert gradient.isfinite().all()
    queries = {key: tensors[key] for key in NAMES[1:k]}
    there = {key: present[key] for key in queries}
    assert objective.score(queries, tensors["a"], target="a", present=there).isfinite().all()


@pytest.mark.parametrize(("name", "k"), SIZED)
def test_the_order_of_samples_does_not_matter(name: str, k: int) -> None:
    n = 2**k * 2
    objective, tensors, scale = _case(name, k, n=n)
    present = _absent(tensors, objective, n=n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    turned = {key: value[order] for key, value in tensors.items()}
    turned_present = {key: value[order] for key, value in present.items()}
    loss = _loss(objective, tensors, scale, present=present)
    torch.testing.assert_close(_loss(objective, turned, scale, present=turned_present), loss)


@pytest.mark.parametrize(("name", "k"), SIZED)
def test_nothing_to_contrast_costs_nothing(name: str, k: int) -> None:
    objective, tensors, scale = _case(name, k)
    alone = {key: torch.full((6,), axis == 0) for axis, key in enumerate(tensors)}
    with torch.no_grad():
        for value in list(tensors.values())[1:]:
            value[:] = DIM**-0.5
    loss = _loss(objective, tensors, scale, present=alone)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, list(tensors.values())):
        assert not gradient.any()


@pytest.mark.parametrize(
    ("name", "k"), [(name, k) for name, k in SIZED if OBJECTIVES[name].share_of_loss is Objective.share_of_loss]
)
def test_the_shares_of_all_processes_add_up(name: str, k: int) -> None:
    objective, tensors, scale = _case(name, k)
    shares = [
        objective.share_of_loss(tensors, scale, ranks=Ranks(rank=rank, size=3), generator=_generator())
        for rank in range(3)
    ]
    torch.testing.assert_close(torch.stack(shares).sum(), _loss(objective, tensors, scale))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("name", "k"), SIZED)
def test_it_scores_after_loading_as_it_did_when_saved(name: str, k: int, tmp_path: Path) -> None:
    objective, tensors, _ = _case(name, k)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3)
    other = build_objective(name, {}, dim=DIM, modalities=NAMES[:k])
    save_weights(tmp_path / "saved", model=torch.nn.Linear(1, 1), objective=objective)
    load_weights(tmp_path / "saved", model=torch.nn.Linear(1, 1), objective=other)
    queries = {key: tensors[key] for key in NAMES[1:k]}
    before, after = (one.score(queries, tensors["a"], target="a") for one in (objective, other))
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_an_unknown_objective_or_option_suggests_the_nearest() -> None:
    def built(name: str, options: dict[str, Any]) -> None:
        build_objective(name, options, dim=DIM, modalities=("a", "b", "c"))

    with pytest.raises(ConfigError, match=r"no objective is called 'symil'.*Did you mean 'symile'"):
        built("symil", {})
    with pytest.raises(ConfigError, match="unknown key 'negative' \\(did you mean 'negatives'"):
        built("symile", {"negative": "permuted"})
    with pytest.raises(ConfigError, match="'negatives': input should be 'exhaustive' or 'permuted'"):
        built("symile", {"negatives": "all"})
    with pytest.raises(ConfigError, match=r"'anchor': no modality is called 'pulse' \(valid: a, b, c\)"):
        built("gram", {"anchor": "pulse"})


@pytest.mark.parametrize("name", [name for name in sorted(OBJECTIVES) if OBJECTIVES[name].defined_for is not None])
@pytest.mark.parametrize("k", [2, 4])
def test_another_number_of_modalities_than_it_is_defined_for_is_refused_everywhere(name: str, k: int) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' is defined for 3 modalities, and here are {k}"):
        _build(name, k)
    objective = _build(name, 3)
    tensors = {key: torch.eye(4, DIM) for key in NAMES[:k]}
    with pytest.raises(ConfigError, match=f"here are {k}"):
        objective.loss(tensors, torch.tensor(1.0))
    with pytest.raises(ConfigError, match=f"here are {k}"):
        objective.score({key: tensors[key] for key in NAMES[1:k]}, tensors["a"], target="a")
