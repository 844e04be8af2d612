"""What a score hangs on, against loops, MONAI's Grad-CAM, and planted truth."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symile_clin.data.store import Cohort
from symile_clin.encoders.resnet import last_maps, resnet
from symile_clin.errors import MismatchError
from symile_clin.evaluation.attribution import Attributed, attribute, explainable
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import OBJECTIVES, build_objective
from tests.evaluation.planted_places import (
    CORNERS,
    ITEMS,
    NAMES,
    SIDE,
    SQUARE,
    OverPicture,
    Planted,
    fresh_model,
    modalities,
    planted_cohort,
    train,
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return planted_cohort(tmp_path_factory.mktemp("places") / "planted")


def objective_called(name: str) -> Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_objective(name, {}, dim=8, modalities=NAMES)


def found(
    model: MultimodalEncoder, objective: Objective, cohort: Cohort, rows: list[int], target: str = "picture"
) -> list[Attributed]:
    return attribute(
        model=model, objective=objective, cohort=cohort, modalities=modalities(), rows=rows, target=target, device="cpu"
    )  # fmt: skip


def inputs_of(cohort: Cohort, row: int) -> dict[str, Tensor]:
    taken = {}
    for name, modality in modalities().items():
        (key,) = modality.arrays
        taken[name] = torch.from_numpy(cohort.array(name, key).take(np.array([row])))
    return taken


def score_by_hand(model: MultimodalEncoder, objective: Objective, inputs: dict[str, Tensor], target: str) -> float:
    """One sample, one candidate, nothing shared with what is tested but the objective's own score."""
    with torch.no_grad():
        embeddings = {name: model.encode(name, one) for name, one in inputs.items()}
        queries = {name: one for name, one in embeddings.items() if name != target}
        return float(objective.score(queries, embeddings[target], target=target)[0, 0])


@pytest.mark.parametrize("target", ["picture", "list"])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_maps_are_gradient_times_map_of_any_objective_score(name: str, target: str, cohort: Cohort) -> None:
    objective = objective_called(name).double().eval()
    model = fresh_model(objective).double().eval()
    inputs = {key: one.double() for key, one in inputs_of(cohort, 5).items()}
    encoder = cast(Any, model.encoders["picture"])
    one, two, three, *rest = encoder.features
    with torch.no_grad():
        maps = two(one(inputs["picture"]))

        def score(changed: Tensor) -> float:
            later = three(changed)
            for layer in rest:
                later = layer(later)
            embeddings = {key: model.encode(key, given) for key, given in inputs.items()}
            embeddings["picture"] = model.normalizations["picture"](encoder.fc(later))
            queries = {key: given for key, given in embeddings.items() if key != target}
            return float(objective.score(queries, embeddings[target], target=target)[0, 0])

        expected = dict.fromkeys([(0, 0), (1, 2), (3, 3)], 0.0)
        for row, column in expected:
            for channel in range(maps.shape[1]):
                up, down = maps.clone(), maps.clone()
                up[0, channel, row, column] += 1e-5
                down[0, channel, row, column] -= 1e-5
                slope = (score(up) - score(down)) / 2e-5
                expected[row, column] += slope * float(maps[0, channel, row, column])
    (traced,) = found(fresh_model(objective), objective_called(name), cohort, [5], target)
    values = traced.relevance["picture"].values
    assert values.shape == (SIDE // 4, SIDE // 4)
    for place, by_hand in expected.items():
        assert values[place] == pytest.approx(by_hand, rel=2e-3, abs=1e-5 * abs(traced.score))
    assert traced.score == pytest.approx(score_by_hand(model, objective, inputs, target), rel=1e-5)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_taking_away_is_scoring_again(name: str, cohort: Cohort) -> None:
    objective, model = objective_called(name).eval(), fresh_model(objective_called(name)).eval()
    (traced,) = found(model, objective, cohort, [7])
    inputs = inputs_of(cohort, 7)
    whole = score_by_hand(model, objective, inputs, "picture")
    assert traced.relevance["list"].names == tuple(f"bit {place}" for place in range(ITEMS))
    for place, value in enumerate(traced.relevance["list"].values):
        bits = inputs["list"].clone()
        bits[0, place] = 0.5
        without = score_by_hand(model, objective, {**inputs, "list": bits}, "picture")
        assert value == pytest.approx(whole - without, abs=2e-5 * max(1, abs(whole)))


def test_taking_away_from_the_target_changes_the_candidate(cohort: Cohort) -> None:
    objective, model = Symile(), fresh_model(Symile()).eval()
    (traced,) = found(model, objective, cohort, [7], target="list")
    inputs = inputs_of(cohort, 7)
    bits = inputs["list"].clone()
    bits[0, 2] = 0.5
    lost = score_by_hand(model, objective, inputs, "list") - score_by_hand(
        model, objective, {**inputs, "list": bits}, "list"
    )
    assert traced.relevance["list"].values[2] == pytest.approx(lost, abs=1e-4)


def test_after_a_global_average_maps_are_those_of_grad_cam(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selvaraju et al., equations 1 and 2, which average gradients over places; there they are the same everywhere."""
    monkeypatch.setattr(OverPicture, "layer", lambda _, encoder: last_maps(encoder))
    objective, model = Symile(), fresh_model(Symile())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.encoders["picture"] = resnet("resnet18", dim=8, channels=1, imagenet=False)
        large = torch.randn(1, 1, 160, 160)
    monkeypatch.setattr(
        Planted, "to_input", lambda _self, arrays, _draws: large if "pixels" in arrays else arrays["bits"]
    )
    (traced,) = found(model, objective, cohort, [5])

    model.eval()
    network = cast(Any, model.encoders["picture"])
    inputs = {**inputs_of(cohort, 5), "picture": large}
    embeddings = {name: model.encode(name, one) for name, one in inputs.items()}
    maps: list[Tensor] = []
    with network.layer4.register_forward_hook(lambda _m, _i, output: maps.append(output)):
        candidate = model.encode("picture", large)
    queries = {name: one.detach() for name, one in embeddings.items() if name != "picture"}
    (gradient,) = torch.autograd.grad(objective.score(queries, candidate, target="picture").sum(), maps[0])
    alpha = gradient.mean(dim=(2, 3))[0]
    expected = sum(weight * one for weight, one in zip(alpha, maps[0][0], strict=True)).detach().numpy()
    values = traced.relevance["picture"].values
    assert values.shape == (5, 5)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_the_model_is_left_as_it_was(cohort: Cohort) -> None:
    objective, model = Symile(), fresh_model(Symile())
    model.encoders["vector"].eval()
    modes = [module.training for module in model.modules()]
    before = {key: one.clone() for key, one in model.state_dict().items()}
    found(model, objective, cohort, [1, 2])
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in [*model.parameters(), *objective.parameters()])
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class BreaksError(Exception):
    """Not an error of ours."""


def test_hooks_and_modes_are_restored_after_an_error(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, model = Symile(), fresh_model(Symile()).train()

    def fail(_: Tensor) -> Tensor:
        if any(module._forward_hooks for module in model.modules()):
            raise BreaksError
        return torch.zeros(1, 8)

    monkeypatch.setattr(model.encoders["picture"], "forward", fail)
    with pytest.raises(BreaksError):
        found(model, objective, cohort, [1])
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_encoders_can_be_traced_and_the_same_twice(cohort: Cohort) -> None:
    objective, model = PairwiseClip(), fresh_model(PairwiseClip())
    free = found(model, objective, cohort, [3, 4])
    frozen = found(model.requires_grad_(False), objective, cohort, [3, 4])
    for one, other in zip(free, frozen, strict=True):
        assert one.score == other.score
        for name in one.relevance:
            np.testing.assert_array_equal(one.relevance[name].values, other.relevance[name].values)
    assert found(model, objective, cohort, [4])[0].score == pytest.approx(free[1].score, rel=1e-6)


def test_a_score_that_does_not_answer_gives_a_flat_map(cohort: Cohort) -> None:
    model = fresh_model(Symile())
    encoder = cast(Any, model.encoders["picture"])
    nn.init.zeros_(encoder.fc.weight)
    nn.init.zeros_(cast(Any, model.encoders["list"])[-1].weight)
    (traced,) = found(model, Symile(), cohort, [3])
    assert not traced.relevance["picture"].values.any()
    assert not traced.relevance["list"].values.any()
    assert len(traced.relevance["list"].names) == ITEMS


def test_a_modality_whose_room_names_no_way_is_left_out(cohort: Cohort) -> None:
    (traced,) = found(fresh_model(Symile()), Symile(), cohort, [3])
    assert set(traced.relevance) == {"picture", "list"}
    assert traced.row == 3


def test_samples_that_lack_something(tmp_path: Path) -> None:
    gaps = planted_cohort(tmp_path / "gaps", count=12, lacking={"list": [2, 3], "picture": [4]})
    rows = np.arange(12)
    plain, learned = fresh_model(Symile()), fresh_model(Symile(), placeholders=("list",))

    def able(model: MultimodalEncoder) -> list[int]:
        return [int(row) for row in explainable(gaps, rows, model=model, names=NAMES, target="picture")]

    assert able(plain) == [0, 1, 5, 6, 7, 8, 9, 10, 11]
    assert able(learned) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    (traced,) = found(learned, Symile(), gaps, [2])
    assert set(traced.relevance) == {"picture"}
    assert traced.relevance["picture"].values.any()
    with pytest.raises(MismatchError, match="list"):
        found(plain, Symile(), gaps, [2])
    with pytest.raises(MismatchError, match="picture"):
        found(fresh_model(Symile(), placeholders=("picture",)), Symile(), gaps, [4])


# --- faithfulness: what is found on a model that has learned what was planted ---


@pytest.fixture(scope="module")
def learned(cohort: Cohort) -> tuple[MultimodalEncoder, Objective]:
    objective = PairwiseClip()
    model = fresh_model(objective)
    train(model, objective, cohort)
    return model, objective


def largest_place(
    model: MultimodalEncoder, objective: Objective, cohort: Cohort, rows: list[int]
) -> list[tuple[int, int]]:
    """Row and column in the picture of the middle of the largest step of each map."""
    places = []
    for traced in found(model, objective, cohort, rows):
        values = traced.relevance["picture"].values
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        places.append((int(row) * 4 + 2, int(column) * 4 + 2))
    return places


def share_on(places: list[tuple[int, int]], corners: Collection[tuple[int, int]]) -> float:
    """Share of places that lie on one of the squares, within half a step."""
    hits = [
        any(top - 2 <= y <= top + SQUARE + 2 and left - 2 <= x <= left + SQUARE + 2 for top, left in corners)
        for y, x in places
    ]
    return float(np.mean(hits))


def test_maps_point_to_what_was_planted_and_those_of_random_weights_do_not(
    cohort: Cohort, learned: tuple[MultimodalEncoder, Objective]
) -> None:
    """The pointing game, and the randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018."""
    model, objective = learned
    random = fresh_model(objective, seed=1)
    rows = list(range(1, 96, 2))  # of pictures that show the square that tells nothing, too
    assert share_on(largest_place(model, objective, cohort, rows), CORNERS) > 0.85
    # a bright square is bright to random weights, too: they point to either
    assert share_on(largest_place(random, objective, cohort, rows), CORNERS) < 0.7
    alike = [
        _rank_correlation(one.relevance["picture"].values, other.relevance["picture"].values)
        for one, other in zip(
            found(model, objective, cohort, rows), found(random, objective, cohort, rows), strict=True
        )
    ]
    assert abs(float(np.mean(alike))) < 0.3


def _rank_correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    ranks = [values.ravel().argsort().argsort().astype(float) for values in (one, other)]
    return float(np.corrcoef(ranks)[0, 1])


def test_covering_what_is_relevant_costs_more_than_covering_anything(
    cohort: Cohort, learned: tuple[MultimodalEncoder, Objective]
) -> None:
    model, objective = learned
    rng = np.random.default_rng(0)
    lost: dict[str, list[float]] = {"relevant": [], "random": []}
    rows = list(range(48))
    for row, (y, x) in zip(rows, largest_place(model, objective, cohort, rows), strict=True):
        inputs = inputs_of(cohort, row)
        whole = score_by_hand(model, objective, inputs, "picture")
        for kind, (down, across) in {"relevant": (y, x), "random": tuple(rng.integers(4, SIDE - 4, 2))}.items():
            covered = inputs["picture"].clone()
            covered[:, :, max(down - 4, 0) : down + 4, max(across - 4, 0) : across + 4] = 0
            lost[kind].append(whole - score_by_hand(model, objective, {**inputs, "picture": covered}, "picture"))
    assert np.mean(lost["relevant"]) > 2 * np.mean(lost["random"])
    assert np.mean(lost["relevant"]) > 0


def test_the_bit_that_tells_matters_most(cohort: Cohort, learned: tuple[MultimodalEncoder, Objective]) -> None:
    model, objective = learned
    places = [int(one.relevance["list"].values.argmax()) for one in found(model, objective, cohort, list(range(48)))]
    assert np.mean(np.array(places) == 0) > 0.8
