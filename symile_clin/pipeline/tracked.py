"""How this program's runs are labelled, so that a build, its trainings and their evaluations find each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from symile_clin.data.store import Cohort
from symile_clin.pipeline.runs import Run
from symile_clin.progress import Progress
from symile_clin.tracking import Artifact, NullTracker, Tracker, add_results, resume_run, start_run

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
    progress: Progress,
) -> Tracker:
    """Start a tracked run with the tags that every run has, or go on with one.

    Args:
        tracking_uri: MLflow store; None records nothing.
        kind: "cohort", "train", "eval", "compare", ...
        cohort_hash: links the runs of one cohort.
        synthetic: synthetic patients' pictures and embeddings are recorded without asking.
        log_patient_level: record real patients', too; said in the tags.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.
        description: Markdown that the store shows with the run.
        parent_run_id: the training run of an evaluation.
        resume: id of a run to go on with.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    if tracking_uri is None:
        return NullTracker()
    if resume is not None:
        return resume_run(
            uri=tracking_uri,
            run_id=resume,
            allow_patient_level=synthetic or log_patient_level,
            allow_remote=allow_remote_tracking,
            progress=progress,
        )
    return start_run(
        uri=tracking_uri,
        experiment=EXPERIMENT,
        run_name=run_name,
        tags={
            "kind": kind,
            "cohort": cohort_name,
            "cohort_hash": cohort_hash,
            "patients": "synthetic" if synthetic else "real",
            "patient_level_artifacts": str(synthetic or log_patient_level).lower(),
            **(tags or {}),
        },
        description=description,
        parent_run_id=parent_run_id,
        allow_patient_level=synthetic or log_patient_level,
        allow_remote=allow_remote_tracking,
        progress=progress,
    )


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
            progress=progress,
        )
