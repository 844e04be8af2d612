"""How this program's runs are labelled, so that a build, its trainings and their evaluations find each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symile_clin.data.store import Cohort
from symile_clin.pipeline.runs import Run
from symile_clin.progress import Progress
from symile_clin.tracking import Artifact, NullTracker, Tracker, add_results, resume_run, start_run
from symile_clin.tracking.delivery import remedy, resume_journaled, start_journaled
from symile_clin.tracking.journal import FOLDER

EXPERIMENT = "symile-clin"


def open_tracker(
    tracking_uri: str | None,
    *,
    kind: str,
    run_name: str,
    cohort_name: str,
    cohort_hash: str,
    synthetic: bool,
    log_patient_level: bool,
    allow_remote_tracking: bool,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    parent_run_id: str | None = None,
    resume: str | None = None,
    journal: Path | None = None,
    adds_to_training: bool = False,
    progress: Progress,
) -> Tracker:
    """Start a tracked run with the tags that every run has, or go on with one.

    Args:
        tracking_uri: MLflow store; None records nothing.
        kind: "cohort", "train", "eval", "compare", ...
        cohort_hash: links the runs of one cohort.
        synthetic: synthetic patients' pictures and embeddings are recorded without asking.
        log_patient_level: record real patients', too; said in the tags.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere; said in the tags.
        description: Markdown that the store shows with the run.
        parent_run_id: the training run of an evaluation.
        resume: id of a run to go on with.
        journal: file in which all that the run is told is kept, so that `track sync` can deliver it where the store
            fails; with one that is there, the run that it is of is gone on with.
        adds_to_training: see `Journal.begin`.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    if tracking_uri is None:
        return NullTracker()
    store: dict[str, Any] = {
        "uri": tracking_uri,
        "allow_patient_level": synthetic or log_patient_level,
        "allow_remote": allow_remote_tracking,
        "progress": progress,
    }
    if journal is not None and journal.exists():
        return resume_journaled(journal, **store)
    if resume is not None:
        return resume_run(run_id=resume, **store)
    begun: dict[str, Any] = {
        "experiment": EXPERIMENT,
        "run_name": run_name,
        "tags": {
            "kind": kind,
            "cohort": cohort_name,
            "cohort_hash": cohort_hash,
            "patients": "synthetic" if synthetic else "real",
            "patient_level_artifacts": str(synthetic or log_patient_level).lower(),
            "remote_tracking": str(allow_remote_tracking).lower(),
            **(tags or {}),
        },
        "parent_run_id": parent_run_id,
    }
    if journal is not None:
        return start_journaled(journal, synthetic=synthetic, adds_to_training=adds_to_training, **begun, **store)
    return start_run(description=description, **begun, **store)


def recorded(settings: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Settings as they are recorded: flat, with dotted names, and of a path its last part, for the folders of a machine
    are nobody else's."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= recorded(value, f"{name}.")
        else:
            flat[name] = Path(value).name if isinstance(value, str) and "/" in value else value
    return flat


def track_results(
    tracking_uri: str,
    *,
    kind: str,
    run: Run,
    cohort: Cohort,
    metrics: Mapping[str, float],
    artifacts: Sequence[Artifact],
    split: str,
    trained_here: bool,
    device: str,
    log_patient_level: bool,
    allow_remote_tracking: bool,
    progress: Progress,
) -> None:
    """What was measured on a split of a trained run: a child run; on its own cohort onto the training run, too.

    Args:
        kind: of measurement; the child is called <run>-<kind>-<split>.
        trained_here: whether `cohort` is the one the run was trained on.

    Raises:
        TrackingError: the store is not allowed.
    """
    journal = run.path / FOLDER / f"{kind}-{split if trained_here else f'{cohort.name}-{split}'}.jsonl"
    journal.unlink(missing_ok=True)  # its files have others' places now
    tracker = open_tracker(
        tracking_uri,
        kind=kind,
        run_name=f"{run.name}-{kind}-{split}",
        cohort_name=cohort.name,
        cohort_hash=cohort.hash,
        synthetic=cohort.synthetic,
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        tags={"objective": run.config["objective"]["name"], "split": split, "device": device},
        parent_run_id=run.tracked_as,
        journal=journal,
        adds_to_training=trained_here,
        progress=progress,
    )
    tracker.metrics(metrics)
    for artifact in artifacts:
        tracker.artifact(artifact.path, patient_level=artifact.patient_level)
    tracker.finish()
    if run.tracked_as is not None and trained_here:
        add_results(
            uri=tracking_uri,
            run_id=run.tracked_as,
            metrics=metrics,
            artifacts=artifacts,
            allow_patient_level=cohort.synthetic or log_patient_level,
            allow_remote=allow_remote_tracking,
            remedy=remedy(run.path, tracking_uri),
            progress=progress,
        )
