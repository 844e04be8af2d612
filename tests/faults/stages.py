"""Stages on tiny data, as functions of a working directory: what faults are injected into.

`prepare` makes what a stage starts from, once, undisturbed; `act` is the stage itself, the command line in most of
them, and runs in the working directory in a process forked by `points.Session`. Stages never write what they are given.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from PIL import Image

if TYPE_CHECKING:
    from tests.faults.points import Session

ADMISSIONS: Final = 8
#: Events of one shard, so that few of them are several shards.
SHARD_EVENTS: Final = 4
TRAIN: Final = (
    "train", "--no-tracking", "--name", "run", "--device", "cpu",
    "--set", "training.epochs=2", "--set", "training.batch_size=20", "--set", "training.checkpoint_minutes=1.0e-6",
)  # fmt: skip
SOURCES: Final = tuple(
    part for name in ("mimic_iv", "mimic_cxr", "mimic_ecg") for part in (f"--{name.replace('_', '-')}", f"tree/{name}")
)
#: What is imported before anything is forked; importing starts no threads.
HEAVY: Final = (
    "torch", "torch._dynamo", "safetensors.torch", "duckdb", "ibis.backends.duckdb", "pyarrow.parquet", "pyarrow.csv",
    "pandas", "PIL.Image", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "sklearn.linear_model", "scipy.stats", "jinja2", "isal.igzip", "symile_clin.cli", "symile_clin.config",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        act: what it does, in the current working directory.
        prepare: fills an empty working directory with what it starts from.
        given: entries of the working directory that the stage reads and never changes.
        units: directories that are there whole or not at all, as patterns below the working directory.
        checkpoints: directories that are each a whole checkpoint of some step, or not there.
        again: the stage that goes on with what a killed one left; None where nothing is left to do.
    """

    act: Callable[[], None]
    prepare: Callable[[Session, Path], None]
    given: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    again: Callable[[Path], str | None] | None = None


def preload() -> None:
    """Import what stages import, and all commands."""
    for name in HEAVY:
        importlib.import_module(name)
    from symile_clin import pipeline

    for name in pipeline._HOME:
        getattr(pipeline, name)


def command(*arguments: str) -> Callable[[], None]:
    """A command line of the program; it leaves with its exit code."""

    def act() -> None:
        from symile_clin import cli

        sys.argv = ["symile-clin", *arguments, "--quiet"]
        cli.main()

    return act


def nothing(session: Session, folder: Path) -> None:
    """For stages that start from nothing."""


def _tree(session: Session, folder: Path) -> None:  # noqa: ARG001  one signature
    """A hand-made MIMIC tree and a spec of it."""
    from symile_clin.strict import apply_overrides, dump_yaml
    from tests.cohort.tree import SPEC, Tree

    tree = Tree(folder / "tree")
    for number in range(ADMISSIONS):
        tree.complete(10_000_000 + number, 20_000_000 + number)
    tree.write()
    (folder / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))


def _build(*more: str, workers: int = 1) -> Callable[[], None]:
    def act() -> None:
        for module in ("opening", "reading"):
            vars(importlib.import_module(f"symile_clin.cohort.{module}"))["SHARD_EVENTS"] = SHARD_EVENTS
        # half of a small build's time, and nothing but a table in a file that is written later
        cohorts = vars(importlib.import_module("symile_clin.pipeline.cohorts"))
        cohorts["count_events"] = lambda modality, *_, **__: pd.DataFrame({"modality": [modality.name]})
        if workers > 1:  # however little there is to read
            vars(importlib.import_module("symile_clin.cohort.workers"))["WORTH_STARTING_SECONDS"] = 0.0
        one = ("--workers", str(workers), "--threads", "1", "--no-tracking")
        command("cohort", "build", "tiny.yaml", *SOURCES, *one, *more)()

    return act


def _without_pictures(*arguments: str) -> Callable[[], None]:
    """A command whose pictures are files with nothing to see: to draw them is most of its time."""

    def act() -> None:
        from matplotlib.figure import Figure

        empty = io.BytesIO()
        Image.new("RGB", (8, 8)).save(empty, "png")

        def save(_: Figure, to: Any, **__: Any) -> None:
            with nullcontext(to) if isinstance(to, io.BytesIO) else open(to, "wb") as file:  # noqa: PTH123
                file.write(empty.getvalue())

        setattr(Figure, "savefig", save)  # noqa: B010  a plain assignment would be another type's
        for module, name in (("panel", "draw_panel"), ("contributions", "draw_contributions")):
            drawn = importlib.import_module(f"symile_clin.modalities.labs.{module}")
            vars(drawn)[name] = lambda *_: np.zeros((8, 8, 3), np.uint8)
        command(*arguments)()

    return act


def _built(session: Session, folder: Path) -> None:
    """A cohort, to be replaced by another."""
    _tree(session, folder)
    _do(session, "build", folder)


def _cohort(session: Session, folder: Path) -> None:  # noqa: ARG001
    """A cohort to train on; paths in it do not tell where it is."""
    from symile_clin import files
    from symile_clin.schema import MANIFEST
    from tests.report.evaluated import described_cohort

    cohort = described_cohort(folder)
    spec: dict[str, Any] = {**cohort.spec, "preset": "tiny.yaml"}
    files.write_json(cohort.path / MANIFEST, {**cohort.manifest, "spec": spec})


def _trained(session: Session, folder: Path) -> None:
    """A cohort and a run."""
    _cohort(session, folder)
    _do(session, "train", folder)


def _evaluated(session: Session, folder: Path) -> None:
    """A cohort and a run that is evaluated."""
    _trained(session, folder)
    _do(session, "eval", folder)


def _do(session: Session, stage: str, folder: Path) -> None:
    done = session.run(stage, folder)
    assert done.code == 0, done.output


def _checkpoint() -> None:
    """Two checkpoints saved in one place, and copied to another, as a training does."""
    import torch

    from symile_clin.objectives.symile import Symile
    from symile_clin.training.checkpoint import copy_checkpoint, save_checkpoint
    from symile_clin.training.state import TrainingState

    model, objective = torch.nn.Linear(40, 40), Symile(negatives="permuted")
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (1, 2):
        torch.nn.init.constant_(model.weight, step)
        torch.nn.init.constant_(model.bias, step)
        model(torch.ones(1, 40)).sum().backward()
        optimizer.step()
        state = TrainingState(step=step)
        save_checkpoint(Path("last"), model=model, objective=objective, optimizer=optimizer, state=state)
        copy_checkpoint(Path("last"), Path("best"))


def _resume(folder: Path) -> str:
    return "resume" if (folder / "runs" / "run" / "started.json").exists() else "train"


def _unless(path: str, stage: str) -> Callable[[Path], str | None]:
    """A command that refuses to write a file anew, which is there: nothing is left to do."""
    return lambda folder: None if (folder / path).exists() else stage


ON_CPU: Final = ("--device", "cpu")
SPLIT: Final = ("run", "--split", "val", *ON_CPU)
TRAINED: Final = ("data", "tiny.yaml")
STAGES: Final[Mapping[str, Stage]] = {
    "synth": Stage(command("synth", "tree", "--patients", "1", "--workers", "1"), nothing, units=("tree",)),
    "build": Stage(_build(), _tree, given=("tree", "tiny.yaml"), units=("data/cohorts/tiny",)),
    "build-2": Stage(
        _build(workers=2), _tree, given=("tree", "tiny.yaml"), units=("data/cohorts/tiny",), again=lambda _: "build"
    ),
    "rebuild": Stage(
        _build("--set", "splits.seed=5"), _built, given=("tree", "tiny.yaml"), units=("data/cohorts/tiny",)
    ),
    "train": Stage(command(*TRAIN), _cohort, given=TRAINED, checkpoints=("runs/run/checkpoints/*",), again=_resume),
    "resume": Stage(command("train", "--no-tracking", "--resume", "--name", "run"), _cohort),
    "checkpoint": Stage(_checkpoint, nothing, checkpoints=("last", "best")),
    "embed": Stage(
        command("embed", *SPLIT, "--out", "v.parquet"), _trained, given=TRAINED, again=_unless("v.parquet", "embed")
    ),
    "embed npz": Stage(
        command("embed", *SPLIT, "--out", "v.npz"), _trained, given=TRAINED, again=_unless("v.npz", "embed npz")
    ),
    "index": Stage(command("index", "run", *ON_CPU), _trained, given=TRAINED, units=("runs/run/index/*",)),
    "eval": Stage(
        _without_pictures("eval", *SPLIT, "--no-tracking"), _trained, given=TRAINED, units=("runs/run/eval/val",)
    ),
    "report": Stage(_without_pictures("report", *SPLIT), _evaluated, given=TRAINED),
}
