"""The model: any modalities, normalised as asked, with a learned scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from symile_clin.model import MultimodalEncoder


def _model(normalization: str, names: tuple[str, ...] = ("a", "b", "c")) -> MultimodalEncoder:
    return MultimodalEncoder(
        {name: nn.Linear(5, 16) for name in names},
        dim=16,
        normalization="l2" if normalization == "l2" else "layernorm",
        logit_scale_init=-1.5,
    )


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d")])
def test_every_modality_is_embedded_by_its_own_encoder(names: tuple[str, ...]) -> None:
    model = _model("layernorm", names)
    inputs = {name: torch.randn(3, 5) for name in names}
    embeddings = model(inputs)
    assert list(embeddings) == list(names)
    for name in names:
        expected = model.normalizations[name](model.encoders[name](inputs[name]))
        torch.testing.assert_close(embeddings[name], expected)
        torch.testing.assert_close(model.encode(name, inputs[name]), expected)


def test_layernorm_has_length_sqrt_dim_and_its_own_gain() -> None:
    model = _model("layernorm")
    embedding = model({"a": torch.randn(4, 5)})["a"]
    torch.testing.assert_close(embedding.norm(dim=1), torch.full((4,), 4.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(embedding.mean(dim=1), torch.zeros(4), rtol=0, atol=1e-6)
    assert {name for name, _ in model.normalizations.named_parameters()} == {
        f"{modality}.{part}" for modality in "abc" for part in ("weight", "bias")
    }


def test_l2_has_length_one_and_no_parameters() -> None:
    model = _model("l2")
    torch.testing.assert_close(model({"b": torch.randn(4, 5)})["b"].norm(dim=1), torch.ones(4))
    assert list(model.normalizations.parameters()) == []


def test_the_scale_is_the_exponential_of_what_is_learned() -> None:
    model = _model("l2")
    assert float(model.scale.detach()) == pytest.approx(math.exp(-1.5))
    assert "logit_scale" in dict(model.named_parameters())


def _lacking(
    placeholders: tuple[str, ...],
) -> tuple[MultimodalEncoder, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    encoders = {name: nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16)) for name in "ab"}
    model = MultimodalEncoder(
        encoders, dim=16, normalization="layernorm", logit_scale_init=0.0, placeholders=placeholders
    )
    present = {"a": torch.tensor([True, False, True, True]), "b": torch.ones(4, dtype=torch.bool)}
    return model, {"a": torch.randn(3, 5), "b": torch.randn(4, 5)}, present


def test_encoders_never_see_samples_that_lack_their_modality() -> None:
    model, inputs, present = _lacking(("a",))
    embeddings = model(inputs, present)
    alone = _lacking(("a",))[0].encode("a", inputs["a"])
    torch.testing.assert_close(embeddings["a"][present["a"]], alone)
    torch.testing.assert_close(embeddings["a"][1], model.normalizations["a"](model.placeholders["a"]))
    torch.testing.assert_close(embeddings["b"], _lacking(("a",))[0].encode("b", inputs["b"]))


def test_a_placeholder_learns_from_the_samples_it_stands_in_for() -> None:
    model, inputs, present = _lacking(("a", "b"))
    torch.autograd.backward(model(inputs, present)["a"][1, 0])
    assert model.placeholders["a"].grad is not None
    assert model.placeholders["a"].grad.abs().sum() > 0
    assert model.placeholders["b"].grad is None
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.encoders["a"].parameters())


def test_a_batch_without_the_modality_at_all_is_placeholders() -> None:
    model, inputs, _ = _lacking(("a",))
    embeddings = model({**inputs, "a": torch.empty(0, 5)}, {"a": torch.zeros(4, dtype=torch.bool)})
    expected = model.normalizations["a"](model.placeholders["a"])
    torch.testing.assert_close(embeddings["a"], expected.expand(4, -1))


def test_without_a_placeholder_an_absent_modality_is_nan() -> None:
    model, inputs, present = _lacking(())
    embedding = model(inputs, present)["a"]
    assert embedding[1].isnan().all()
    assert embedding[present["a"]].isfinite().all()
    assert list(model.placeholders) == []
