"""`symile-clin information`: a run in, bounds and estimates of what modalities tell of each other out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_clin.config import resolve_config
from symile_clin.evaluation.information_report import report_split
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.models import build_model, choose_device
from symile_clin.pipeline.runs import check_fit, cohort_of, open_run
from symile_clin.pipeline.tracked import track_results
from symile_clin.progress import Progress
from symile_clin.schema import BEST, CHECKPOINTS_DIR, INFORMATION_DIR, RUNS_ROOT, TRACKING_URI, Split
from symile_clin.training.checkpoint import load_weights

#: Samples encoded at once; it changes the speed and nothing else.
BATCH_SIZE = 64


@dataclass(frozen=True)
class InformationResult:
    """A finished information report.

    Attributes:
        metrics: as in information.json of `directory`.
        table: the same for a terminal.
    """

    run: str
    objective: str
    directory: Path
    metrics: Mapping[str, float]
    table: str

    def text(self) -> str:
        """The table and where the figure is."""
        return f"{self.table}\nRun {self.run} ({self.objective}); figure and numbers in {self.directory}"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "run": self.run,
            "objective": self.objective,
            "directory": str(self.directory),
            "metrics": dict(self.metrics),
        }


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
) -> InformationResult:
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
    modalities = modalities_of(data.spec)
    check_fit(opened, data, modalities)
    config = resolve_config(opened.config, source=f"the config of run '{opened.name}'", modalities=modalities)
    chosen = choose_device(device)
    model, objective = build_model(config, modalities, pretrained=False)
    load_weights(opened.path / CHECKPOINTS_DIR / BEST, model=model, objective=objective)
    progress.say(f"Measuring run {opened.path} on the {split} split of cohort {data.path}, device {chosen}.")
    trained_here = data.hash == opened.manifest["cohort"]["hash"]
    directory = opened.path / INFORMATION_DIR / (split if trained_here else f"{data.name}-{split}")
    report = report_split(
        model=model.to(chosen),
        objective=objective,
        scale=model.scale.item(),
        cohort=data,
        modalities=modalities,
        split=split,
        seed=config.seed,
        batch_size=BATCH_SIZE,
        device=chosen,
        directory=directory,
        progress=progress,
    )
    if tracking_uri is not None:
        track_results(
            tracking_uri,
            kind="information",
            run=opened,
            cohort=data,
            metrics=report.metrics,
            artifacts=report.artifacts,
            split=split,
            trained_here=trained_here,
            device=chosen.type,
            log_patient_level=log_patient_level,
            allow_remote_tracking=allow_remote_tracking,
            progress=progress,
        )
    return InformationResult(
        run=opened.name,
        objective=config.objective["name"],
        directory=directory,
        metrics=report.metrics,
        table=report.table,
    )
