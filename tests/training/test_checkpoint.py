"""Checkpoints: to the bit and back, whole or absent, and no code in them."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from symile_clin import files
from symile_clin.errors import DiskError, MismatchError, NotFoundError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.sources.checksums import SUMS
from symile_clin.training import checkpoint
from symile_clin.training.checkpoint import (
    TRAINING_STATE,
    WEIGHTS,
    copy_checkpoint,
    load_checkpoint,
    load_weights,
    read_training_state,
    save_checkpoint,
)
from symile_clin.training.state import TrainingState


def _model(*, dim: int = 4, names: tuple[str, ...] = ("a", "b")) -> MultimodalEncoder:
    encoders = {name: nn.Sequential(nn.Linear(3, dim), nn.BatchNorm1d(dim)) for name in names}
    return MultimodalEncoder(encoders, dim=dim, normalization="layernorm", logit_scale_init=-1.0)


class Gated(nn.Module):
    """Stands in for an objective with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(3))


def _trained() -> tuple[MultimodalEncoder, torch.optim.AdamW]:
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    embeddings = model({name: torch.randn(5, 3) for name in "ab"})
    torch.autograd.backward(Symile().loss(embeddings, model.scale))
    optimizer.step()
    return model, optimizer


def _save(directory: Path, model: MultimodalEncoder, optimizer: torch.optim.AdamW, **state: Any) -> None:
    save_checkpoint(
        directory,
        model=model,
        objective=Symile(),
        optimizer=optimizer,
        state=TrainingState(**{"step": 17, "loss": 0.1 + 0.2, **state}),
    )


def test_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = _trained()
    _save(tmp_path / "last", model, optimizer)
    assert {path.name for path in (tmp_path / "last").iterdir()} == {WEIGHTS, TRAINING_STATE, SUMS}
    other = _model()
    load_weights(tmp_path / "last", model=other, objective=Symile())
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_all_that_training_needs_comes_back_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = _trained()
    history = [{"train/loss": 1 / 3, "val/loss": 2 / 3}, {"train/loss": 0.1, "val/loss": 0.7}]
    _save(tmp_path / "last", model, optimizer, history=history, best_epoch=1, seconds=2.5)
    other = _model()
    fresh = torch.optim.AdamW(other.parameters())
    state = load_checkpoint(tmp_path / "last", model=other, objective=Symile(), optimizer=fresh)
    assert state == TrainingState(step=17, loss=0.1 + 0.2, history=history, best_epoch=1, seconds=2.5)
    assert state == read_training_state(tmp_path / "last")
    found, expected = (one.state_dict()["state"] for one in (fresh, optimizer))
    assert found.keys() == expected.keys()
    for number in expected:
        assert all(torch.equal(found[number][key], expected[number][key]) for key in expected[number])


def test_a_checkpoint_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _save(tmp_path / "best", *_trained())
        copy_checkpoint(tmp_path / "best", tmp_path / "last")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("[!.]*/*")} == {0o600}


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_outlives_what_it_was_copied_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    model, optimizer = _trained()
    _save(tmp_path / "best", model, optimizer, step=1)
    copy_checkpoint(tmp_path / "best", tmp_path / "last")
    same = (tmp_path / "best" / WEIGHTS).samefile(tmp_path / "last" / WEIGHTS)
    assert same == links
    _save(tmp_path / "last", *_trained(), step=2)
    assert [read_training_state(tmp_path / name).step for name in ("best", "last")] == [1, 2]
    other = _model()
    load_weights(tmp_path / "best", model=other, objective=Symile())
    assert torch.equal(other.logit_scale, model.logit_scale)


def test_parameters_of_an_objective_are_kept_with_the_model(tmp_path: Path) -> None:
    model, optimizer = _trained()
    objective, other = Symile(), Symile()
    objective.add_module("gate", Gated())
    other.add_module("gate", Gated())
    save_checkpoint(tmp_path / "last", model=model, objective=objective, optimizer=optimizer, state=TrainingState())
    load_weights(tmp_path / "last", model=_model(), objective=other)
    assert torch.equal(other.state_dict()["gate.gate"], objective.state_dict()["gate.gate"])
    with pytest.raises(MismatchError, match=r"unknown: objective\.gate\.gate"):
        load_weights(tmp_path / "last", model=_model(), objective=Symile())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model, optimizer = _trained()
    _save(tmp_path / "best", model, optimizer)
    with pytest.raises(MismatchError, match=r"best does not fit the network: missing: model\.encoders\.c\.0\.bias, "):
        load_weights(tmp_path / "best", model=_model(names=("a", "b", "c")), objective=Symile())
    with pytest.raises(MismatchError, match=r"model\.encoders\.a\.0\.bias \[4\] instead of \[8\]"):
        load_weights(tmp_path / "best", model=_model(dim=8), objective=Symile())


def test_a_missing_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint in"):
        load_weights(tmp_path / "best", model=_model(), objective=Symile())


def _untouched(directory: Path, model: MultimodalEncoder) -> None:
    other = _model()
    load_weights(directory, model=other, objective=Symile())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    assert read_training_state(directory).step == 17
    assert [path.name for path in directory.parent.iterdir() if not path.name.endswith(".lock")] == [directory.name]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITES = [
    (checkpoint, "save_file"),
    (torch, "save"),
    (Path, "open"),
    (Path, "mkdir"),
    (Path, "chmod"),
    (files, "_sync"),
]


@pytest.mark.parametrize(("module", "name"), WRITES, ids=[name for _, name in WRITES])
def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    model, optimizer = _trained()
    _save(tmp_path / "last", model, optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, _fails)
        with pytest.raises(DiskError, match=r"No space left on device\. Expected \d+ kB of room for \S*/last\."):
            _save(tmp_path / "last", *_trained(), step=18)
    _untouched(tmp_path / "last", model)
    _save(tmp_path / "last", *_trained(), step=18)
    assert read_training_state(tmp_path / "last").step == 18


def test_a_device_that_fails_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError, match="CUDA error"):
        _save(tmp_path / "last", *_trained())


def _fails(*_: object, **__: object) -> None:
    raise FULL


def test_a_failed_replacement_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two directories cannot change places in one step, and the second of two renames fails."""
    model, optimizer = _trained()
    _save(tmp_path / "last", model, optimizer)
    rename = Path.rename

    def second(path: Path, to: Path) -> Path:
        return rename(path, to) if to.name != "last" else _fails()  # type: ignore[return-value,func-returns-value]

    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchange", lambda *_: False)
        patch.setattr(Path, "rename", second)
        with pytest.raises(DiskError):
            _save(tmp_path / "last", *_trained(), step=18)
    # the next one that looks puts it back
    with pytest.raises(ZeroDivisionError), files.atomic_directory(tmp_path / "last"):
        _ = 1 // 0
    _untouched(tmp_path / "last", model)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_real_refusal_of_the_system_at_any_byte_is_understood(tmp_path: Path, share: float) -> None:
    """Files of this process may not grow beyond a share of either file's size: the two fail in their own ways."""
    model, optimizer = _trained()
    _save(tmp_path / "last", model, optimizer)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in {path.stat().st_size for path in (tmp_path / "last").iterdir()}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share), hard))  # Python ignores its signal
        try:
            with pytest.raises(DiskError, match=r"last could not be .*: File too large\. Expected \d+ kB of room"):
                _save(tmp_path / "last", *_trained(), step=18)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _untouched(tmp_path / "last", model)


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


def _written(tmp_path: Path, **changes: Any) -> Path:
    _save(tmp_path / "last", *_trained())
    values = torch.load(tmp_path / "last" / TRAINING_STATE, weights_only=True)
    torch.save({**values, **changes}, tmp_path / "last" / TRAINING_STATE)
    (tmp_path / "last" / SUMS).unlink()  # as if all of it had been written so
    return tmp_path / "last"


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1},
        {"step": "17"},
        {"loss": float("nan")},
        {"history": [{"val/loss": "low"}]},
        {"history": {}},
        {"best_epoch": 3},
        {"scaler": {}},
    ],
    ids=str,
)
def test_another_state_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(MismatchError, match="something else than a training state"):
        read_training_state(_written(tmp_path, **changes))


@pytest.mark.parametrize(
    "moments",
    [
        {},
        {"state": {}, "param_groups": []},
        torch.optim.AdamW(_model(dim=8).parameters()).state_dict(),
        torch.optim.AdamW(_model(names=("a",)).parameters()).state_dict(),
        "nothing",
    ],
    ids=["empty", "no groups", "no moments", "fewer parameters", "a string"],
)
def test_another_optimizer_is_refused_unless_it_fits(
    tmp_path: Path, moments: object, request: pytest.FixtureRequest
) -> None:
    directory = _written(tmp_path, optimizer=moments)
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    if "no moments" in request.node.name:  # of a run that has made no step: it has no shapes
        load_checkpoint(directory, model=model, objective=Symile(), optimizer=optimizer)
        return
    with pytest.raises(MismatchError, match="optimizer of another model"):
        load_checkpoint(directory, model=model, objective=Symile(), optimizer=optimizer)


def test_moments_of_other_shapes_are_refused(tmp_path: Path) -> None:
    wide = _model(dim=8)
    optimizer = torch.optim.AdamW(wide.parameters())
    torch.autograd.backward(sum((parameter.sum() for parameter in wide.parameters()), torch.tensor(0.0)))
    optimizer.step()
    directory = _written(tmp_path, optimizer=optimizer.state_dict())
    model = _model()
    with pytest.raises(MismatchError, match="optimizer of another model"):
        load_checkpoint(directory, model=model, objective=Symile(), optimizer=torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize("damage", [b"", b"PK", b"not a checkpoint" * 100])
def test_a_damaged_state_is_refused(tmp_path: Path, damage: bytes) -> None:
    _save(tmp_path / "last", *_trained())
    (tmp_path / "last" / TRAINING_STATE).write_bytes(damage)
    with pytest.raises(MismatchError, match="cannot be read as a training state"):
        read_training_state(tmp_path / "last")
    (tmp_path / "last" / TRAINING_STATE).unlink()
    with pytest.raises(MismatchError, match="cannot be read as a training state"):
        read_training_state(tmp_path / "last")
