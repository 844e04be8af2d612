"""Runs that are being trained or were cut short: what they need to go on lies in their directory from the start."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from symile_clin import files
from symile_clin.config import RunConfig
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.progress import Progress
from symile_clin.schema import BEST, CHECKPOINTS_DIR, CONFIG, LAST, MANIFEST
from symile_clin.strict import dump_yaml, load_yaml, nearest

#: Beside config.yaml until the manifest is there, and after.
STARTED: Final = "started.json"


@dataclass(frozen=True)
class Unfinished:
    """A run without its manifest.

    Attributes:
        config: its settings, plain.
        started: what was written when it began: `cohort` (name, hash, path), `settings` (their digest), `init_from`
            (a path), `tracked_as` (the tracking store's id), `machine` (what decides the last bits of its numbers).
    """

    path: Path
    config: Mapping[str, Any]
    started: Mapping[str, Any]

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything to go on from; without it the run begins again."""
        last = self.path / CHECKPOINTS_DIR / LAST
        return last.is_dir() or files.moved_away(last).is_dir()

    def recover(self) -> None:
        """Put checkpoints back that a process was killed while it replaced, and take away what it did not finish.

        For the one that holds the run's lock.
        """
        for name in (BEST, LAST):
            checkpoint = self.path / CHECKPOINTS_DIR / name
            files.recover(checkpoint)
            shutil.rmtree(files.building(checkpoint), ignore_errors=True)

    @property
    def init_from(self) -> Path | None:
        """Weights that it starts from."""
        return Path(self.started["init_from"]) if self.started["init_from"] else None

    def is_equal(self, config: RunConfig, cohort: Cohort) -> bool:
        """Whether it has these settings and this cohort."""
        same = self.started["settings"] == files.digest(config.model_dump(mode="json"))
        return same and bool(self.started["cohort"]["hash"] == cohort.hash)

    def track(self, run_id: str | None) -> None:
        """Write down under which id the run is tracked, if it is."""
        if run_id is not None and run_id != self.started["tracked_as"]:
            files.write_json(self.path / STARTED, {**self.started, "tracked_as": run_id})

    def cohort(self, path: Path | None) -> Cohort:
        """Its cohort, or the equal one at `path`.

        Raises:
            NotFoundError: it is no longer there.
            MismatchError: it is not what it was.
        """
        place = path or Path(self.started["cohort"]["path"])
        try:
            found = open_cohort(place)
        except NotFoundError:
            raise NotFoundError(
                f"the cohort of run '{self.path.name}' is no longer in {place}", remedy="Name its place with --cohort"
            ) from None
        if found.hash != self.started["cohort"]["hash"]:
            raise MismatchError(
                f"the cohort in {place} is not the one that run '{self.path.name}' began with",
                remedy="Build that one again and name it with --cohort, or train anew",
            )
        return found

    def check(self, device: torch.device, *, processes: int, progress: Progress) -> None:
        """Refuse what would make another run of it; mention what may change last bits.

        Raises:
            MismatchError: config.yaml is not what it was.
            ConfigError: another kind of device, and so perhaps another precision.
        """
        if files.digest(self.config) != self.started["settings"]:
            raise MismatchError(
                f"{self.path / CONFIG} is not what run '{self.path.name}' began with",
                remedy="Undo the change, or train anew with other settings",
            )
        before, now = self.started["machine"], machine(device, processes=processes)
        if now["device"] != before["device"]:
            raise ConfigError(
                f"run '{self.path.name}' began on device {before['device']}, and this is {now['device']}",
                remedy=f"Go on with --device {before['device']}, or train anew",
            )
        changed = [f"{name} {before[name]} is now {value}" for name, value in now.items() if value != before[name]]
        if changed:
            progress.say(f"Rounding may differ from a run that never stopped: {', '.join(changed)}.")


def machine(device: torch.device, *, processes: int) -> dict[str, Any]:
    """What decides the last bits of a run's numbers, beside its settings and cohort."""
    return {
        "device": device.type,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def begin(
    directory: Path, *, config: RunConfig, cohort: Cohort, init_from: Path | None, device: torch.device, processes: int
) -> None:
    """Write into what will be a new run's directory what it needs to go on."""
    plain = config.model_dump(mode="json")
    started = {
        "cohort": {"name": cohort.name, "hash": cohort.hash, "path": str(cohort.path)},
        "settings": files.digest(plain),
        "init_from": str(init_from) if init_from else None,
        "tracked_as": None,
        "machine": machine(device, processes=processes),
    }
    files.write_text(directory / CONFIG, dump_yaml(plain))
    files.write_json(directory / STARTED, started)


def open_unfinished(path: Path) -> Unfinished:
    """A run that is to go on.

    Raises:
        NotFoundError: nothing in it says how.
        MismatchError: what should say it is damaged.
    """
    if not (path / STARTED).is_file():
        raise NotFoundError(f"run '{path.name}' has no {STARTED} to go on from", remedy="Train it anew")
    started: Any = files.read_json(path / STARTED)
    try:
        _ = started["cohort"]["path"], started["cohort"]["hash"], started["machine"]["device"]
        _ = started["settings"], started["init_from"], started["tracked_as"]
    except (TypeError, KeyError):
        raise MismatchError(f"{path / STARTED} is damaged", remedy="Train the run anew, under another --name") from None
    return Unfinished(path=path, config=load_yaml(path / CONFIG), started=started)


def find_unfinished(root: Path, name: str | None) -> Path:
    """The directory of a run by name; without a name the unfinished one that was worked on last.

    Raises:
        NotFoundError: no such run, or none that did not finish.
    """
    if name is None:
        found = unfinished(root)
        if not found:
            raise NotFoundError(f"no run in {root} was cut short", remedy="Start one with `symile-clin train`")
        return max(found, key=_worked_on)
    if not name or Path(name).name != name or not (root / name).is_dir():
        names = [path.name for path in unfinished(root)]
        hint = nearest(name, names).capitalize() if names else "No run there was cut short"
        raise NotFoundError(f"no run called '{name}' in {root}", remedy=hint)
    return root / name


def unfinished(root: Path) -> list[Path]:
    """Directories of runs that did not finish, those included that are being trained."""
    return [path.parent for path in sorted(root.glob(f"*/{STARTED}")) if not (path.parent / MANIFEST).exists()]


def _worked_on(path: Path) -> int:
    places = (path / STARTED, path / CHECKPOINTS_DIR / LAST)
    return max(place.stat().st_mtime_ns for place in places if place.exists())
