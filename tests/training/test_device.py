"""Layout and compilation change how fast encoders are, not what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from symile_clin.encoders.conv import SmallImageEncoder
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.training.checkpoint import load_weights, save_weights
from symile_clin.training.device import MemoryFormat, put_on_device

CPU = torch.device("cpu")


def _model(*, memory_format: MemoryFormat = "auto", compile: bool = False) -> MultimodalEncoder:
    torch.manual_seed(0)
    encoders = {"image": SmallImageEncoder(dim=8, channels=3), "vector": nn.Linear(5, 8)}
    model = MultimodalEncoder(encoders, dim=8, normalization="l2", logit_scale_init=0.0)
    return put_on_device(model, device=CPU, memory_format=memory_format, compile=compile)


def _gradients(model: MultimodalEncoder) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    embeddings = model({"image": torch.randn(4, 3, 32, 32), "vector": torch.randn(4, 5)})
    torch.autograd.backward(Symile().loss(embeddings, model.scale))
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def _layout(model: MultimodalEncoder) -> list[bool]:
    weights = [one for one in model.parameters() if one.dim() == 4 and one.shape[1] > 1]
    return [one.is_contiguous(memory_format=torch.channels_last) for one in weights]


def test_channels_last_is_a_layout_and_no_other_model() -> None:
    plain, last = _model(memory_format="contiguous"), _model(memory_format="channels_last")
    assert all(_layout(last))
    assert not any(_layout(plain))
    expected = _gradients(plain)
    for name, gradient in _gradients(last).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_auto_leaves_a_cpu_as_it_is() -> None:
    assert not any(_layout(_model()))


def test_a_checkpoint_does_not_know_the_layout(tmp_path: Path) -> None:
    last, plain = _model(memory_format="channels_last"), _model()
    with torch.no_grad():
        for parameter in plain.encoders.parameters():
            parameter.zero_()
    save_weights(tmp_path, model=last, objective=Symile())
    load_weights(tmp_path, model=plain, objective=Symile())
    for name, value in last.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value)
    assert not any(_layout(plain))


@pytest.mark.slow
def test_compiled_encoders_learn_the_same_under_the_same_names() -> None:
    plain, compiled = _model(), _model(compile=True)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    expected = _gradients(plain)
    for name, gradient in _gradients(compiled).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)
