"""`symile-clin audit`: a run in, a list of samples to look at out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from symile_clin.audit.audit_report import audit_splits
from symile_clin.data.dataset import CohortDataset
from symile_clin.errors import CohortError
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.runs import cohort_of, home_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Measured, open_trained
from symile_clin.progress import Progress
from symile_clin.schema import AUDIT_DIR, RUNS_ROOT, SPLITS, TRACKING_URI, Split


def audit(
    *,
    run: str | None = None,
    cohort: Path | None = None,
    split: Split | Literal["all"] = "test",
    top: int = 20,
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> Measured:
    """List samples that may be mixed up, inputs unlike what trained a run, and values that several patients share.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on. What is usual is always learned from
            the latter.
        split: to audit; "all" audits each of the three by itself.
        top: samples of each kind to list.
        device: that encodes: "auto", "cpu", "cuda", ...
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: also send patient-level artefacts of real patients.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no finished run, or no cohort, or the one that the run was trained on is gone.
        MismatchError: a checkpoint that does not fit the cohort, or another cohort in the place of the run's own.
        CohortError: too few patients to compare.
        TrainingError: embeddings that are not finite.
    """
    opened = open_run(Path(RUNS_ROOT), run)
    data = cohort_of(opened, cohort)
    trained = open_trained(opened, data, device=device)
    splits = [one for one in SPLITS if split in (one, "all") and len(data.rows(one))]
    if not splits:
        raise CohortError(f"cohort {data.name} has no sample in its {split} split", remedy="Audit another --split")
    home = data if trained.trained_here else home_of(opened)
    rooms = modalities_of(home.spec)
    progress.say(f"Auditing run {opened.path} on the {split} split of cohort {data.path}, device {trained.device}.")
    directory = trained.directory(AUDIT_DIR, split)
    audit = audit_splits(
        model=trained.model,
        objective=trained.objective,
        cohort=data,
        modalities=trained.modalities,
        splits=splits,
        trained_on=CohortDataset(home, rooms, home.rows("train")),
        held_out=CohortDataset(home, rooms, home.rows("val")),
        top=top,
        seed=trained.config.seed,
        batch_size=BATCH_SIZE,
        device=trained.device,
        directory=directory,
        progress=progress,
    )
    return trained.hand_over(
        audit.found,
        directory,
        kind="audit",
        split=split,
        tracking_uri=tracking_uri,
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )
