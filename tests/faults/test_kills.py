"""Stages that are killed where they write: nothing partial has a final name, and the next run mends it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from safetensors.torch import load_file

from symile_clin.data.store import newest_cohort, open_cohort
from symile_clin.errors import NotFoundError
from symile_clin.pipeline.runs import open_run
from symile_clin.training.checkpoint import TRAINING_STATE, WEIGHTS, read_training_state
from tests.faults.points import Fault, Outcome, Point, Seen, Session, ends, firsts
from tests.faults.stages import STAGES

T = TypeVar("T")
#: What a killed process leaves and the next one does not need to take away: locks, and copies for later builds.
KEPT: Final = re.compile(r"(^|/)(\.[^/]+\.lock|\.cache(/.*)?)$")
#: A file or directory that no command looks at by its name.
HIDDEN: Final = re.compile(r"(^|/)\.")
SUMS: Final = "SHA256SUMS.txt"
#: Runs over what was left, of each stage; the slow test makes one after every kill.
MENDED: Final = 3
#: What the next run removes first, whatever is in it.
TAKEN_AWAY: Final = re.compile(r"\.(building/(?!shards(/|$)).*|tmp(/.*)?)$")
#: Grows line by line while a training goes on.
LOG: Final = "runs/run/metrics.jsonl"
#: A digest, or None of a directory.
Content = Mapping[str, str | None]


@dataclass(frozen=True)
class Scene:
    """A stage, what it starts from and what it comes to when nothing disturbs it.

    Attributes:
        folder: the working directory, always the same: copies of tables are named after their source's place.
        start: a copy of `folder` before the stage.
        copies: what forks left that were killed, by the name in `clean.copies`.
        steps: digest of the weights by step, of all checkpoints that were written, before they had their name.
    """

    stage: str
    folder: Path
    start: Path
    copies: Path
    clean: Outcome
    before: Content
    after: Content
    steps: Mapping[int, str]


class Scenes:
    """Prepares each stage once."""

    def __init__(self, session: Session, root: Path) -> None:
        #: Where stages are started.
        self.session = session
        self._root = root
        self._scenes: dict[str, Scene] = {}

    def of(self, stage: str) -> Scene:
        """The stage's scene."""
        if stage not in self._scenes:
            self._scenes[stage] = self._prepare(stage)
        return self._scenes[stage]

    def killed(self, scene: Scene, point: Point) -> None:
        """Kill the stage at a point, from its start."""
        self.restart(scene)
        done = self.session.run(scene.stage, scene.folder, Fault.kill(point))
        assert done.struck, f"{point} was not come to: {done.code} {done.output}"
        assert done.points[-1] == point

    def restart(self, scene: Scene) -> None:
        """Make the folder what it was before the stage."""
        shutil.rmtree(scene.folder)
        shutil.copytree(scene.start, scene.folder)

    def left(self, scene: Scene, copy: str) -> None:
        """Put into the folder what a fork left that was killed."""
        for path in scene.folder.iterdir():
            if path.name not in STAGES[scene.stage].given:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(scene.copies / copy, scene.folder, dirs_exist_ok=True)

    def again(self, scene: Scene) -> None:
        """Run the stage once more, and see that it comes to the same with nothing left over."""
        choose = STAGES[scene.stage].again
        stage = scene.stage if choose is None else choose(scene.folder)
        if stage is not None:
            done = self.session.run(stage, scene.folder)
            assert done.code == 0, done.output
        now = content(scene.folder)
        assert {path for path in now if not KEPT.search(path)} == {
            path for path in scene.after if not KEPT.search(path)
        }
        assert visible(now) == visible(scene.after)

    def _prepare(self, stage: str) -> Scene:
        root = self._root / stage.replace(" ", "_")
        folder, start, copies = root / "work", root / "start", root / "copies"
        folder.mkdir(parents=True)
        copies.mkdir()
        STAGES[stage].prepare(self.session, folder)
        before = content(folder)
        shutil.copytree(folder, start)
        clean = self.session.run(stage, folder, copies=copies, given=STAGES[stage].given)
        assert clean.code == 0, clean.output
        return Scene(stage, folder, start, copies, clean, before, content(folder), dict(_written(copies)))


def content(folder: Path) -> Content:
    """Every file's digest, but for what a clock decides, and every directory; by path in the folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else hashlib.sha256(_timeless(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def _timeless(path: Path) -> bytes:
    """A file's bytes; of those that say how long something took, or when it was, all but that."""
    data = path.read_bytes()
    try:
        if path.name == "manifest.json":
            manifest = {key: value for key, value in json.loads(data).items() if key != "runtime"}
            waits = _without_waits([manifest["best"].pop("metrics")]) if manifest["stage"] == "run" else b""
            return waits + json.dumps(manifest).encode()
        if path.name == "metrics.jsonl":
            return _without_waits([json.loads(line) for line in data.decode().splitlines()])
        if path.name == TRAINING_STATE:
            values = torch.load(io.BytesIO(data), weights_only=True)
            del values["seconds"]
            return _without_waits(values.pop("history")) + repr(values).encode()
        if path.name == SUMS:  # the state's own digest is of how long it took, too
            return b"".join(line for line in data.splitlines() if not line.endswith(TRAINING_STATE.encode()))
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    except Exception:  # a damaged one is not equal to a whole one
        return data
    return data


def _without_waits(epochs: list[dict[str, float]]) -> bytes:
    return json.dumps(
        [{name: value for name, value in one.items() if "data_wait" not in name} for one in epochs]
    ).encode()


def visible(found: Content) -> Content:
    """What has a final name: the only one that commands look for."""
    return {path: digest for path, digest in found.items() if not HIDDEN.search(path)}


def nothing_partial(scene: Scene) -> None:
    """Everything with a final name is what it was before, or what an undisturbed stage makes of it."""
    stage = STAGES[scene.stage]
    now, before, after = visible(content(scene.folder)), visible(scene.before), visible(scene.after)
    assert {path for path in before if path not in now} == set()
    checkpoints = list(_named(scene, stage.checkpoints))
    for path, digest in now.items():
        if path != LOG and not path.startswith(tuple(f"{name}/" for name in checkpoints)):
            assert path in before or path in after, f"{path} is nothing that was or will be"
            assert digest in (before.get(path, ""), after.get(path, "")), f"{path} is partial"
    for name in _named(scene, stage.units):
        assert _below(now, name) in (_below(before, name), _below(after, name)), f"{name} is partial"
    for name in checkpoints:
        place = scene.folder / name
        assert {WEIGHTS, TRAINING_STATE} <= {path.name for path in place.iterdir()}
        for line in (place / SUMS).read_text().splitlines() if (place / SUMS).exists() else ():
            assert hashlib.sha256((place / line[66:]).read_bytes()).hexdigest() == line[:64]
        assert scene.steps[read_training_state(place).step] == _weights(place / WEIGHTS)
    if (scene.folder / LOG).exists():  # a line may be cut short while a training is not finished: --resume cuts it off
        whole = [line for line in (scene.folder / LOG).read_text().splitlines(keepends=True) if line.endswith("\n")]
        assert [json.loads(line)["epoch"] for line in whole] == list(range(1, len(whole) + 1))
    _newest_is_whole(scene)


def _named(scene: Scene, patterns: Sequence[str]) -> Iterator[str]:
    """What is there by a final name."""
    for pattern in patterns:
        for path in scene.folder.glob(pattern):
            if not HIDDEN.search(name := path.relative_to(scene.folder).as_posix()):
                yield name


def _below(found: Content, unit: str) -> Content:
    return {path: digest for path, digest in found.items() if path.startswith(f"{unit}/")}


def _written(copies: Path) -> Iterator[tuple[int, str]]:
    """Step and weights of whatever was written for a checkpoint, whole, before it had its name."""
    for weights in sorted(copies.rglob(f".*.building/{WEIGHTS}")):
        try:
            yield read_training_state(weights.parent).step, _weights(weights)
        except Exception:  # cut short by a kill, and private
            continue


def _weights(path: Path) -> str:
    return hashlib.sha256(repr(sorted((k, v.tolist()) for k, v in load_file(path).items())).encode()).hexdigest()


def _newest_is_whole(scene: Scene) -> None:
    """Who asks for the newest cohort or run gets a whole one, or is told that there is none."""
    try:
        found = newest_cohort(scene.folder / "data" / "cohorts")
    except NotFoundError:
        assert "data/cohorts/tiny/manifest.json" not in scene.before
    else:
        assert open_cohort(found.path).hash == found.hash
        assert all((found.path / name).exists() for name in ("samples.parquet", "arrays", "candidates"))
    try:
        run = open_run(scene.folder / "runs", None)
    except NotFoundError:
        assert not (scene.folder / "runs/run/manifest.json").exists()
    else:
        now = content(run.path)
        assert all(now[f"checkpoints/{which}/{WEIGHTS}"] for which in ("best", "last"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    """One process to start them all."""
    with Session() as session:
        yield Scenes(session, tmp_path_factory.mktemp("kills"))


def _slow(*stages: str) -> list[ParameterSet]:
    return [pytest.param(stage, marks=pytest.mark.slow) for stage in stages]


DEFAULT: Final = ("checkpoint", "embed", "synth", "train", "build", "report")
LONGER: Final = ("embed npz", "index", "rebuild", "eval")


@pytest.mark.parametrize("stage", [*DEFAULT, *_slow(*LONGER)])
def test_what_is_left_by_a_kill_at_any_place_is_made_whole_by_the_next_run(stage: str, scenes: Scenes) -> None:
    """A fork is killed at every place of one run; some of the states that the next run can tell apart are mended."""
    scene = scenes.of(stage)
    assert set(firsts(scene.clean.points)) <= set(scene.clean.copies)
    different: dict[frozenset[tuple[str, str | None]], str] = {}

    def at(copy: str) -> None:
        scenes.left(scene, copy)
        nothing_partial(scene)
        kept = {path: digest for path, digest in content(scene.folder).items() if not TAKEN_AWAY.search(path)}
        different[frozenset(kept.items())] = copy

    _each(dict.fromkeys(scene.clean.copies.values()), at)

    def mend(copy: str) -> None:
        scenes.left(scene, copy)
        scenes.again(scene)

    states = list(different.values())
    _each(states[:: -(-len(states) // MENDED)] + states[-1:], mend)


@pytest.mark.parametrize("stage", ["embed", *_slow(*(stage for stage in (*DEFAULT, *LONGER) if stage != "embed"))])
def test_a_stage_that_is_killed_at_any_place_is_made_whole_by_the_next_run(stage: str, scenes: Scenes) -> None:
    """The first time and the last at each place, the process itself, from the start."""
    scene = scenes.of(stage)

    def at(point: Point) -> None:
        scenes.killed(scene, point)
        nothing_partial(scene)
        scenes.again(scene)

    _each(ends(scene.clean.points), at)


@pytest.mark.parametrize("stage", ["embed", *_slow("embed npz", "index", "report", "train", "synth", "build", "eval")])
def test_a_stage_that_dies_in_the_middle_of_a_write_is_made_whole_by_the_next_run(stage: str, scenes: Scenes) -> None:
    """A limit on the size of files ends the process within a write, whatever library makes it."""
    scene = scenes.of(stage)
    torn = _halves(scene.clean.seen)

    def at(fault: Fault) -> None:
        scenes.restart(scene)
        assert scenes.session.run(stage, scene.folder, fault).struck
        nothing_partial(scene)
        scenes.again(scene)

    _each([*torn[:: -(-len(torn) // MENDED)], torn[-1]], at)


def _halves(seen: Sequence[Seen]) -> list[Fault]:
    """Faults in the middle of the first file that is larger than half of another, for each size of file."""
    sizes = sorted({one.bytes // 2 for one in seen if one.point.event == "sync" and one.bytes > 1})
    return [Fault.torn(seen[0].point, size) for size in sizes]


def _each(cases: Iterable[T], check: Callable[[T], None]) -> None:
    """Check every case before any of them fails."""
    failed, count = [], 0
    for case in cases:
        count += 1
        try:
            check(case)
        except AssertionError as error:
            failed.append(f"{case}: {error}")
    assert count
    assert not failed, f"{len(failed)} of {count}:\n" + "\n".join(failed)
