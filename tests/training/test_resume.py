"""Training that is stopped or killed anywhere and gone on with: to the bit what it would have been."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import DiskError, MismatchError, NotFoundError, StoppedError, TrainingError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.progress import Quiet
from symile_clin.ranks import ALONE
from symile_clin.tracking import NullTracker
from symile_clin.training import fit as fitting
from symile_clin.training import stopping
from symile_clin.training.checkpoint import TRAINING_STATE, WEIGHTS, read_training_state
from symile_clin.training.fit import FitResult, fit
from symile_clin.training.step import optimisation_step
from symile_clin.training.stopping import agreed, never, noted_signals
from symile_clin.training.validate import Validation
from tests.data.vectors import NAMES, WIDTH, candidate_lists, modalities, vector_cohort

CPU = torch.device("cpu")
EPOCHS, STEPS = 3, 4
#: What a wall clock decides.
TIMED = ("train/data_wait",)


class Recorder(NullTracker):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int | None, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        self.sent.append((step, dict(values)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return vector_cohort(tmp_path_factory.mktemp("cohort"), train=50)


def _train(cohort: Cohort, directory: Path, **settings: Any) -> FitResult:
    """From the same start; dropout, batch statistics, drawn negatives, augmentation, absent modalities and all."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    encoders = {
        name: nn.Sequential(nn.Linear(WIDTH, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 8))
        for name in NAMES
    }
    model = MultimodalEncoder(encoders, dim=8, normalization="layernorm", logit_scale_init=-1.0, placeholders=NAMES)
    defaults: dict[str, Any] = {
        "seed": 0, "epochs": EPOCHS, "batch_size": 13, "lr": 1e-2, "weight_decay": 0.01, "decay_all": False,
        "warmup_epochs": 1.5, "schedule": "cosine", "clip_norm": 1.0, "precision": "fp32", "patience": None,
        "select_by": "loss", "workers": 0, "embed_chunk": None, "sync_batchnorm": False, "memory_format": "auto",
        "compile": False, "checkpoint_minutes": None, "tracker": NullTracker(), "progress": Quiet(),
    }  # fmt: skip
    return fit(
        model=model,
        objective=Symile("permuted"),
        train=CohortDataset(cohort, modalities(), cohort.rows("train")),
        val=CohortDataset(cohort, modalities(), cohort.rows("val")),
        candidates=candidate_lists(cohort.rows("val")),
        target="blue",
        directory=directory,
        device=CPU,
        ranks=ALONE,
        **{**defaults, **settings},
    )


def _content(directory: Path) -> dict[str, Any]:
    """Weights as bytes, the rest as plain values without what a wall clock decides."""
    found: dict[str, Any] = {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob(WEIGHTS))
    }
    for path in sorted(directory.rglob(TRAINING_STATE)):
        values = torch.load(path, weights_only=True)
        del values["seconds"]
        optimizer = values.pop("optimizer")
        found[path.parent.name] = values | {"history": list(map(_untimed, values["history"]))}
        found[f"{path.parent.name} groups"] = optimizer["param_groups"]
        found[f"{path.parent.name} moments"] = {
            (number, name): tensor.numpy().tobytes()
            for number, tensors in optimizer["state"].items()
            for name, tensor in tensors.items()
        }
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return {**found, "log": [_untimed(json.loads(line)) for line in lines]}


def _untimed(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMED}


def after(calls: int, number: int = signal.SIGTERM) -> Callable[[], int]:
    """Asks to stop when asked for the n-th time: after each step and after each epoch."""
    left = [calls]

    def stop() -> int:
        left[0] -= 1
        return number if left[0] <= 0 else 0

    return stop


def _stop_and_go_on(cohort: Cohort, directory: Path, stops: Sequence[int], **settings: Any) -> FitResult:
    for count, calls in enumerate(stops):
        with pytest.raises(StoppedError):
            _train(cohort, directory, resume=count > 0, stop=after(calls), **settings)
    return _train(cohort, directory, resume=True, **settings)


@pytest.fixture(scope="module")
def whole(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run comes to that nothing disturbs."""
    directory = tmp_path_factory.mktemp("whole")
    _train(cohort, directory)
    return _content(directory)


@pytest.mark.parametrize("calls", range(1, EPOCHS * (STEPS + 1)))  # the last one is the end itself
def test_a_run_stopped_after_any_step_or_epoch_comes_to_the_same_bits(
    cohort: Cohort, tmp_path: Path, whole: dict[str, Any], calls: int
) -> None:
    with pytest.raises(StoppedError, match=r"^SIGUSR1 stopped training after step ") as caught:
        _train(cohort, tmp_path, stop=after(calls, signal.SIGUSR1))
    assert caught.value.exit_code == 138
    state = read_training_state(tmp_path / "checkpoints" / "last")
    assert state.step == min(calls - calls // (STEPS + 1), EPOCHS * STEPS)
    assert state.epoch == calls // (STEPS + 1)  # the last step's checkpoint is there before the epoch is judged
    torch.rand(calls)  # another process has drawn something else
    result = _train(cohort, tmp_path, resume=True)
    assert _content(tmp_path) == whole
    assert [_untimed(epoch) for epoch in result.history] == whole["last"]["history"]


def test_a_run_stopped_after_every_single_step_comes_to_the_same_bits(
    cohort: Cohort, tmp_path: Path, whole: dict[str, Any]
) -> None:
    _stop_and_go_on(cohort, tmp_path, [1] * (EPOCHS * STEPS))
    assert _content(tmp_path) == whole


def test_the_comparison_can_fail(cohort: Cohort, tmp_path: Path, whole: dict[str, Any]) -> None:
    spoilt: dict[str, Any]
    for name, spoilt in (("seed", {"seed": 1}), ("schedule", {"schedule": "constant"})):
        with pytest.raises(StoppedError):
            _train(cohort, tmp_path / name, stop=after(6))
        _train(cohort, tmp_path / name, resume=True, **spoilt)
        assert _content(tmp_path / name) != whole


def test_worker_processes_change_nothing(cohort: Cohort, tmp_path: Path, whole: dict[str, Any]) -> None:
    _stop_and_go_on(cohort, tmp_path, [7], workers=2)
    assert _content(tmp_path) == whole


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"embed_chunk": 5}], ids=str)
def test_other_ways_to_compute_resume_to_their_own_bits(
    cohort: Cohort, tmp_path: Path, whole: dict[str, Any], settings: dict[str, Any]
) -> None:
    _train(cohort, tmp_path / "whole", **settings)
    _stop_and_go_on(cohort, tmp_path / "parts", [3, 4], **settings)
    assert _content(tmp_path / "parts") == _content(tmp_path / "whole") != whole


@pytest.mark.parametrize("calls", [3, 5, 7])
def test_patience_counts_on(cohort: Cohort, tmp_path: Path, calls: int) -> None:
    settings = {"epochs": 12, "patience": 1, "select_by": "retrieval"}
    first = _train(cohort, tmp_path / "whole", **settings)
    assert len(first.history) < 12
    second = _stop_and_go_on(cohort, tmp_path / "parts", [calls], **settings)
    assert _content(tmp_path / "parts") == _content(tmp_path / "whole")
    assert (second.best_epoch, second.best["val/loss"]) == (first.best_epoch, first.best["val/loss"])


def test_a_finished_run_goes_on_to_the_same_end(cohort: Cohort, tmp_path: Path, whole: dict[str, Any]) -> None:
    first = _train(cohort, tmp_path)
    before = read_training_state(tmp_path / "checkpoints" / "last").seconds
    second = _train(cohort, tmp_path, resume=True)
    assert (second.best_epoch, second.history) == (first.best_epoch, first.history)
    assert second.seconds > before > 0
    assert _content(tmp_path) == whole


def test_a_signal_at_the_very_end_does_not_undo_it(cohort: Cohort, tmp_path: Path) -> None:
    assert len(_train(cohort, tmp_path, stop=after(EPOCHS * (STEPS + 1))).history) == EPOCHS


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing is done on its way."""


def _killed(*_: object, **__: object) -> NoReturn:
    raise Killed


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("point", ["validate", "save_checkpoint", "copy_checkpoint", "tracker"])
def test_a_run_killed_at_an_epochs_end_goes_on_from_what_is_whole(
    cohort: Cohort, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, point: str, epoch: int
) -> None:
    """Losses fall here, so that each epoch is the best and writes both checkpoints."""
    original = getattr(fitting, point) if point != "tracker" else None
    calls = [0]

    def sometimes(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        return original(*arguments, **options) if original and calls[0] < epoch else _killed()

    with monkeypatch.context() as patch:
        tracker = Recorder()
        if original:
            patch.setattr(fitting, point, sometimes)
        else:
            patch.setattr(tracker, "metrics", lambda *_, step=None: _killed() if step == epoch else None)
        with pytest.raises(Killed):
            _train(cohort, tmp_path, tracker=tracker)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"epoch": 7, "st')  # cut in the middle of a line
    found = (tmp_path / "checkpoints" / "last").is_dir()
    assert found == (epoch > 1 or point == "tracker")
    _train(cohort, tmp_path, resume=found)
    assert _content(tmp_path) == whole


def test_checkpoints_inside_an_epoch_bound_what_a_kill_costs(
    cohort: Cohort, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_at_7(**arguments: Any) -> float:
        return _killed() if arguments["step"] == 7 else optimisation_step(**arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "optimisation_step", killed_at_7)
        for name, minutes, reached in (("none", None, 4), ("late", 60.0, 4), ("each step", 1e-9, 7)):
            with pytest.raises(Killed):
                _train(cohort, tmp_path / name, checkpoint_minutes=minutes)
            assert read_training_state(tmp_path / name / "checkpoints" / "last").step == reached
    for name in ("none", "each step"):
        _train(cohort, tmp_path / name, resume=True)
        assert _content(tmp_path / name) == whole


def test_a_full_disk_costs_one_checkpoint_and_no_more(
    cohort: Cohort, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    save = torch.save

    def full(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 7:
            raise OSError(28, "No space left on device")
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(DiskError, match="No space left on device"):
            _train(cohort, tmp_path, checkpoint_minutes=1e-9)
    assert read_training_state(tmp_path / "checkpoints" / "last").step == 5
    _train(cohort, tmp_path, resume=True)
    assert _content(tmp_path) == whole


def test_a_tracker_is_sent_all_epochs_again_and_the_end_once(cohort: Cohort, tmp_path: Path) -> None:
    """What it has already is the tracker's to know: the sending process may have died before it was sent."""
    tracker = Recorder()
    with pytest.raises(StoppedError):
        _train(cohort, tmp_path, stop=after(12))
    result = _train(cohort, tmp_path, resume=True, tracker=tracker)
    assert [step for step, _ in tracker.sent] == [1, 2, 3, None]
    assert [sent for _, sent in tracker.sent[:-1]] == list(result.history)


def test_a_checkpoint_of_other_steps_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        _train(cohort, tmp_path, stop=after(7))
    for settings in ({"batch_size": 30}, {"epochs": 1}):
        with pytest.raises(MismatchError, match="of a run with other steps"):
            _train(cohort, tmp_path, resume=True, **settings)
    with pytest.raises(NotFoundError, match="no checkpoint"):
        _train(cohort, tmp_path / "empty", resume=True)


def _finite_at(directory: Path) -> int:
    """Step of the last checkpoint, whose weights are finite."""
    weights = load_file(directory / "checkpoints" / "last" / WEIGHTS)
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    return read_training_state(directory / "checkpoints" / "last").step


def test_a_loss_that_is_not_finite_leaves_a_finite_checkpoint(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, calls = Symile.share_of_loss, [0]

    def spoilt(self: Symile, *arguments: Any, **options: Any) -> torch.Tensor:
        calls[0] += 1
        return share(self, *arguments, **options) * (math.nan if calls[0] == 3 else 1.0)

    monkeypatch.setattr(Symile, "share_of_loss", spoilt)
    with pytest.raises(TrainingError, match="the loss is nan at epoch 1, step 3"):
        _train(cohort, tmp_path, checkpoint_minutes=1e-9)
    assert _finite_at(tmp_path) == 2


def test_a_validation_loss_that_is_not_finite_ends_training(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "validate", lambda **_: Validation(loss=math.inf, recall_at_1=0.1))
    with pytest.raises(TrainingError, match="the validation loss is inf after epoch 1"):
        _train(cohort, tmp_path, checkpoint_minutes=1e-9)
    assert _finite_at(tmp_path) == 4


class Listener(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class OutsideError(Exception):
    """What a signal does outside."""


@pytest.fixture(params=["SIGTERM", "SIGINT", "SIGUSR1"])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal that raises `OutsideError` in this process."""

    def raises(*_: object) -> None:
        raise OutsideError

    found = signal.Signals[request.param]
    before = signal.signal(found, raises)
    yield found
    signal.signal(found, before)


def test_the_first_signal_is_noted_and_a_later_one_does_what_it_did(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    now = [100.0]
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with noted_signals(listener) as stop:
        assert stop() == 0
        os.kill(os.getpid(), number)
        assert stop() == number
        now[0] += 1.9  # the same wish, passed on by a launcher
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() == number
        now[0] += 0.2
        with pytest.raises(OutsideError):
            os.kill(os.getpid(), number)
    assert listener.said == [f"{signal.Signals(number).name}: stopping after this step; another signal ends at once."]
    with pytest.raises(OutsideError):
        os.kill(os.getpid(), number)


def test_what_signals_did_before_they_do_afterwards() -> None:
    before = [signal.getsignal(one) for one in stopping.SIGNALS]
    with noted_signals(Quiet()):
        assert [signal.getsignal(one) for one in stopping.SIGNALS] != before
    assert [signal.getsignal(one) for one in stopping.SIGNALS] == before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    found: list[object] = []

    def run() -> None:
        with noted_signals(Quiet()) as stop:
            found.append(stop)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [never]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_real_signal_stops_a_run_that_then_goes_on(cohort: Cohort, tmp_path: Path, whole: dict[str, Any]) -> None:
    class Sends(Recorder):
        def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
            super().metrics(values, step=step)
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with noted_signals(Quiet()) as stop, pytest.raises(StoppedError, match="SIGINT") as caught:
        _train(cohort, tmp_path, tracker=Sends(), stop=stop)
    assert caught.value.exit_code == 130
    _train(cohort, tmp_path, resume=True)
    assert _content(tmp_path) == whole


def test_one_process_agrees_with_itself() -> None:
    assert [agreed(one, ranks=ALONE, device=CPU) for one in (0, 15)] == [0, 15]
