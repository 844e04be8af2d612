"""A run that has begun, trained to its end: model, data, tracker and checkpoints put together."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping

import torch

from symile_clin import files
from symile_clin.config import RunConfig, flatten
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import MismatchError, StoppedError, TrainingError
from symile_clin.modalities.base import Modality
from symile_clin.pipeline.models import build_model
from symile_clin.pipeline.published import start_from, weights_of
from symile_clin.pipeline.runs import Run, open_run, signature
from symile_clin.pipeline.tracked import open_tracker, recorded
from symile_clin.pipeline.unfinished import Unfinished
from symile_clin.progress import Progress
from symile_clin.ranks import Ranks
from symile_clin.schema import CONFIG
from symile_clin.tracking import NullTracker, Tracker
from symile_clin.tracking.journal import FOLDER, TRAINING
from symile_clin.training.distributed import check_same
from symile_clin.training.fit import FitResult, fit
from symile_clin.training.stopping import Stop, noted_signals


def train_to_the_end(
    begun: Unfinished,
    config: RunConfig,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    *,
    device: torch.device,
    ranks: Ranks,
    is_new: bool,
    tracking_uri: str | None,
    log_patient_level: bool,
    allow_remote_tracking: bool,
    progress: Progress,
) -> Run:
    """Train a begun run from its start or its last checkpoint to its end, and write its manifest.

    Args:
        is_new: it began just now, and leaves nothing behind if it comes to nothing.
    """
    directory = begun.path
    check_same(
        ranks,
        "cohort, settings or kind of device",
        (cohort.hash, files.digest(config.model_dump(mode="json")), device.type),
    )
    tracker: Tracker = NullTracker()
    try:
        with noted_signals(progress) as stop:
            tracker = open_tracker(
                tracking_uri,
                kind="train",
                run_name=directory.name,
                cohort_name=cohort.name,
                cohort_hash=cohort.hash,
                synthetic=cohort.synthetic,
                tags={"objective": config.objective["name"], "preset": config.preset, "device": device.type},
                log_patient_level=log_patient_level,
                allow_remote_tracking=allow_remote_tracking,
                resume=begun.started["tracked_as"],
                journal=directory / FOLDER / TRAINING,
                progress=progress,
            )
            begun.track(tracker.run_id)
            tracker.params(recorded(flatten(config)))
            tracker.artifact(directory / CONFIG, patient_level=False)
            result = _fit(
                begun,
                config,
                cohort,
                modalities,
                device=device,
                ranks=ranks,
                stop=stop,
                tracker=tracker,
                progress=progress,
            )
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, StoppedError | KeyboardInterrupt | SystemExit) else "FAILED")
        go_on = f"`symile-clin train --resume --name {directory.name}`"
        if isinstance(error, StoppedError):
            raise StoppedError(error.found, signal=error.signal, remedy=f"Go on with {go_on}") from None
        if is_new and ranks.is_first and not begun.has_checkpoint:
            shutil.rmtree(directory, ignore_errors=True)  # nothing in it is worth keeping
        elif begun.has_checkpoint and not isinstance(error, TrainingError):  # that would only come again
            progress.say(f"Run {directory} is kept as it was at its last checkpoint: {go_on} goes on with it.")
        raise
    return ranks.first(lambda: _finish(begun, cohort, modalities, device=device, result=result, tracker=tracker))


def _finish(
    begun: Unfinished,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    *,
    device: torch.device,
    result: FitResult,
    tracker: Tracker,
) -> Run:
    directory = begun.path
    tracker.finish()  # first: a run that is killed in between is unfinished, and --resume closes both again
    files.write_manifest(
        directory,
        stage="run",
        content={
            "cohort": {"name": cohort.name, "hash": cohort.hash, "path": str(cohort.path)},
            "signature": signature(modalities),
            "best": {"epoch": result.best_epoch, "metrics": dict(result.best)},
            "tracked_as": tracker.run_id or begun.started["tracked_as"],
            "runtime": {
                "seconds": round(result.seconds, 1),
                "device": device.type,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    )
    return open_run(directory.parent, directory.name)


def _fit(
    begun: Unfinished,
    config: RunConfig,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    *,
    device: torch.device,
    ranks: Ranks,
    stop: Stop,
    tracker: Tracker,
    progress: Progress,
) -> FitResult:
    ranks.first(begun.recover)
    resume, start = ranks.first(lambda: begun.has_checkpoint), begun.init_from
    model, objective = build_model(config, modalities, pretrained=start is None and not resume)
    if start is not None and not resume:
        if weights_of(start) != config.init_from:
            raise MismatchError(f"{start} is not what run '{begun.path.name}' began with", remedy="Train anew")
        start_from(start, model, modalities)
    return fit(
        model=model,
        objective=objective,
        train=CohortDataset(cohort, modalities, cohort.rows("train")),
        val=CohortDataset(cohort, modalities, cohort.rows("val")),
        candidates=cohort.candidates("val"),
        target=str(cohort.spec["candidates"]["target"]),
        directory=begun.path,
        resume=resume,
        stop=stop,
        seed=config.seed,
        device=device,
        ranks=ranks,
        tracker=tracker,
        progress=progress,
        **config.training.model_dump(),
    )
