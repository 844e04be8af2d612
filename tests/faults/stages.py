"""Stages on tiny data, as functions of a working directory: what faults are injected into.

`prepare` makes what a stage starts from, once, undisturbed; `act` is the stage itself, the command line in most of
them, and runs in the working directory in a process forked by `points.Session`. Stages never write what they are given.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.faults.points import Session

ADMISSIONS: Final = 12
#: Events of one shard, so that few of them are several shards.
SHARD_EVENTS: Final = 8
TRAIN: Final = (
    "train", "--no-tracking", "--name", "run", "--device", "cpu",
    "--set", "training.epochs=2", "--set", "training.batch_size=20", "--set", "training.checkpoint_minutes=1.0e-6",
)  # fmt: skip
EVALUATE: Final = ("eval", "run", "--split", "val", "--no-tracking", "--device", "cpu")
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
        units: directories that appear whole or not at all, as patterns below the working directory.
        grows: files and directories that a stage adds to while it is under way, with patterns as `units`: documented
            as unfinished until their manifest is there.
    """

    act: Callable[[], None]
    prepare: Callable[[Session, Path], None]
    units: tuple[str, ...] = ()
    grows: tuple[str, ...] = ()


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


def _build(*more: str) -> Callable[[], None]:
    def act() -> None:
        for module in ("opening", "reading"):
            vars(importlib.import_module(f"symile_clin.cohort.{module}"))["SHARD_EVENTS"] = SHARD_EVENTS
        one = ("--workers", "1", "--threads", "1", "--no-tracking")
        command("cohort", "build", "tiny.yaml", *SOURCES, *one, *more)()

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


STAGES: Final[Mapping[str, Stage]] = {
    "synth": Stage(command("synth", "tree", "--patients", "2", "--workers", "1"), nothing, units=("tree",)),
    "build": Stage(_build(), _tree, units=("data/cohorts/tiny",)),
    "rebuild": Stage(_build("--set", "splits.seed=5"), _built, units=("data/cohorts/tiny",)),
    "train": Stage(command(*TRAIN), _cohort, units=("runs/run/checkpoints/*",), grows=("runs/run",)),
    "checkpoint": Stage(_checkpoint, nothing, units=("last", "best")),
    "embed": Stage(command("embed", "run", "--split", "val", "--out", "vectors.parquet", "--device", "cpu"), _trained),
    "embed npz": Stage(command("embed", "run", "--split", "val", "--out", "v.npz", "--device", "cpu"), _trained),
    "index": Stage(command("index", "run", "--device", "cpu"), _trained, units=("runs/run/index/*",)),
    "eval": Stage(command(*EVALUATE), _trained, units=("runs/run/eval/val",)),
    "report": Stage(command("report", "run", "--split", "val", "--device", "cpu"), _evaluated),
}
