"""Checkpoints: to the bit and back, whole or absent, and no code in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.training.checkpoint import (
    TRAINING_STATE,
    WEIGHTS,
    TrainingState,
    load_weights,
    read_training_state,
    save_checkpoint,
)


def _model(*, dim: int = 4, names: tuple[str, ...] = ("a", "b")) -> MultimodalEncoder:
    encoders = {name: nn.Sequential(nn.Linear(3, dim), nn.BatchNorm1d(dim)) for name in names}
    return MultimodalEncoder(encoders, dim=dim, normalization="layernorm", logit_scale_init=-1.0)


class Gated(nn.Module):
    """Stands in for an objective with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(3))


def _trained() -> tuple[MultimodalEncoder, TrainingState]:
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    embeddings = model({name: torch.randn(5, 3) for name in "ab"})
    torch.autograd.backward(Symile().loss(embeddings, model.scale))
    optimizer.step()
    return model, TrainingState(epoch=2, step=17, optimizer=optimizer.state_dict())


def test_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    model, state = _trained()
    save_checkpoint(tmp_path / "last", model=model, objective=Symile(), state=state)
    assert {path.name for path in (tmp_path / "last").iterdir()} == {WEIGHTS, TRAINING_STATE}
    other = _model()
    load_weights(tmp_path / "last", model=other, objective=Symile())
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_the_training_state_suffices_to_go_on(tmp_path: Path) -> None:
    model, state = _trained()
    save_checkpoint(tmp_path / "last", model=model, objective=Symile(), state=state)
    read = read_training_state(tmp_path / "last")
    assert (read.epoch, read.step) == (2, 17)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(read.optimizer)
    for group, saved in zip(optimizer.state_dict()["state"].values(), state.optimizer["state"].values(), strict=True):
        assert all(torch.equal(group[key], saved[key]) for key in saved)


def test_parameters_of_an_objective_are_kept_with_the_model(tmp_path: Path) -> None:
    model, state = _trained()
    objective, other = Symile(), Symile()
    objective.add_module("gate", Gated())
    other.add_module("gate", Gated())
    save_checkpoint(tmp_path / "last", model=model, objective=objective, state=state)
    load_weights(tmp_path / "last", model=_model(), objective=other)
    assert torch.equal(other.state_dict()["gate.gate"], objective.state_dict()["gate.gate"])
    with pytest.raises(MismatchError, match=r"unknown: objective\.gate\.gate"):
        load_weights(tmp_path / "last", model=_model(), objective=Symile())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model, state = _trained()
    save_checkpoint(tmp_path / "best", model=model, objective=Symile(), state=state)
    with pytest.raises(MismatchError, match=r"best does not fit the network: missing: model\.encoders\.c\.0\.bias, "):
        load_weights(tmp_path / "best", model=_model(names=("a", "b", "c")), objective=Symile())
    with pytest.raises(MismatchError, match=r"model\.encoders\.a\.0\.bias \[4\] instead of \[8\]"):
        load_weights(tmp_path / "best", model=_model(dim=8), objective=Symile())


def test_a_missing_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint in"):
        load_weights(tmp_path / "best", model=_model(), objective=Symile())


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, state = _trained()
    save_checkpoint(tmp_path / "last", model=model, objective=Symile(), state=state)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "last", model=_model(), objective=Symile(), state=state)
    other = _model()
    load_weights(tmp_path / "last", model=other, objective=Symile())
    assert torch.equal(other.logit_scale, model.logit_scale)
    assert read_training_state(tmp_path / "last").step == 17
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["last"]


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_code_in_a_training_state_never_runs(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "step": 1, "optimizer": Evil(tmp_path / "ran")}, tmp_path / TRAINING_STATE)
    with pytest.raises(MismatchError, match="cannot be read"):
        read_training_state(tmp_path)
    assert not (tmp_path / "ran").exists()
