"""Encoding a dataset in batches against encoding it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symile_clin.errors import TrainingError
from symile_clin.evaluation.embed import embed


@dataclass(frozen=True)
class Batch:
    inputs: Mapping[str, Tensor]

    @property
    def present(self) -> Mapping[str, Tensor]:
        return {name: torch.ones(len(self), dtype=torch.bool) for name in self.inputs}

    def to(self, device: torch.device | str) -> Self:
        assert device == "cpu"
        return self

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Data:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["red"])

    def inputs(self, batch: Batch) -> Mapping[str, Tensor]:
        return batch.inputs

    def batches(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self), batch_size):
            yield Batch({name: tensor[start : start + batch_size] for name, tensor in self.tensors.items()})


class Encoders(nn.Module):
    """Has what behaves differently in training: dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)) for name in ("red", "green")}
        )

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert list(present) == list(inputs)
        assert torch.is_inference_mode_enabled()
        return {name: self.layers[name](tensor) for name, tensor in inputs.items()}


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    return Data({name: torch.randn(11, 3, generator=generator) for name in ("red", "green")})


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_batches_change_nothing(data: Data, batch_size: int) -> None:
    model = Encoders()
    found = embed(model=model, dataset=data, batch_size=batch_size, device="cpu")
    with torch.inference_mode():
        expected = model.eval()(data.tensors, data.tensors)
    assert all(here.all() for here in found.present.values())
    assert list(found.embeddings) == ["red", "green"]
    for name, array in found.embeddings.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was_even_after_an_error(data: Data, training: bool) -> None:
    model = Encoders().train(training)
    statistics = model.state_dict()["layers.red.1.running_mean"].clone()
    embed(model=model, dataset=data, batch_size=4, device="cpu")
    assert model.training is training
    torch.testing.assert_close(model.state_dict()["layers.red.1.running_mean"], statistics)
    with pytest.raises(RuntimeError):
        embed(model=model, dataset=Data({"red": torch.ones(2, 5)}), batch_size=4, device="cpu")
    assert model.training is training


def test_a_half_precision_embedding_comes_back_as_float32(data: Data) -> None:
    found = embed(model=Encoders().bfloat16(), dataset=_as(data, torch.bfloat16), batch_size=4, device="cpu")
    assert found.embeddings["red"].dtype == np.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_counted(data: Data, value: float) -> None:
    data.tensors["green"][2:5, 0] = value
    with pytest.raises(TrainingError, match="3 of 11 embeddings of 'green' are not finite"):
        embed(model=Encoders(), dataset=data, batch_size=4, device="cpu")


def _as(data: Data, dtype: torch.dtype) -> Data:
    return Data({name: tensor.to(dtype) for name, tensor in data.tensors.items()})
