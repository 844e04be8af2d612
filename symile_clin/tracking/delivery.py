"""Runs that are written down beside what they made, and brought to a store later as if they had been recorded there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from symile_clin import files
from symile_clin.errors import SymileClinError, TrackingError
from symile_clin.progress import Progress
from symile_clin.tracking.base import NullTracker, Tracker
from symile_clin.tracking.journal import RECORD_TAG, Journal, JournaledTracker, Told
from symile_clin.tracking.mlflow import (
    LONGEST_PARAM,
    METRICS_PER_BATCH,
    PARAMS_PER_BATCH,
    PARENT_TAG,
    PATIENT_LEVEL_TAG,
    keep_artifact,
    labels_of_this_program,
    reason,
    resume_run,
    start_run,
    stored_name,
)
from symile_clin.tracking.store import database_of, experiment_id, local_artifacts, opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: Says whether the store may be on another machine.
REMOTE_TAG = "remote_tracking"


@dataclass(frozen=True)
class Delivered:
    """What a store lacked of a run and has now.

    Attributes:
        run_id: the store's.
        is_new: the store did not have the run.
        params, tags, numbers, artifacts: how many of each.
        withheld: patient-level artifacts that it may not have.
        gone: names of artifacts that are no longer in the run's directory.
        status: how the run ended, where the store did not know.
    """

    run_id: str
    is_new: bool
    params: int
    tags: int
    numbers: int
    artifacts: int
    withheld: int
    gone: tuple[str, ...]
    status: str | None

    @property
    def is_nothing(self) -> bool:
        """Whether the store had all of it."""
        return not (self.is_new or self.params or self.tags or self.numbers or self.artifacts or self.status)


def start_journaled(
    path: Path,
    *,
    uri: str,
    experiment: str,
    run_name: str,
    tags: Mapping[str, str],
    synthetic: bool,
    adds_to_training: bool = False,
    parent_run_id: str | None = None,
    allow_patient_level: bool,
    allow_remote: bool,
    progress: Progress,
) -> JournaledTracker:
    """Start a run as `start_run` does, and write down all that it is told, whatever becomes of the store.

    Args:
        path: of the journal, `<run>/tracking/<name>.jsonl`; one that is there is replaced.
        synthetic, adds_to_training: see `Journal.begin`.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    database_of(uri, allow_remote=allow_remote)
    journal = Journal.begin(
        path,
        run_name=run_name,
        experiment=experiment,
        tags={**labels_of_this_program(), **tags},
        synthetic=synthetic,
        adds_to_training=adds_to_training,
        progress=progress,
    )
    tracker = start_run(
        uri=uri,
        experiment=experiment,
        run_name=run_name,
        tags=journal.tags,
        parent_run_id=parent_run_id,
        allow_patient_level=allow_patient_level,
        allow_remote=allow_remote,
        start_time=journal.begun["time"],
        remedy=remedy(path.parent.parent, uri),
        progress=progress,
    )
    return JournaledTracker(tracker, journal)


def resume_journaled(
    path: Path,
    *,
    uri: str,
    allow_patient_level: bool,
    allow_remote: bool,
    progress: Progress,
) -> Tracker:
    """Go on recording a run that has a journal: the store first gets what it lacks of it, the run itself if need be.

    Raises:
        TrackingError: a kind of store that is not allowed.
        MismatchError: the file is no journal.
    """
    database_of(uri, allow_remote=allow_remote)
    journal = Journal.read(path, progress=progress)
    journal.resumed()
    later = remedy(path.parent.parent, uri)
    try:
        found = deliver(
            journal, uri=uri, allow_patient_level=allow_patient_level, allow_remote=allow_remote, parent_run_id=None
        )
    except TrackingError as error:
        progress.say(f"MLflow does not go on recording this run: {error.found}. {later}.")
        return JournaledTracker(NullTracker(), journal)
    tracker = resume_run(
        uri=uri,
        run_id=found.run_id,
        allow_patient_level=allow_patient_level,
        allow_remote=allow_remote,
        remedy=later,
        progress=progress,
    )
    return JournaledTracker(tracker, journal)


def remedy(run: Path, uri: str) -> str:
    """How what a store lacks of a run is brought there later. An address is named without what may be a password."""
    scheme, _, place = uri.partition("://")
    if scheme == "sqlite":
        where = "" if uri == "sqlite:///mlflow.db" else f" --tracking-uri {uri}"
    else:
        where = f" --tracking-uri {scheme}://{place.rpartition('@')[2].partition('?')[0]} --allow-remote-tracking"
    return f"It is kept in {run}: when the store is back, `symile-clin track sync {run.name}{where}` delivers it"


def deliver(
    journal: Journal, *, uri: str, allow_patient_level: bool, allow_remote: bool, parent_run_id: str | None
) -> Delivered:
    """Bring to a store what it lacks of a run, with the times at which it was told; the run itself if need be.

    Args:
        allow_patient_level: whether patient-level artifacts may go there.
        parent_run_id: the store's id of the training run, if this is a run of something that was measured of it; it
            gets the numbers and artifacts, too, where the journal says so.

    Raises:
        TrackingError: the store is not allowed, or fails.
    """
    database = database_of(uri, allow_remote=allow_remote)
    begun = journal.begun
    allowed = bool(begun["synthetic"]) or allow_patient_level
    tags = journal.tags | ({PARENT_TAG: parent_run_id} if parent_run_id else {})
    for tag, here in ((PATIENT_LEVEL_TAG, allowed), (REMOTE_TAG, allow_remote)):
        if tag in tags:
            tags[tag] = str(here).lower()
    try:
        with opened(uri, database) as client:
            experiment = experiment_id(client, str(begun["experiment"]), database)
            run = _found(client, experiment, begun["record"])
            is_new = run is None
            if run is None:
                run = client.create_run(experiment, start_time=begun["time"], tags=tags, run_name=begun["run_name"])
        journal.stored(run.info.run_id)
        # what was allowed once may have happened
        tags = {key: one for key, one in tags.items() if not (one == "false" and run.data.tags.get(key) == "true")}
        content = _Content(journal.numbers, journal.artifacts, allowed)
        found = _complete(client, run, database, content, params=journal.params, tags=tags)
        if parent_run_id is not None and begun["adds_to_training"]:
            shown = {PATIENT_LEVEL_TAG: "true"} if any(level for *_, level in journal.artifacts) and allowed else {}
            more = _complete(client, client.get_run(parent_run_id), database, content, params={}, tags=shown)
            found = [one + other for one, other in zip(found, more, strict=True)]
        status = None
        if journal.end is not None and run.info.status != journal.end[0]:
            status, ended = journal.end
            client.set_terminated(run.info.run_id, status, ended)
    except SymileClinError:
        raise
    except Exception as error:  # whatever MLflow and its database raise
        store = "the tracking store" if database is None else f"the tracking store {database}"
        raise TrackingError(
            f"{store} cannot be used: {reason(error)}", remedy="Try again when it is back; nothing is lost"
        ) from None
    params, labels, numbers, artifacts = found
    return Delivered(
        run_id=run.info.run_id,
        is_new=is_new,
        params=params,
        tags=0 if is_new else labels,
        numbers=numbers,
        artifacts=artifacts,
        withheld=len(content.withheld),
        gone=tuple(path.name for path, _ in content.allowed if not path.is_file()),
        status=status,
    )


def _found(client: MlflowClient, experiment: str, record: str) -> Run | None:
    """The run with that record, if the store has it."""
    found = client.search_runs([experiment], filter_string=f"tags.{RECORD_TAG} = '{record}'", max_results=1)
    return found[0] if found else None


@dataclass(frozen=True)
class _Content:
    numbers: Sequence[Told]
    artifacts: Iterable[tuple[Path, str | None, bool]]
    may_be_patient_level: bool

    @property
    def allowed(self) -> list[tuple[Path, str | None]]:
        return [(path, folder) for path, folder, level in self.artifacts if self.may_be_patient_level or not level]

    @property
    def withheld(self) -> list[Path]:
        return [path for path, _, level in self.artifacts if level and not self.may_be_patient_level]


def _complete(
    client: MlflowClient,
    run: Run,
    database: Path | None,
    content: _Content,
    *,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> list[int]:
    """Give a run what it lacks; how many params, tags, numbers and artifacts that were."""
    from mlflow.entities import Metric, Param, RunTag

    run_id = run.info.run_id
    lacking = {stored_name(key): value[:LONGEST_PARAM] for key, value in params.items()}
    new_params = [Param(key, value) for key, value in lacking.items() if key not in run.data.params]
    for start in range(0, len(new_params), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=new_params[start : start + PARAMS_PER_BATCH])
    named = {stored_name(key): value for key, value in tags.items()}
    new_tags = [RunTag(key, value) for key, value in named.items() if run.data.tags.get(key) != value]
    if new_tags:
        client.log_batch(run_id, tags=new_tags)
    numbers = [
        Metric(stored_name(one.key), one.value, one.time, one.step) for one in _lacking(client, run, content.numbers)
    ]
    for start in range(0, len(numbers), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=numbers[start : start + METRICS_PER_BATCH])
    sent = 0
    folder_of_run = local_artifacts(run.info.artifact_uri, database)
    for path, folder in content.allowed:
        if path.is_file() and not _has(client, run_id, folder_of_run, path, folder):
            keep_artifact(client, run_id, folder_of_run, path, folder)
            sent += 1
    return [len(new_params), len(new_tags), len(numbers), sent]


def _lacking(client: MlflowClient, run: Run, numbers: Iterable[Told]) -> list[Told]:
    """Numbers of which the store has none that is the same at the same step."""
    by_key: dict[str, list[Told]] = defaultdict(list)
    for one in numbers:
        by_key[one.key].append(one)
    lacking: list[Told] = []
    for key, told in by_key.items():
        name = stored_name(key)
        there = set()
        if len(told) == 1 and _plain(run.data.metrics.get(name, math.nan)) == _plain(told[0].value) != "nan":
            continue  # without a question for each of an evaluation's hundreds
        if name in run.data.metrics:
            there = {(one.step, _plain(one.value)) for one in client.get_metric_history(run.info.run_id, name)}
        lacking += [one for one in told if (one.step, _plain(one.value)) not in there]
    return lacking


def _plain(value: float) -> float | str:
    """A number that equals itself; stores hold the largest float in place of an infinite one."""
    return "nan" if math.isnan(value) else max(-1.7976931348623157e308, min(1.7976931348623157e308, value))


def _has(client: MlflowClient, run_id: str, folder_of_run: Path | None, path: Path, folder: str | None) -> bool:
    """Whether the store has the file; one elsewhere is known by its name and size only."""
    if folder_of_run is not None:
        there = folder_of_run / (folder or "") / path.name
        return (
            there.is_file()
            and there.stat().st_size == path.stat().st_size
            and files.sha256(there) == files.sha256(path)
        )
    name = f"{folder}/{path.name}" if folder else path.name
    listed = {one.path: one.file_size for one in client.list_artifacts(run_id, folder)}
    return name in listed and listed[name] == path.stat().st_size
