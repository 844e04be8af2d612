"""Runs in MLflow. A store that fails is mentioned once and never stops the work."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from symile_clin import __version__, files
from symile_clin.progress import Progress
from symile_clin.tracking.base import Artifact, NullTracker, Status, Tracker
from symile_clin.tracking.store import database_of, experiment_id, local_artifacts, opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

# MLflow's limits on one request, one value and one name.
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
LONGEST_PARAM = 6000
_LONGEST_TAG = 5000
#: Says whether patient-level artifacts may be in the store.
PATIENT_LEVEL_TAG = "patient_level_artifacts"
#: Makes a run the child of another.
PARENT_TAG = "mlflow.parentRunId"
_NOT_IN_A_NAME = re.compile(r"[^/\w.\- :]")

#: Numbers wait this long to be sent together: one request costs as much as a small training step.
_SECONDS_BETWEEN_SENDS = 5.0
#: A store that failed is left alone for so many times the time that it took to fail: a store that hangs then costs a
#: training a twentieth of its time at most.
_PAUSE_FACTOR = 20
#: Of what a store says when it fails.
_REASON_SHOWN = 200
#: User and password in an address.
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class MlflowTracker:
    """One MLflow run, made by `start_run` or found by `resume_run`.

    Whatever the store does, no method raises: the first failure is said, once.

    Metrics that could not be sent are kept and tried again with later ones; the run's own files hold them anyway.
    A character that MLflow does not allow in a name ('+') becomes '-'.

    Args:
        artifacts: folder of the run's artifacts in a local store; None where MLflow has to send them.
        allow_patient_level: whether patient-level artifacts may be recorded.
        recorded: by metric's name the last step that the run has; what is not beyond it is taken for the same again.
        remedy: said with the first failure.
    """

    def __init__(
        self,
        *,
        client: MlflowClient,
        run_id: str,
        artifacts: Path | None,
        allow_patient_level: bool,
        progress: Progress,
        recorded: Mapping[str, int] | None = None,
        remedy: str = "",
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._artifacts = artifacts
        self._allow_patient_level = allow_patient_level
        self._progress = progress
        self._recorded = recorded or {}
        self._remedy = remedy
        self._waiting: list[Metric] = []
        self._last_send = time.monotonic()
        self._has_failed = False
        self._has_patient_level = False
        self._pause_ends = 0.0

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    def params(self, values: Mapping[str, object]) -> None:
        """Record flat settings; a value longer than MLflow takes is cut."""
        from mlflow.entities import Param

        items = [Param(stored_name(key), str(value)[:LONGEST_PARAM]) for key, value in values.items()]
        for start in range(0, len(items), PARAMS_PER_BATCH):
            self._try(partial(self._client.log_batch, self._run_id, params=items[start : start + PARAMS_PER_BATCH]))

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels."""
        from mlflow.entities import RunTag

        tags = [RunTag(stored_name(key), value) for key, value in values.items()]
        self._try(partial(self._client.log_batch, self._run_id, tags=tags))

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers; they are sent together with the next ones, a few seconds later at most."""
        found = _metrics(values, step)
        self._waiting += [metric for metric in found if metric.step > self._recorded.get(metric.key, -1)]
        late = time.monotonic() - self._last_send > _SECONDS_BETWEEN_SENDS
        if late or len(self._waiting) >= METRICS_PER_BATCH:
            self.flush()

    def artifact(self, path: Path, *, folder: str | None = None, patient_level: bool) -> None:
        """Record a file; a patient-level one only where that is allowed."""
        if patient_level and not self._allow_patient_level:
            return
        if patient_level and not self._has_patient_level:  # said before it is so, also on a run that began without
            self.tags({PATIENT_LEVEL_TAG: "true"})
            self._has_patient_level = True
        self._try(partial(keep_artifact, self._client, self._run_id, self._artifacts, path, folder))

    def flush(self) -> None:
        """Send the numbers that wait."""
        self._last_send = time.monotonic()
        while self._waiting:
            batch = self._waiting[:METRICS_PER_BATCH]
            if not self._try(partial(self._client.log_batch, self._run_id, metrics=batch)):
                return
            del self._waiting[: len(batch)]

    def finish(self, status: Status = "FINISHED") -> None:
        """Send what is left and close the run."""
        self._pause_ends = 0.0  # once more, whatever it takes
        self.flush()
        self._try(partial(self._client.set_terminated, self._run_id, status))

    def _try(self, action: Callable[[], object]) -> bool:
        began = time.monotonic()
        if began < self._pause_ends:
            return False
        try:
            action()
        except Exception as error:  # whatever MLflow and its database raise: training never stops for its tracker
            if not self._has_failed:
                self._progress.say(_said("does not record this run completely", error, self._remedy))
            self._has_failed = True
            ended = time.monotonic()
            self._pause_ends = ended + _PAUSE_FACTOR * (ended - began)
            return False
        return True


def start_run(
    *,
    uri: str,
    experiment: str,
    run_name: str,
    tags: Mapping[str, str],
    description: str | None = None,
    parent_run_id: str | None = None,
    allow_patient_level: bool = False,
    allow_remote: bool = False,
    start_time: int | None = None,
    remedy: str = "",
    progress: Progress,
) -> Tracker:
    """Start a run in an MLflow store; where the store fails, say so and record nothing.

    Args:
        uri: `sqlite:///FILE` relative to the working directory, or `sqlite:////ABSOLUTE/FILE`.
        description: Markdown that the UI shows above the run's numbers.
        parent_run_id: makes the run a child of this one.
        allow_patient_level: whether patient-level artifacts may be recorded (synthetic patients, or the user's wish).
        allow_remote: whether `uri` may be a server or a database elsewhere.
        start_time: milliseconds since 1970; None is now.
        remedy: said where the store fails.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    database = database_of(uri, allow_remote=allow_remote)
    labels = {**labels_of_this_program(), **tags}
    if description:
        labels["mlflow.note.content"] = description[:_LONGEST_TAG]
    if parent_run_id:
        labels[PARENT_TAG] = parent_run_id
    try:
        with opened(uri, database) as client:
            experiment = experiment_id(client, experiment, database)
            run = client.create_run(experiment, start_time=start_time, tags=labels, run_name=run_name)
    except Exception as error:  # a full disk, a damaged or newer database: the work goes on without its tracker
        progress.say(_said("does not record this run", error, remedy))
        return NullTracker()
    return MlflowTracker(
        client=client,
        run_id=run.info.run_id,
        artifacts=local_artifacts(run.info.artifact_uri, database),
        allow_patient_level=allow_patient_level,
        progress=progress,
        remedy=remedy,
    )


def resume_run(
    *,
    uri: str,
    run_id: str,
    allow_patient_level: bool = False,
    allow_remote: bool = False,
    remedy: str = "",
    progress: Progress,
) -> Tracker:
    """Go on recording a run that was cut short; where the store fails or lacks it, say so and record nothing.

    Its status is RUNNING again. Metrics up to the last step that it has are not recorded a second time.

    Args:
        allow_patient_level: see `start_run`.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    database = database_of(uri, allow_remote=allow_remote)
    try:
        if database is not None and not database.exists():
            raise FileNotFoundError(f"there is no {database}")
        with opened(uri, database) as client:
            run = client.get_run(run_id)
            recorded = {key: _last_step(client, run_id, key) for key in run.data.metrics}
            client.update_run(run_id, status="RUNNING")
    except Exception as error:  # as in start_run, or a run that is in another store
        progress.say(_said("does not go on recording this run", error, remedy))
        return NullTracker()
    return MlflowTracker(
        client=client,
        run_id=run_id,
        artifacts=local_artifacts(run.info.artifact_uri, database),
        allow_patient_level=allow_patient_level,
        progress=progress,
        recorded=recorded,
        remedy=remedy,
    )


def _last_step(client: MlflowClient, run_id: str, key: str) -> int:
    return max(int(metric.step) for metric in client.get_metric_history(run_id, key))


def add_results(
    *,
    uri: str,
    run_id: str,
    metrics: Mapping[str, float],
    artifacts: Iterable[Artifact] = (),
    allow_patient_level: bool = False,
    allow_remote: bool = False,
    remedy: str = "",
    progress: Progress,
) -> None:
    """Add to a run that has ended and stays so: an evaluation's results to its training run, so that those compare.

    Args:
        artifacts: recorded at the top level, the only one that MLflow's compare page sets side by side.
        allow_patient_level: whether those of them that are patient-level may be recorded.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    database = database_of(uri, allow_remote=allow_remote)
    try:
        with opened(uri, database) as client:
            folder = local_artifacts(client.get_run(run_id).info.artifact_uri, database)
    except Exception as error:  # as in start_run, or a run that is in another store
        progress.say(_said("does not add the results to the training run", error, remedy))
        return
    tracker = MlflowTracker(
        client=client,
        run_id=run_id,
        artifacts=folder,
        allow_patient_level=allow_patient_level,
        progress=progress,
        remedy=remedy,
    )
    tracker.metrics(metrics)
    tracker.flush()
    for artifact in artifacts:
        tracker.artifact(artifact.path, patient_level=artifact.patient_level)


def keep_artifact(client: MlflowClient, run_id: str, artifacts: Path | None, path: Path, folder: str | None) -> None:
    """Copy a file to a run's artifacts, in a local store without MLflow, which would record where it came from.

    Args:
        artifacts: see `MlflowTracker`.
    """
    if artifacts is None:
        client.log_artifact(run_id, str(path), folder)
        return
    with files.atomic(artifacts / (folder or "") / path.name) as temporary:
        shutil.copyfile(path, temporary)


def labels_of_this_program() -> dict[str, str]:
    """Tags that every run has."""
    labels = {"version": __version__, "mlflow.source.name": "symile-clin", "mlflow.source.type": "LOCAL"}
    commit = code_version()
    return {**labels, "mlflow.source.git.commit": commit} if commit else labels


def code_version() -> str | None:
    """Commit of the checkout that this package runs from, ending in '-dirty' if files differ; None without one."""
    package = Path(__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return None
    describe = ["git", "-C", str(package), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _metrics(values: Mapping[str, float], step: int | None) -> list[Metric]:
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    return [Metric(stored_name(key), float(value), now, step or 0) for key, value in values.items()]


def stored_name(key: str) -> str:
    """A name as MLflow takes it."""
    return _NOT_IN_A_NAME.sub("-", key)


def _said(what: str, error: Exception, remedy: str) -> str:
    return f"MLflow {what}: {reason(error)}{remedy and f'. {remedy}.'}"


def reason(error: Exception) -> str:
    """The start of what went wrong, without the password of an address."""
    first = _CREDENTIALS.sub("", (str(error).strip() or type(error).__name__).splitlines()[0])
    return first.rstrip(".") if len(first) <= _REASON_SHOWN else f"{first[:_REASON_SHOWN]} ..."
