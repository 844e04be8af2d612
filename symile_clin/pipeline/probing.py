"""`symile-clin probe`: a run in, what its embeddings tell of findings out, beside the run and in MLflow."""

from __future__ import annotations

from pathlib import Path

from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Measured, open_trained
from symile_clin.probes.policy import MIN_GROUP, MIN_POSITIVES, Blank, Policy, Uncertain
from symile_clin.probes.probe_report import probe_split
from symile_clin.progress import Progress
from symile_clin.schema import PROBES_DIR, RUNS_ROOT, TRACKING_URI, Split


def probe(
    *,
    run: str | None = None,
    cohort: Path | None = None,
    split: Split = "test",
    uncertain: Uncertain = "ignore",
    blank: Blank = "zeros",
    min_positives: int = MIN_POSITIVES,
    min_group: int = MIN_GROUP,
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> Measured:
    """Fit linear probes on a run's embeddings for the findings of its cohort, and see which findings are retrieved.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on.
        split: "test"; or "val", which chose the penalties, too.
        uncertain: what a finding counts as that a report is not sure of; "ignore" leaves the sample out.
        blank: what a finding counts as that a report does not mention.
        min_positives: patients with a finding, and without it, that each split needs.
        min_group: counts of fewer patients are not shown.
        device: that encodes: "auto", "cpu", "cuda", ...
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: also send the probes' coefficients, of real patients.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no finished run, or no cohort.
        MismatchError: a checkpoint that does not fit the cohort.
        CohortError: no findings, or too few patients with and without them.
        TrainingError: embeddings that are not finite.
    """
    opened = open_run(Path(RUNS_ROOT), run)
    data = cohort_of(opened, cohort)
    trained = open_trained(opened, data, device=device)
    progress.say(f"Probing run {opened.path} on the {split} split of cohort {data.path}, device {trained.device}.")
    directory = trained.directory(PROBES_DIR, split)
    report = probe_split(
        model=trained.model,
        objective=trained.objective,
        cohort=data,
        modalities=trained.modalities,
        split=split,
        target=str(data.spec["candidates"]["target"]),
        policy=Policy(uncertain=uncertain, blank=blank),
        min_positives=min_positives,
        min_group=min_group,
        seed=trained.config.seed,
        batch_size=BATCH_SIZE,
        device=trained.device,
        directory=directory,
        progress=progress,
    )
    return trained.hand_over(
        report,
        directory,
        kind="probe",
        split=split,
        tracking_uri=tracking_uri,
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )
