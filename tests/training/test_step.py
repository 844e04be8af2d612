"""One step: clipping by hand, and numbers that are not finite stopped before they reach the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from symile_clin.data.dataset import Batch
from symile_clin.errors import TrainingError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.ranks import ALONE
from symile_clin.training.step import optimisation_step


def _model() -> MultimodalEncoder:
    torch.manual_seed(0)
    encoders = {name: nn.Linear(3, 4) for name in "abc"}
    return MultimodalEncoder(encoders, dim=4, normalization="layernorm", logit_scale_init=0.0)


def _batch(n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    arrays = {name: {"vector": torch.randn(n, 3, generator=generator)} for name in "abc"}
    present = {name: torch.ones(n, dtype=torch.bool) for name in "abc"}
    return Batch(arrays=arrays, draws={}, present=present, row=torch.arange(100, 100 + n))


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: arrays["vector"] for name, arrays in batch.arrays.items()}


def _step(
    model: MultimodalEncoder, batch: Batch, *, clip_norm: float | None = None, autocast: torch.dtype | None = None
) -> float:
    return optimisation_step(
        model=model,
        objective=Symile(),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        batch=batch,
        prepare=_inputs,
        ranks=ALONE,
        size=len(batch),
        embed_chunk=None,
        place="epoch 2, step 7",
        seed=0,
        step=16,
        autocast=autocast,
        clip_norm=clip_norm,
    )


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("clip_norm", [None, 0.05, 100.0])
def test_an_update_is_the_clipped_gradient(clip_norm: float | None) -> None:
    model, reference, batch = _model(), _model(), _batch()
    loss = Symile().loss(reference(_inputs(batch)), reference.scale)
    torch.autograd.backward(loss)
    gradient = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    norm = float(gradient.norm())
    assert 0.05 < norm < 100
    expected = gradient * (0.05 / norm if clip_norm == 0.05 else 1)
    before = _weights(model)
    assert _step(model, batch, clip_norm=clip_norm) == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(before - _weights(model), expected, rtol=1e-4, atol=1e-6)


def test_a_second_step_forgets_the_first_gradient() -> None:
    model, batch = _model(), _batch()
    _step(model, batch)
    before = _weights(model)
    reference = _model()
    reference.load_state_dict(model.state_dict())
    torch.autograd.backward(Symile().loss(reference(_inputs(batch)), reference.scale))
    gradient = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    _step(model, batch)
    torch.testing.assert_close(before - _weights(model), gradient, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_names_place_and_bad_rows_and_changes_nothing() -> None:
    model, batch = _model(), _batch(12)
    batch.arrays["b"]["vector"][3, 1] = float("nan")
    batch.arrays["c"]["vector"][10, 0] = float("inf")
    before = _weights(model)
    with pytest.raises(TrainingError, match=r"the loss is nan at epoch 2, step 7 \(rows 103, 110\)"):
        _step(model, batch)
    assert torch.equal(_weights(model), before)


def test_a_loss_that_overflows_by_itself_names_rows_of_the_batch() -> None:
    model, batch = _model(), _batch(12)
    with torch.no_grad():
        model.logit_scale.fill_(1e4)
    with pytest.raises(TrainingError) as caught:
        _step(model, batch)
    assert "(rows 100, 101, " in str(caught.value)
    assert "109, ...)" in str(caught.value)
    assert "110" not in str(caught.value)


class BadGradient(torch.autograd.Function):
    """The identity, with a gradient that overflows."""

    @staticmethod
    def forward(ctx: object, tensor: torch.Tensor) -> torch.Tensor:  # noqa: ARG004  part of the contract
        return tensor.clone()

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:  # noqa: ARG004  part of the contract
        return gradients[0] * float("inf")


class Overflowing(nn.Module):
    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = BadGradient.apply(tensor)
        return changed


def test_a_gradient_that_is_not_finite_is_told_from_a_loss() -> None:
    model = _model()
    model.encoders["a"] = nn.Sequential(nn.Linear(3, 4), Overflowing())
    before = _weights(model)
    with pytest.raises(TrainingError, match=r"the gradient's norm is (inf|nan) at epoch 2, step 7"):
        _step(model, _batch())
    assert torch.equal(_weights(model), before)


def test_running_statistics_that_are_not_finite_end_training_though_loss_and_gradient_are() -> None:
    """The variance of numbers this large is infinite, and what is divided by its root zero."""
    model, batch = _model(), _batch()
    model.encoders["a"] = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4))
    batch.arrays["a"]["vector"][2, 1] = 1e30
    with pytest.raises(TrainingError, match=r"running statistics are not finite after the step at epoch 2, step 7 \("):
        _step(model, batch)


def test_autocast_covers_the_encoders_and_leaves_the_loss_in_float32() -> None:
    plain, halved = _step(_model(), _batch()), _step(_model(), _batch(), autocast=torch.bfloat16)
    assert plain != halved
    assert halved == pytest.approx(plain, rel=0.05)
