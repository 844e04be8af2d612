"""`symile-clin information`: a run in, bounds and estimates of what modalities tell of each other out."""

from __future__ import annotations

from pathlib import Path

from symile_clin.evaluation.information_report import report_split
from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Measured, open_trained
from symile_clin.progress import Progress
from symile_clin.schema import INFORMATION_DIR, RUNS_ROOT, TRACKING_URI, Split


def measure_information(
    *,
    run: str | None = None,
    cohort: Path | None = None,
    split: Split = "test",
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> Measured:
    """Bound what modalities tell of each other, from a run's best checkpoint and samples that did not train it.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on.
        split: "test"; or "val", on which nothing is a bound, for it chose the checkpoint.
        device: that encodes: "auto", "cpu", "cuda", ...
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: no difference here; the report shows no single patient.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no finished run, or no cohort.
        MismatchError: a checkpoint that does not fit the cohort.
        CohortError: too few patients have every modality.
        TrainingError: embeddings that are not finite.
    """
    opened = open_run(Path(RUNS_ROOT), run)
    data = cohort_of(opened, cohort)
    trained = open_trained(opened, data, device=device)
    progress.say(f"Measuring run {opened.path} on the {split} split of cohort {data.path}, device {trained.device}.")
    directory = trained.directory(INFORMATION_DIR, split)
    report = report_split(
        model=trained.model,
        objective=trained.objective,
        scale=trained.model.scale.item(),
        cohort=data,
        modalities=trained.modalities,
        split=split,
        seed=trained.config.seed,
        batch_size=BATCH_SIZE,
        device=trained.device,
        directory=directory,
        progress=progress,
    )
    return trained.hand_over(
        report,
        directory,
        kind="information",
        split=split,
        tracking_uri=tracking_uri,
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )
