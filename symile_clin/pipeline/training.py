"""`symile-clin train`: a cohort and a preset in, a run directory and a tracked run out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_clin import files
from symile_clin.config import RunConfig, load_config, resolve_config, with_placeholders
from symile_clin.data.store import Cohort, newest_cohort, open_cohort
from symile_clin.errors import CohortError, ConfigError, SymileClinError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.fitting import train_to_the_end
from symile_clin.pipeline.models import choose_device
from symile_clin.pipeline.published import weights_of
from symile_clin.pipeline.runs import ADOPTED, Run, new_run_directory, open_run
from symile_clin.pipeline.unfinished import Unfinished, begin, find_unfinished, open_unfinished, unfinished
from symile_clin.progress import Progress, Quiet
from symile_clin.ranks import Ranks
from symile_clin.schema import (
    COHORTS_ROOT,
    CONFIG,
    MANIFEST,
    RUNS_ROOT,
    TRACKING_URI,
    present_column,
)
from symile_clin.training.distributed import joined


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
    resume: bool = False,
    overrides: Sequence[str] = (),
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> TrainResult:
    """Train one model; in every process that torchrun started, one together. The first writes, tracks and speaks.

    Args:
        preset: a config's name or file; None takes the one that the cohort's spec names.
        cohort: a cohort directory; None takes the newest complete one.
        objective: replaces the preset's objective.
        init_from: weights of a whole model to start from, see `published.read_weights`.
        name: of the run; None numbers them, and takes a finished run with equal settings as it is.
        resume: go on with the run called `name`, or with the one that was cut short last, instead of starting one. Its
            settings are its own; `cohort` only says where its cohort is now.
        overrides: `key=value` settings that win over the preset.
        device: "auto", "cpu", "cuda", "cuda:1", ...; several processes take a CUDA device each.
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: also send patient-level artefacts of real patients.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no such cohort or preset.
        ConfigError: settings that make no sense, or a name that is taken.
        TrainingError: a loss or gradient that is not finite.
        StoppedError: SIGTERM, SIGINT or SIGUSR1 came; the run can go on.
        DiskError: a checkpoint could not be written; the run can go on from the one before.
        BusyError: another process trains that run.
        MismatchError: the run that is to go on began with another cohort or other settings, or processes with different
            ones.
        WorkerError: another process has ended.
    """
    with joined() as ranks:
        shared: dict[str, Any] = {
            "cohort": cohort,
            "device": device,
            "ranks": ranks,
            "tracking_uri": tracking_uri if ranks.is_first else None,
            "log_patient_level": log_patient_level,
            "allow_remote_tracking": allow_remote_tracking,
            "progress": progress if ranks.is_first else Quiet(),
        }
        if not resume:
            return _start(
                preset=preset, objective=objective, init_from=init_from, name=name, overrides=overrides, **shared
            )
        if preset or objective or init_from or overrides:
            raise ConfigError(
                "--resume goes on with a run's own settings", remedy="Leave out PRESET, --objective, --init-from, --set"
            )
        return _resume(ranks.first(lambda: find_unfinished(Path(RUNS_ROOT), name)), **shared)


def _start(
    *,
    preset: str | None,
    cohort: Path | None,
    objective: str | None,
    init_from: Path | None,
    name: str | None,
    overrides: Sequence[str],
    device: str,
    ranks: Ranks,
    progress: Progress,
    **tracking: Any,
) -> TrainResult:
    """Begin a run, or take an equal one that has finished."""
    root = Path(RUNS_ROOT)
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
    chosen = choose_device(device, ranks)
    done = ranks.first(lambda: _equal_run(root, name, config, opened))
    if done is not None:
        if ranks.is_first:
            done.touch()
        progress.say(
            f"Run {done.path} has these settings and this cohort already: nothing to train (--name trains anew)."
        )
        return _result(done, opened.path, skipped=True)
    for path in unfinished(root):
        with suppress(SymileClinError, OSError):  # a damaged one, or one that is gone by now, is not this one's trouble
            if open_unfinished(path).is_equal(config, opened):
                said = "has these settings, too, and has not finished: --resume goes on with that one."
                progress.say(f"Run {path} {said}")

    def new() -> Unfinished:
        with new_run_directory(root, name, default=f"{opened.name}-{config.objective['name']}") as (directory, folder):
            begin(folder, config=config, cohort=opened, init_from=init_from, device=chosen, processes=ranks.size)
        return open_unfinished(directory)

    begun = ranks.first(new)
    progress.say(
        f"Training {config.objective['name']} with preset {config.preset}, seed {config.seed}, on cohort {opened.path} "
        f"({len(opened.rows('train')):,} train samples), "
        f"device {chosen}{f', {ranks.size} processes' if ranks.size > 1 else ''}."
    )
    with files.lock(begun.path.with_name(f".{begun.path.name}.lock")) if ranks.is_first else nullcontext():
        run = train_to_the_end(
            begun, config, opened, modalities, device=chosen, ranks=ranks, is_new=True, progress=progress, **tracking
        )
        return _result(run, opened.path, skipped=False)


def _resume(
    path: Path, *, cohort: Path | None, device: str, ranks: Ranks, progress: Progress, **tracking: Any
) -> TrainResult:
    """Go on with the run in `path`."""
    with files.lock(path.with_name(f".{path.name}.lock")) if ranks.is_first else nullcontext():
        if ranks.first(lambda: files.read_manifest(path)) is not None:
            run = open_run(path.parent, path.name)
            progress.say(f"Run {run.path} has finished: there is nothing to go on with.")
            return _result(run, Path(run.manifest["cohort"]["path"]), skipped=True)
        begun = open_unfinished(path)
        opened = begun.cohort(cohort)
        modalities = modalities_of(opened.spec)
        config = resolve_config(begun.config, source=str(path / CONFIG), modalities=modalities)
        chosen = choose_device(begun.started["machine"]["device"] if device == "auto" else device, ranks)
        begun.check(chosen, processes=ranks.size, progress=progress)
        progress.say(f"Going on with run {path}, on cohort {opened.path}, device {chosen}.")
        run = train_to_the_end(
            begun, config, opened, modalities, device=chosen, ranks=ranks, is_new=False, progress=progress, **tracking
        )
        return _result(run, opened.path, skipped=False)


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


def _result(run: Run, cohort: Path, *, skipped: bool) -> TrainResult:
    return TrainResult(
        run=run.path,
        cohort=cohort,
        objective=run.config["objective"]["name"],
        best_epoch=run.manifest["best"]["epoch"],
        metrics=run.manifest["best"]["metrics"],
        seconds=run.manifest["runtime"]["seconds"],
        skipped=skipped,
    )
