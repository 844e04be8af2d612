"""What a tracked run was told, line by line in a file of its own, so that a store that failed can be given it later.

A run is known by its record, a random name that it bears as a tag: whichever store it is delivered to, and however
often, it is found there again.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

from symile_clin import files
from symile_clin.errors import DiskError, MismatchError
from symile_clin.progress import Progress
from symile_clin.tracking.base import Status, Tracker

#: Folder of a run's journals, and in it the one of its training.
FOLDER: Final = "tracking"
TRAINING: Final = "train.jsonl"
#: Tag by which a store knows a run.
RECORD_TAG: Final = "record"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """One number of a run.

    Attributes:
        time: milliseconds since 1970.
    """

    key: str
    value: float
    step: int
    time: int


class Journal:
    """A file of events, the first of which says what the run began with.

    Args:
        path: `<run>/tracking/<name>.jsonl`.
        events: those that are in it.
    """

    def __init__(self, path: Path, events: Sequence[Event], *, progress: Progress) -> None:
        self.path = path
        self._events = list(events)
        self._progress = progress
        self._last_steps = {one.key: one.step for one in self.numbers}
        self._has_failed = False

    @classmethod
    def begin(
        cls,
        path: Path,
        *,
        run_name: str,
        experiment: str,
        tags: Mapping[str, str],
        synthetic: bool,
        adds_to_training: bool = False,
        progress: Progress,
    ) -> Self:
        """A new journal in the place of an old one.

        Args:
            tags: all that the run is to have.
            synthetic: whether its patients are, so that patient-level artifacts may be recorded.
            adds_to_training: numbers and artifacts are the training run's, too.
        """
        record = uuid.uuid4().hex
        begun = {
            "record": record,
            "run_name": run_name,
            "experiment": experiment,
            "tags": {**tags, RECORD_TAG: record},
            "synthetic": synthetic,
            "adds_to_training": adds_to_training,
            "time": now(),
        }
        journal = cls(path, [{"begun": begun}], progress=progress)
        journal._keep(lambda: files.write_text(path, json.dumps({"begun": begun}) + "\n"))
        return journal

    @classmethod
    def read(cls, path: Path, *, progress: Progress) -> Self:
        """The journal in a file; a last line that a killed process left half-written is left out.

        Raises:
            MismatchError: something else.
        """
        lines = path.read_bytes().split(b"\n")
        try:
            events: list[Any] = [json.loads(line) for line in lines[:-1]]
            if not (all(isinstance(one, dict) for one in events) and events[0]["begun"].keys() >= {"record", "tags"}):
                raise ValueError
        except (ValueError, LookupError, AttributeError):
            raise MismatchError(f"{path} is no record of a run", remedy="Move it away; nothing else needs it") from None
        journal = cls(path, events, progress=progress)
        if lines[-1]:
            journal._keep(lambda: os.truncate(path, len(b"\n".join(lines)) - len(lines[-1])))
        return journal

    @property
    def begun(self) -> Mapping[str, Any]:
        """What the run began with, see `begin`."""
        return cast(Mapping[str, Any], self._events[0]["begun"])

    @property
    def run_id(self) -> str | None:
        """The store's id that the run got last."""
        return next((str(one["stored"]) for one in reversed(self._events) if "stored" in one), None)

    @property
    def params(self) -> dict[str, str]:
        """All settings."""
        return {key: value for event in self._events for key, value in event.get("params", {}).items()}

    @property
    def tags(self) -> dict[str, str]:
        """All labels."""
        later = {key: value for event in self._events for key, value in event.get("tags", {}).items()}
        return {**self.begun["tags"], **later}

    @property
    def numbers(self) -> list[Told]:
        """All numbers, in order."""
        return [
            Told(key, value, event["step"] or 0, event["time"])
            for event in self._events
            for key, value in event.get("metrics", {}).items()
        ]

    @property
    def artifacts(self) -> list[tuple[Path, str | None, bool]]:
        """Files that are there, the folder that each is filed in, and whether it shows single patients."""
        told = {(one["artifact"], one["folder"]): one["patient_level"] for one in self._events if "artifact" in one}
        return [(self._root / file, folder, level) for (file, folder), level in told.items()]

    @property
    def end(self) -> tuple[Status, int] | None:
        """How and when (milliseconds since 1970) it ended; None while it goes on, or where it was killed."""
        for event in reversed(self._events):
            if "ended" in event:
                return event["ended"], event["time"]
            if "resumed" in event:
                return None
        return None

    def stored(self, run_id: str) -> None:
        """The store gave the run this id."""
        if run_id != self.run_id:
            self._append({"stored": run_id})

    def resumed(self) -> None:
        """The run goes on."""
        self._append({"resumed": now()})

    def told(self, **event: Any) -> None:
        """Something was said of the run."""
        self._append(event)

    def told_numbers(self, values: Mapping[str, float], *, step: int | None) -> None:
        """Numbers were; of a run that is gone on with, only those beyond the last step that is there."""
        fresh = {key: float(value) for key, value in values.items() if (step or 0) > self._last_steps.get(key, -1)}
        if fresh:
            self._append({"metrics": fresh, "step": step, "time": now()})
            self._last_steps.update(dict.fromkeys(fresh, step or 0))

    def within(self, path: Path) -> str:
        """A file's path in the run's directory."""
        return os.path.relpath(path, self._root)

    @property
    def _root(self) -> Path:
        return self.path.parent.parent

    def _append(self, event: Event) -> None:
        self._events.append(event)

        def write() -> None:
            end = self.path.stat().st_size  # of none, too: without its first line a file is no journal
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(event) + "\n")
            except OSError:
                with suppress(OSError):  # the next line would go on in the middle of this one
                    os.truncate(self.path, end)
                raise

        self._keep(write)

    def _keep(self, write: Callable[[], object]) -> None:
        try:
            write()
        except (OSError, DiskError) as error:  # as for a store: nothing stops for it
            if not self._has_failed:
                self._progress.say(f"{self.path} does not hold all of what is tracked: {error}")
            self._has_failed = True


class JournaledTracker:
    """A tracker that writes down what it is told before it passes it on.

    Args:
        inner: may record nothing.
    """

    def __init__(self, inner: Tracker, journal: Journal) -> None:
        self.inner = inner
        self.journal = journal
        if inner.run_id is not None:
            journal.stored(inner.run_id)

    @property
    def run_id(self) -> str | None:
        """The store's id of the run, or None where it has none."""
        return self.inner.run_id

    def params(self, values: Mapping[str, object]) -> None:
        """Record flat settings."""
        self.journal.told(params={key: str(value) for key, value in values.items()})
        self.inner.params(values)

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels."""
        self.journal.told(tags=dict(values))
        self.inner.tags(values)

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers."""
        self.journal.told_numbers(values, step=step)
        self.inner.metrics(values, step=step)

    def artifact(self, path: Path, *, folder: str | None = None, patient_level: bool) -> None:
        """Record a file of the run's directory."""
        self.journal.told(artifact=self.journal.within(path), folder=folder, patient_level=patient_level)
        self.inner.artifact(path, folder=folder, patient_level=patient_level)

    def finish(self, status: Status = "FINISHED") -> None:
        """Send what is left and close the run."""
        self.journal.told(ended=status, time=now())
        self.inner.finish(status)


def journals(run: Path) -> Iterator[Path]:
    """Files of a run's journals: its training's first, then those of what was measured of it, the oldest first."""
    found = sorted((run / FOLDER).glob("*.jsonl"), key=lambda path: (path.name != TRAINING, path.stat().st_mtime_ns))
    yield from found


def tracked_as(run: Path) -> str | None:
    """The id that a store gave a run's training last, if its journal knows one."""
    try:
        lines = (run / FOLDER / TRAINING).read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines if '"stored"' in line]
        return str(events[-1]["stored"]) if events else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
