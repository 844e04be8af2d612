"""`symile-clin eval`: a run in, zero-shot retrieval with intervals out, beside the run and in MLflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from symile_clin import disk
from symile_clin.data.store import newest_cohort, open_cohort
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.evaluation.evaluate import evaluate_split
from symile_clin.evaluation.subgroups import MIN_GROUP
from symile_clin.pipeline.adoption import adopt
from symile_clin.pipeline.reporting import report_of
from symile_clin.pipeline.runs import cohort_of, home_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Measured, Trained, open_trained
from symile_clin.progress import Progress
from symile_clin.schema import COHORTS_ROOT, EVAL_DIR, RUNS_ROOT, SUBJECT_ID, TRACKING_URI, Split
from symile_clin.search.index import matrix_bytes

#: Of the figures, tables and the page of an evaluation, whose number of pictures does not hang on the cohort: with
#: X-rays and ECGs they take 6 MB.
PAGES_BYTES: Final = 8_000_000


def evaluate(
    *,
    run: str | None = None,
    checkpoint: Path | None = None,
    objective: str | None = None,
    cohort: Path | None = None,
    split: Split = "test",
    bootstrap: int | None = None,
    min_group: int = MIN_GROUP,
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> Measured:
    """Measure how well a run's best checkpoint retrieves the cohort's target.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        checkpoint: a Lightning checkpoint of the published code instead; it becomes the run of its file's name.
        objective: of such a checkpoint, if it is to be scored with another than its own.
        cohort: a cohort directory; None takes the one the run was trained on, for a checkpoint the newest.
        bootstrap: B of the paper's resampling of queries, beside the interval that is always there.
        min_group: patients that a group must have to be shown.
        device: "auto", "cpu", "cuda", ...
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: also send patient-level artefacts of real patients.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no finished run, no such checkpoint, or no cohort.
        MismatchError: a checkpoint that does not fit the cohort.
        TrainingError: embeddings that are not finite.
    """
    if checkpoint is None:
        opened = open_run(Path(RUNS_ROOT), run)
        data = cohort_of(opened, cohort)
    else:
        data = open_cohort(cohort) if cohort else newest_cohort(Path(COHORTS_ROOT))
        opened = adopt(
            checkpoint,
            root=Path(RUNS_ROOT),
            cohort=data,
            objective=objective,
            tracking_uri=tracking_uri,
            allow_remote_tracking=allow_remote_tracking,
            progress=progress,
        )
    trained = open_trained(opened, data, device=device)
    progress.say(f"Evaluating run {opened.path} on the {split} split of cohort {data.path}, device {trained.device}.")
    directory = trained.directory(EVAL_DIR, split)
    vectors = matrix_bytes(list(trained.modalities), len(data.rows(split)), trained.model.dim)
    disk.require_space(directory, vectors + PAGES_BYTES, what="its embeddings, tables, figures and page")
    evaluation = evaluate_split(
        run=opened.name,
        model=trained.model,
        objective=trained.objective,
        cohort=data,
        modalities=trained.modalities,
        split=split,
        target=str(data.spec["candidates"]["target"]),
        bootstrap=bootstrap,
        min_group=min_group,
        seed=trained.config.seed,
        batch_size=BATCH_SIZE,
        device=trained.device,
        directory=directory,
        progress=progress,
        trained_on=_trained_on(trained),
    )
    page = report_of(trained, split=split, progress=progress)
    return trained.hand_over(
        replace(evaluation, artifacts=(*evaluation.artifacts, page)),
        directory,
        kind="eval",
        split=split,
        tracking_uri=tracking_uri,
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )


def _trained_on(trained: Trained) -> set[int] | None:
    """Patients that a model was trained on in another cohort than this one; None where that cohort is gone."""
    if trained.trained_here:
        return set()
    try:
        home = home_of(trained.run)
    except (NotFoundError, MismatchError):
        return None
    return {int(one) for one in home.samples[SUBJECT_ID].iloc[home.rows("train")]}
