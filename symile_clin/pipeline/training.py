"""`symile-clin train`: a cohort and a preset in, a run directory and a tracked run out."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from symile_clin import files
from symile_clin.config import RunConfig, flatten, load_config, with_placeholders
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, newest_cohort, open_cohort
from symile_clin.errors import CohortError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.models import build_model, choose_device
from symile_clin.pipeline.published import start_from, weights_of
from symile_clin.pipeline.runs import ADOPTED, Run, new_run_directory, open_run, signature
from symile_clin.pipeline.tracked import open_tracker
from symile_clin.progress import Progress
from symile_clin.ranks import ALONE
from symile_clin.schema import (
    BEST,
    CHECKPOINTS_DIR,
    COHORTS_ROOT,
    CONFIG,
    MANIFEST,
    RUNS_ROOT,
    TRACKING_URI,
    present_column,
)
from symile_clin.strict import dump_yaml
from symile_clin.tracking import Tracker
from symile_clin.training.fit import FitResult, fit


@dataclass(frozen=True)
class TrainResult:
    """A finished training run.

    Attributes:
        metrics: those of the best epoch.
        skipped: an equal run was there already.
    """

    run: Path
    cohort: Path
    objective: str
    best_epoch: int
    metrics: Mapping[str, float]
    seconds: float
    skipped: bool

    def text(self) -> str:
        """Where the run is, how it went, what comes next."""
        best = ", ".join(f"{name} {value:.3f}" for name, value in self.metrics.items() if name.startswith("val/"))
        return (
            f"Run {self.run}: best epoch {self.best_epoch} ({best}), {self.seconds:.0f} s.\n"
            "Next: symile-clin eval --bootstrap 10"
        )

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {**vars(self), "run": str(self.run), "cohort": str(self.cohort), "metrics": dict(self.metrics)}


def train(
    *,
    preset: str | None = None,
    cohort: Path | None = None,
    objective: str | None = None,
    init_from: Path | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> TrainResult:
    """Train one model.

    Args:
        preset: a config's name or file; None takes the one that the cohort's spec names.
        cohort: a cohort directory; None takes the newest complete one.
        objective: replaces the preset's objective.
        init_from: weights of a whole model to start from, see `published.read_weights`.
        name: of the run; None numbers them, and takes a finished run with equal settings as it is.
        overrides: `key=value` settings that win over the preset.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: also send patient-level artefacts of real patients.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no such cohort or preset.
        ConfigError: settings that make no sense, or a name that is taken.
        TrainingError: a loss or gradient that is not finite.
    """
    opened = open_cohort(cohort) if cohort else newest_cohort(Path(COHORTS_ROOT))
    if opened.tables_only:
        raise CohortError(
            f"cohort {opened.name} was built from tables only: its files were not read",
            remedy="Build it again where the files are, without --tables-only",
        )
    modalities = modalities_of(opened.spec)
    config = load_config(
        preset or str(opened.spec["preset"]), overrides=overrides, objective=objective, modalities=modalities
    )
    config = with_placeholders(config, lacking=_lacking(opened, modalities))
    if init_from is not None:
        config = config.model_copy(update={"init_from": weights_of(init_from)})
    chosen = choose_device(device)
    root = Path(RUNS_ROOT)
    done = _equal_run(root, name, config, opened)
    if done is not None:
        done.touch()
        progress.say(
            f"Run {done.path} has these settings and this cohort already: nothing to train (--name trains anew)."
        )
        return _result(done, opened, skipped=True)

    directory = new_run_directory(root, name, default=f"{opened.name}-{config.objective['name']}")
    progress.say(
        f"Training {config.objective['name']} with preset {config.preset}, seed {config.seed}, on cohort {opened.path} "
        f"({len(opened.rows('train')):,} train samples), device {chosen}."
    )
    files.write_text(directory / CONFIG, dump_yaml(config.model_dump(mode="json")))
    tracker = open_tracker(
        tracking_uri,
        kind="train",
        run_name=directory.name,
        cohort_name=opened.name,
        cohort_hash=opened.hash,
        synthetic=opened.synthetic,
        tags={"objective": config.objective["name"], "preset": config.preset, "device": chosen.type},
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )
    tracker.params(flatten(config))
    tracker.artifact(directory / CONFIG, patient_level=False)
    started = time.monotonic()
    try:
        result = _fit(
            config=config,
            cohort=opened,
            modalities=modalities,
            init_from=init_from,
            directory=directory,
            device=chosen,
            tracker=tracker,
            progress=progress,
        )
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
        if not (directory / CHECKPOINTS_DIR / BEST).exists():
            shutil.rmtree(directory, ignore_errors=True)  # no checkpoint: nothing in it is worth keeping
        raise
    files.write_manifest(
        directory,
        stage="run",
        content={
            "cohort": {"name": opened.name, "hash": opened.hash, "path": str(opened.path)},
            "signature": signature(modalities),
            "best": {"epoch": result.best_epoch, "metrics": dict(result.best)},
            "tracked_as": tracker.run_id,
            "runtime": {
                "seconds": round(time.monotonic() - started, 1),
                "device": chosen.type,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    )
    tracker.finish()
    return _result(open_run(root, directory.name), opened, skipped=False)


def _fit(
    *,
    config: RunConfig,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    init_from: Path | None,
    directory: Path,
    device: torch.device,
    tracker: Tracker,
    progress: Progress,
) -> FitResult:
    model, objective = build_model(config, modalities, pretrained=init_from is None)
    if init_from is not None:
        start_from(init_from, model, modalities)
    return fit(
        model=model,
        objective=objective,
        train=CohortDataset(cohort, modalities, cohort.rows("train")),
        val=CohortDataset(cohort, modalities, cohort.rows("val")),
        candidates=cohort.candidates("val"),
        target=str(cohort.spec["candidates"]["target"]),
        directory=directory,
        seed=config.seed,
        device=device,
        ranks=ALONE,
        tracker=tracker,
        progress=progress,
        **config.training.model_dump(),
    )


def _equal_run(root: Path, name: str | None, config: RunConfig, cohort: Cohort) -> Run | None:
    """A finished run with the same settings from the same cohort: training again would give the same numbers."""
    for path in sorted(root.glob(f"{name or '*'}/{MANIFEST}")):
        run = open_run(root, path.parent.name)
        if ADOPTED in run.manifest:
            continue
        if run.config == config.model_dump(mode="json") and run.manifest["cohort"]["hash"] == cohort.hash:
            return run
    return None


def _lacking(cohort: Cohort, modalities: Mapping[str, Modality]) -> tuple[str, ...]:
    """Modalities that some training sample lacks."""
    train = cohort.samples.iloc[cohort.rows("train")]
    return tuple(name for name in modalities if not train[present_column(name)].all())


def _result(run: Run, cohort: Cohort, *, skipped: bool) -> TrainResult:
    return TrainResult(
        run=run.path,
        cohort=cohort.path,
        objective=run.config["objective"]["name"],
        best_epoch=run.manifest["best"]["epoch"],
        metrics=run.manifest["best"]["metrics"],
        seconds=run.manifest["runtime"]["seconds"],
        skipped=skipped,
    )
