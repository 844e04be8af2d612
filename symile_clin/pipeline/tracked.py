"""How this program's runs are labelled, so that a build, its trainings and their evaluations find each other."""

from __future__ import annotations

from collections.abc import Mapping

from symile_clin.progress import Progress
from symile_clin.tracking import NullTracker, Tracker, start_run

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
    parent_run_id: str | None = None,
    progress: Progress,
) -> Tracker:
    """Start a tracked run with the tags that every run has.

    Args:
        tracking_uri: MLflow store; None records nothing.
        kind: "cohort", "train" or "eval".
        cohort_hash: links the runs of one cohort.
        synthetic: synthetic patients' pictures and embeddings are recorded without asking.
        log_patient_level: record real patients', too; said in the tags.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.
        parent_run_id: the training run of an evaluation.

    Raises:
        TrackingError: a kind of store that is not allowed.
    """
    if tracking_uri is None:
        return NullTracker()
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
        parent_run_id=parent_run_id,
        allow_patient_level=synthetic or log_patient_level,
        allow_remote=allow_remote_tracking,
        progress=progress,
    )
