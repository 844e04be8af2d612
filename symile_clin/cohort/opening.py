"""What worker processes do with files: ask whether they may be used, and read them. Imports no table engine."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from symile_clin import __version__, files
from symile_clin.cohort.answers import PASSING
from symile_clin.cohort.workers import begin_item
from symile_clin.modalities.base import Modality, Reason, Refusal, Row
from symile_clin.modalities.whole_file import unreadable
from symile_clin.schema import RANK, SAMPLE_ID

OUTCOMES: Final = "outcomes.json"
#: Events of one shard, but for the last: enough that files are few, few enough that they fit in memory at once.
SHARD_EVENTS: Final = 256


@dataclass(frozen=True)
class FileRead:
    """A file behind an event, as it was when it was read.

    Attributes:
        path: relative to the modality's source.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Read:
    """An event that was read.

    Attributes:
        shard: name of the directory with its arrays.
        position: row of the event in each of them.
        scalars: columns of samples.parquet that came from the files.
    """

    shard: str
    position: int
    scalars: Mapping[str, Any]
    files: tuple[FileRead, ...]


Outcome = Read | Refusal


def ask_valid(modality: Modality, source: Path | None, rows: Sequence[Row]) -> list[Refusal | None]:
    """Whether each of some events may be used."""
    answers: list[Refusal | None] = []
    for row in rows:
        begin_item()
        answers.append(modality.is_valid(row, source))
    return answers


def died(then: Literal["next", "drop"], row: Row) -> Refusal:  # noqa: ARG001  every such file gets the same answer
    """The answer about an event whose files kill or hang the process that opens them."""
    return Refusal(Reason.DIED, "crashed, ran out of memory or hung", then)


def identify(modality: Modality, source: Path, rows: Sequence[Row]) -> list[str]:
    """Hex digests of all that the answers about some events' files hang on.

    These are the modality, its options, the package's version, the event's own columns, and of each file its path, size
    and time of change. The bytes are not among them: reading them takes about as long as the answer itself. A file
    whose bytes changed at the same size and with its time set back is therefore taken for the same one;
    `cohort verify --sources` does read the bytes.
    """
    reader = [modality.room, modality.name, modality.options.model_dump(mode="json"), __version__]
    digests: list[str] = []
    for row in rows:
        own = {column: str(value) for column, value in row.items() if column not in (SAMPLE_ID, RANK)}
        found = [(path, *_stat(source, path)) for path in modality.files(row)]
        digests.append(files.digest([reader, str(source.absolute()), own, found]))
    return digests


def open_work(work: Path) -> None:
    """Make a folder for shards, or sweep it of what processes that died left half-made."""
    work.mkdir(parents=True, exist_ok=True)
    for unfinished in work.glob(".*.tmp"):
        shutil.rmtree(unfinished)


def read_shard(modality: Modality, source: Path, work: Path, rows: Sequence[Row]) -> list[Outcome]:
    """Read some events into a shard of their own in `work`, unless it is there already.

    A shard is a directory of arrays (events that were read, in order) and outcomes.json. Its name is made of what it
    hangs on, and it appears whole: so a shard that is there can be taken as it is, whoever made it. Only where a file
    was out of reach (no permission, a disk that did not answer) is it made anew.

    Args:
        rows: the events, at most `SHARD_EVENTS`.

    Returns:
        One outcome for each event, in order.
    """
    name = files.digest(identify(modality, source, rows))[:32]
    folder = work / name
    if not _may_be_taken(folder):
        temporary = work / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _write(modality, source, rows, temporary)
            if folder.exists() and not _may_be_taken(folder):
                shutil.rmtree(folder)
            if not folder.exists():  # another process may have made the same one meanwhile
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return [_outcome(name, stored) for stored in files.read_json(folder / OUTCOMES)]


def _may_be_taken(folder: Path) -> bool:
    """Whether a shard is there, not half removed by a process that was killed, and would be the same once more."""
    if not (folder / OUTCOMES).is_file():
        return False
    return all(one.get("refusal", {}).get("reason") not in PASSING for one in files.read_json(folder / OUTCOMES))


def _write(modality: Modality, source: Path, rows: Sequence[Row], folder: Path) -> None:
    specs = {name: spec for name, spec in modality.arrays.items() if not spec.fitted}
    stored = {name: np.empty((len(rows), *spec.shape), spec.dtype) for name, spec in specs.items()}
    outcomes: list[dict[str, Any]] = []
    position = 0
    for row in rows:
        begin_item()
        arrays, behind = _read(modality, source, row)
        if isinstance(arrays, Refusal):
            outcomes.append({"refusal": asdict(arrays)})
            continue
        for name, target in stored.items():
            target[position] = arrays[name]
        scalars = {name: np.asarray(value).item() for name, value in arrays.items() if name not in stored}
        outcomes.append({"position": position, "scalars": scalars, "files": [asdict(file) for file in behind]})
        position += 1
    for name, target in stored.items():
        # plain writes: pages of a memory map would count as this process's own until they are on the disk
        with (folder / f"{name}.npy").open("wb") as handle:
            np.save(handle, target[:position], allow_pickle=False)
            handle.flush()
            os.fsync(handle.fileno())
    files.write_json(folder / OUTCOMES, outcomes)


def _read(modality: Modality, source: Path, row: Row) -> tuple[dict[str, NDArray[Any]] | Refusal, tuple[FileRead, ...]]:
    """An event's arrays, or why there are none, and the files behind it."""
    arrays = modality.read(row, source)
    if isinstance(arrays, Refusal):
        return arrays, ()
    try:
        return arrays, tuple(_hash(source, path) for path in modality.files(row))
    except OSError as error:  # out of reach since a moment ago
        return replace(unreadable(error), then=modality.after_unreadable), ()


def _outcome(shard: str, stored: Mapping[str, Any]) -> Outcome:
    if "refusal" in stored:
        refusal = stored["refusal"]
        return Refusal(Reason(refusal["reason"]), refusal["detail"], refusal["then"])
    behind = tuple(FileRead(**file) for file in stored["files"])
    return Read(shard, stored["position"], stored["scalars"], behind)


def _hash(source: Path, path: str) -> FileRead:
    with (source / path).open("rb") as handle:
        return FileRead(path, os.fstat(handle.fileno()).st_size, hashlib.file_digest(handle, "sha256").hexdigest())


def _stat(source: Path, path: str) -> tuple[int, int] | tuple[None, None]:
    try:
        stat = (source / path).stat()
    except (OSError, ValueError):  # not there; a path that no file can have
        return None, None
    return stat.st_size, stat.st_mtime_ns
