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
