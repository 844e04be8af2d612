"""`train --resume`: which run goes on, when it is refused, and what is left of one that fails."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from symile_clin import files
from symile_clin.errors import (
    BusyError,
    ConfigError,
    DiskError,
    MismatchError,
    NotFoundError,
    OutOfMemoryError,
    StoppedError,
)
from symile_clin.pipeline import fitting
from symile_clin.pipeline import training as commands
from symile_clin.pipeline.runs import open_run
from symile_clin.pipeline.training import TrainResult, train
from symile_clin.pipeline.unfinished import STARTED
from symile_clin.progress import Progress, Quiet
from symile_clin.training.checkpoint import WEIGHTS, read_training_state
from symile_clin.training.stopping import Stop
from tests.pipeline.tiny_cohort import tiny_cohort

EPOCHS = "training.epochs=2"


class Listener(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a cohort."""
    tiny_cohort(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _train(**settings: Any) -> TrainResult:
    given = settings if settings.get("resume") else {"overrides": [EPOCHS], **settings}
    return train(**{"tracking_uri": None, "progress": Quiet(), **given})


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Starts a run and stops it when it asks for the n-th time."""

    def start(calls: int, **settings: Any) -> None:
        left = [calls]

        def stop() -> int:
            left[0] -= 1
            return signal.SIGTERM if left[0] <= 0 else 0

        @contextmanager
        def pretended(progress: Progress) -> Iterator[Stop]:  # noqa: ARG001
            yield stop

        with monkeypatch.context() as patch:
            patch.setattr(fitting, "noted_signals", pretended)
            with pytest.raises(StoppedError) as caught:
                _train(**settings)
        assert caught.value.exit_code == 143
        assert str(caught.value).startswith("SIGTERM stopped training after step ")
        assert "Go on with `symile-clin train --resume --name " in str(caught.value)

    return start


def _weights(name: str) -> list[bytes]:
    return [Path("runs", name, "checkpoints", which, WEIGHTS).read_bytes() for which in ("best", "last")]


def test_a_stopped_run_goes_on_under_its_name(stopped: Callable[..., None]) -> None:
    whole = _train(name="whole")
    for name, calls in (("early", 2), ("late", 9)):
        stopped(calls, name=name)
        assert not Path("runs", name, "manifest.json").exists()
        with pytest.raises(NotFoundError, match=rf"'{name}' did not finish\. Go on with it: .*--resume --name {name}"):
            open_run(Path("runs"), name)
        with pytest.raises(ConfigError, match=r"already\. Choose another --name, or go on with it by --resume"):
            _train(name=name, overrides=["seed=1"])
        result = _train(resume=True, name=name)
        assert _weights(name) == _weights("whole")
        assert (result.run.name, result.skipped, result.best_epoch) == (name, False, whole.best_epoch)
        assert result.seconds > 0
        assert result.record()["metrics"].keys() == whole.record()["metrics"].keys()
        assert open_run(Path("runs"), name).config == open_run(Path("runs"), "whole").config


def test_a_run_that_was_killed_between_two_renames_goes_on(stopped: Callable[..., None]) -> None:
    """On a disk where directories cannot change places at once (NFS), a kill may leave only the old one, moved away."""
    _train(name="whole")
    for which in (["last"], ["best"], ["best", "last"]):
        stopped(9, name="killed")
        checkpoints = Path("runs/killed/checkpoints")
        steps = read_training_state(checkpoints / "last").step
        assert steps > 0
        for name in which:
            (checkpoints / name).rename(checkpoints / f".{name}.old")
        listener = Listener()
        _train(resume=True, name="killed", progress=listener)
        assert any(line.startswith(f"Going on after step {steps} of") for line in listener.said)
        assert _weights("killed") == _weights("whole")
        assert not list(checkpoints.glob(".*.old"))
        shutil.rmtree("runs/killed")


def test_a_run_whose_only_checkpoint_is_moved_away_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second Ctrl-C may come between two renames."""

    def interrupted(_begun: object, *_: object, **__: object) -> None:
        (Path("runs/new/checkpoints") / ".last.old").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "_fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _train(name="new")
    assert Path("runs/new/checkpoints/.last.old").is_dir()


def test_without_a_name_the_run_that_was_worked_on_last_goes_on(stopped: Callable[..., None]) -> None:
    with pytest.raises(NotFoundError, match=r"no run in runs was cut short. Start one with `symile-clin train`"):
        _train(resume=True)
    stopped(2, name="one")
    stopped(2, name="two", overrides=[EPOCHS, "seed=2"])
    _train(name="finished", overrides=[EPOCHS, "seed=3"])
    assert [_train(resume=True).run.name for _ in range(2)] == ["two", "one"]
    with pytest.raises(NotFoundError, match="no run in runs was cut short"):
        _train(resume=True)


def test_a_finished_run_says_so(stopped: Callable[..., None]) -> None:
    first = _train(name="done")
    listener = Listener()
    again = _train(resume=True, name="done", progress=listener)
    assert listener.said == ["Run runs/done has finished: there is nothing to go on with."]
    assert (again.run, again.skipped, again.cohort) == (first.run, True, first.cohort)
    stopped(2, name="other", overrides=[EPOCHS, "seed=5"])
    for name in ("oter", "../runs/other", ""):
        with pytest.raises(NotFoundError, match="no run called"):
            _train(resume=True, name=name)
    Path("runs/foreign").mkdir()
    with pytest.raises(NotFoundError, match=f"run 'foreign' has no {STARTED}"):
        _train(resume=True, name="foreign")


@pytest.mark.parametrize(
    "settings",
    [{"preset": "demo"}, {"objective": "clip"}, {"overrides": ["seed=1"]}, {"init_from": Path("x")}],
    ids=str,
)
def test_other_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--resume goes on with a run's own settings") as caught:
        _train(resume=True, **settings)
    assert caught.value.exit_code == 2


def test_what_would_make_another_run_of_it_is_refused(
    place: Path, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(2, name="run")
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    config, cohort = Path("runs/run/config.yaml"), Path("data/cohorts/tiny")
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    with pytest.raises(MismatchError, match=r"config\.yaml is not what run 'run' began with"):
        _train(resume=True)
    config.write_bytes(before[config])
    with monkeypatch.context() as patch:
        patch.setattr(commands, "choose_device", lambda name, *_: torch.device(name))
        with pytest.raises(ConfigError, match=r"began on device cpu, and this is cuda\. Go on with --device cpu"):
            _train(resume=True, device="cuda")
    shutil.copytree(cohort, place / "changed")
    manifest = json.loads((place / "changed" / "manifest.json").read_text())
    (place / "changed" / "manifest.json").write_text(json.dumps({**manifest, "hash": "2"}))
    with pytest.raises(MismatchError, match="the cohort in changed is not the one that run 'run' began with"):
        _train(resume=True, cohort=Path("changed"))
    cohort.rename("moved")
    with pytest.raises(NotFoundError, match="the cohort of run 'run' is no longer in data/cohorts/tiny"):
        _train(resume=True)
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before
    assert _train(resume=True, cohort=Path("moved")).cohort == Path("moved")


def test_what_may_change_last_bits_is_mentioned(stopped: Callable[..., None]) -> None:
    stopped(2, name="run")
    started = files.read_json(Path("runs/run") / STARTED)
    assert started["machine"]["threads"] == torch.get_num_threads()
    started["machine"] |= {"torch": "2.9", "processes": 4}
    files.write_json(Path("runs/run") / STARTED, started)
    listener = Listener()
    _train(resume=True, progress=listener)
    changed = f"processes 4 is now 1, torch 2.9 is now {torch.__version__}"
    assert f"Rounding may differ from a run that never stopped: {changed}." in listener.said
    assert "Going on after step 2 of 10." in listener.said


def test_a_run_that_another_process_trains_is_left_alone(stopped: Callable[..., None]) -> None:
    stopped(2, name="run")
    with files.lock(Path("runs/.run.lock")), pytest.raises(BusyError, match="another process is writing runs/run"):
        _train(resume=True)
    assert _train(resume=True).run.name == "run"


def test_a_run_killed_before_its_first_checkpoint_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "check_same", killed)  # before any cleaning up
        with pytest.raises(KilledError):
            _train(name="run")
    assert {path.name for path in Path("runs/run").iterdir()} == {"config.yaml", STARTED}
    _train(resume=True)
    _train(name="whole")
    assert _weights("run") == _weights("whole")


def _fails_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    from symile_clin.training import fit as training
    from symile_clin.training.step import optimisation_step

    def fails(**arguments: Any) -> float:
        if arguments["step"] == step:
            raise error
        return optimisation_step(**arguments)

    monkeypatch.setattr(training, "optimisation_step", fails)


def test_an_error_leaves_what_is_worth_going_on_with_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    with monkeypatch.context() as patch:
        _fails_at(patch, 3, MemoryError())
        with pytest.raises(OutOfMemoryError):
            _train(name="early", progress=listener)
    assert [path.name for path in Path("runs").iterdir()] == [".early.lock"]
    assert not any("--resume" in line for line in listener.said)
    with monkeypatch.context() as patch:
        _fails_at(patch, 7, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            _train(name="late", progress=listener)
    go_on = "`symile-clin train --resume --name late` goes on with it."
    assert listener.said[-1] == f"Run runs/late is kept as it was at its last checkpoint: {go_on}"
    _train(resume=True)
    _train(name="whole")
    assert _weights("late") == _weights("whole")


def test_a_full_disk_ends_with_a_line_and_a_run_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls, listener = torch.save, [0], Listener()

    def full(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(28, "No space left on device")
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(
            DiskError, match=r"runs/run/checkpoints/\w+ could not be written: No space left on device"
        ) as caught:
            _train(name="run", progress=listener, overrides=["training.epochs=4"])
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert "--resume --name run" in listener.said[-1]
    _train(resume=True)
    _train(name="whole", overrides=["training.epochs=4"])
    assert _weights("run") == _weights("whole")


def test_training_anew_mentions_an_equal_run_that_did_not_finish(stopped: Callable[..., None]) -> None:
    stopped(2, name="run")
    listener = Listener()
    _train(name="other", progress=listener)
    said = "Run runs/run has these settings, too, and has not finished: --resume goes on with that one."
    assert said in listener.said
