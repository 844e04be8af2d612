"""`symile-clin track sync`: what a tracking store lacks of a run, brought there from the run's directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_clin import files
from symile_clin.errors import NotFoundError
from symile_clin.pipeline.runs import named_directory
from symile_clin.progress import Progress
from symile_clin.schema import RUNS_ROOT, TRACKING_URI
from symile_clin.strict import nearest
from symile_clin.tracking.delivery import Delivered, deliver
from symile_clin.tracking.journal import FOLDER, TRAINING, Journal, journals


@dataclass(frozen=True)
class SyncResult:
    """What was delivered of a run.

    Attributes:
        delivered: by the name of what was tracked ("train", "eval-test", ...).
    """

    run: Path
    delivered: Mapping[str, Delivered]

    def text(self) -> str:
        """A line for each."""
        if all(one.is_nothing for one in self.delivered.values()):
            whole = f"Run {self.run} is recorded whole ({', '.join(self.delivered)}): nothing to deliver."
            return "\n".join([whole, *(f"  {name}: {_left_out(one)}" for name, one in self._with_rest())])
        return "\n".join([f"Run {self.run}:", *(f"  {name}: {_what(one)}" for name, one in self.delivered.items())])

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "run": str(self.run),
            "delivered": {name: {**vars(one), "gone": list(one.gone)} for name, one in self.delivered.items()},
        }

    def _with_rest(self) -> Sequence[tuple[str, Delivered]]:
        return [(name, one) for name, one in self.delivered.items() if one.withheld or one.gone]


def sync_tracking(
    *,
    run: str | None = None,
    tracking_uri: str = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> SyncResult:
    """Deliver a training and what was measured of it to a store that could not be used meanwhile.

    What the store has is left as it is, so that a second time adds nothing.

    Args:
        run: a run's name or directory, finished or not; None takes the one that was tracked last.
        tracking_uri: MLflow store.
        log_patient_level: also send patient-level artefacts of real patients.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no such run, or none whose tracking was written down.
        TrackingError: the store is not allowed, or fails.
        BusyError: the run is being trained.
    """
    path = _find(Path(RUNS_ROOT), run)
    found: dict[str, Delivered] = {}
    with files.lock(path.with_name(f".{path.name}.lock")):
        parent = None
        for place in journals(path):
            found[place.stem] = deliver(
                Journal.read(place, progress=progress),
                uri=tracking_uri,
                allow_patient_level=log_patient_level,
                allow_remote=allow_remote_tracking,
                parent_run_id=parent,
            )
            if place.name == TRAINING:
                parent = found[place.stem].run_id
    return SyncResult(run=path, delivered=found)


def _find(root: Path, name: str | None) -> Path:
    """The directory of a run that has a journal."""
    known = {folder.parent.name: folder.parent for folder in root.glob(f"*/{FOLDER}") if any(journals(folder.parent))}
    if name is None:
        if not known:
            raise NotFoundError(f"no run in {root} was tracked", remedy="Train one with `symile-clin train`")
        return max(known.values(), key=lambda run: max(path.stat().st_mtime_ns for path in journals(run)))
    path = known.get(name) or named_directory(name)
    if any(journals(path)):
        return path
    if (root / name).is_dir() or path.is_dir():
        raise NotFoundError(
            f"run '{name}' has nothing to deliver: it was not tracked, or by an earlier version",
            remedy=f"Its numbers are in {(root / name if (root / name).is_dir() else path)}",
        )
    hint = nearest(name, known).capitalize() if known else "Train one with `symile-clin train`"
    raise NotFoundError(f"no run called '{name}' in {root}", remedy=hint)


def _what(one: Delivered) -> str:
    counts = {"setting": one.params, "label": one.tags, "number": one.numbers, "file": one.artifacts}
    given = [f"{count:,} {what}{'s' if count != 1 else ''}" for what, count in counts.items() if count]
    if one.status is not None:
        given.append(f"its end ({one.status})")
    said = ("delivered whole, " if one.is_new else "completed by ") + ", ".join(given) if given else ""
    said = said or ("delivered" if one.is_new else "recorded whole")
    rest = _left_out(one)
    return f"{said}; {rest}" if rest else said


def _left_out(one: Delivered) -> str:
    parts = []
    if one.withheld:
        parts.append(f"{one.withheld:,} patient-level of its files only with --log-patient-level")
    if one.gone:
        parts.append(f"no longer there: {', '.join(one.gone)}")
    return "; ".join(parts)
