"""`symile-clin eval`: a run in, zero-shot retrieval with intervals out, beside the run and in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_clin.config import resolve_config
from symile_clin.data.store import newest_cohort, open_cohort
from symile_clin.evaluation.evaluate import evaluate_split
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.adoption import adopt
from symile_clin.pipeline.models import build_model, choose_device
from symile_clin.pipeline.runs import check_fit, cohort_of, open_run
from symile_clin.pipeline.tracked import track_results
from symile_clin.progress import Progress
from symile_clin.schema import BEST, CHECKPOINTS_DIR, COHORTS_ROOT, EVAL_DIR, RUNS_ROOT, TRACKING_URI, Split
from symile_clin.training.checkpoint import load_weights

#: Samples encoded at once; it changes the speed and nothing else.
BATCH_SIZE = 64


@dataclass(frozen=True)
class EvalResult:
    """A finished evaluation.

    Attributes:
        metrics: as in metrics.json of `directory`.
        table: the same for a terminal.
    """

    run: str
    objective: str
    directory: Path
    metrics: Mapping[str, float]
    table: str

    def text(self) -> str:
        """The retrieval table and where the figures are."""
        return f"{self.table}\nRun {self.run} ({self.objective}); figures and ranks in {self.directory}"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "run": self.run,
            "objective": self.objective,
            "directory": str(self.directory),
            "metrics": dict(self.metrics),
        }


def evaluate(
    *,
    run: str | None = None,
    checkpoint: Path | None = None,
    objective: str | None = None,
    cohort: Path | None = None,
    split: Split = "test",
    bootstrap: int | None = None,
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> EvalResult:
    """Measure how well a run's best checkpoint retrieves the cohort's target.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        checkpoint: a Lightning checkpoint of the published code instead; it becomes the run of its file's name.
        objective: of such a checkpoint, if it is to be scored with another than its own.
        cohort: a cohort directory; None takes the one the run was trained on, for a checkpoint the newest.
        bootstrap: B of the paper's resampling of queries, beside the interval that is always there.
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
    modalities = modalities_of(data.spec)
    check_fit(opened, data, modalities)
    config = resolve_config(opened.config, source=f"the config of run '{opened.name}'", modalities=modalities)
    chosen = choose_device(device)
    model, scorer = build_model(config, modalities, pretrained=False)
    load_weights(opened.path / CHECKPOINTS_DIR / BEST, model=model, objective=scorer)
    progress.say(f"Evaluating run {opened.path} on the {split} split of cohort {data.path}, device {chosen}.")
    trained_here = data.hash == opened.manifest["cohort"]["hash"]
    directory = opened.path / EVAL_DIR / (split if trained_here else f"{data.name}-{split}")
    evaluation = evaluate_split(
        model=model.to(chosen),
        objective=scorer,
        cohort=data,
        modalities=modalities,
        split=split,
        target=str(data.spec["candidates"]["target"]),
        bootstrap=bootstrap,
        seed=config.seed,
        batch_size=BATCH_SIZE,
        device=chosen,
        directory=directory,
        progress=progress,
    )
    if tracking_uri is not None:
        track_results(
            tracking_uri,
            kind="eval",
            run=opened,
            cohort=data,
            metrics=evaluation.metrics,
            artifacts=evaluation.artifacts,
            split=split,
            trained_here=trained_here,
            device=chosen.type,
            log_patient_level=log_patient_level,
            allow_remote_tracking=allow_remote_tracking,
            progress=progress,
        )
    return EvalResult(
        run=opened.name,
        objective=config.objective["name"],
        directory=directory,
        metrics=evaluation.metrics,
        table=evaluation.table,
    )
