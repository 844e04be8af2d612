"""A bare checkpoint as a run of ours, so that every command that takes a run takes it, too."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from symile_clin import files
from symile_clin.config import flatten
from symile_clin.data.store import Cohort
from symile_clin.encoders.lightning import read_lightning
from symile_clin.encoders.weights import load_exactly
from symile_clin.errors import ConfigError
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.models import build_model
from symile_clin.pipeline.published import own_names, published_config
from symile_clin.pipeline.runs import ADOPTED, Run, open_run, signature
from symile_clin.pipeline.tracked import open_tracker, recorded
from symile_clin.progress import Progress
from symile_clin.schema import BEST, CHECKPOINTS_DIR, CONFIG, MANIFEST
from symile_clin.strict import dump_yaml
from symile_clin.training.checkpoint import save_weights


def adopt(
    path: Path,
    *,
    root: Path,
    cohort: Cohort,
    objective: str | None,
    tracking_uri: str | None,
    allow_remote_tracking: bool,
    progress: Progress,
) -> Run:
    """The run `root/<stem of the file>` with a released checkpoint's weights; the one that is there, if it is equal.

    Args:
        path: a Lightning checkpoint of the published code.
        cohort: its modalities are what the checkpoint's encoders are for.
        objective: scores with this one instead of the checkpoint's own.

    Raises:
        NotFoundError: no such file.
        MismatchError: a file of another kind, or one that does not fit the cohort.
        ConfigError: another run has that name.
    """
    checkpoint = read_lightning(path)
    modalities = modalities_of(cohort.spec)
    state = own_names(checkpoint, modalities, source=path.name)
    config = published_config(checkpoint, modalities, source=path.name, objective=objective, progress=progress)
    origin = {"file": path.name, "sha256": files.sha256(path)}
    directory = root / path.stem
    if directory.exists():
        manifest = files.read_manifest(directory) or {}
        if manifest.get(ADOPTED) == origin and open_run(root, path.stem).config == config.model_dump(mode="json"):
            return open_run(root, path.stem)
        raise ConfigError(
            f"{directory} is another run", remedy="Give the checkpoint file another name, or remove that folder"
        )
    model, scorer = build_model(config, modalities, pretrained=False)
    load_exactly(model, state, source=path.name)
    tracker = open_tracker(
        tracking_uri,
        kind="train",
        run_name=path.stem,
        cohort_name=cohort.name,
        cohort_hash=cohort.hash,
        synthetic=cohort.synthetic,
        tags={"objective": config.objective["name"], "preset": config.preset, "trained_by": "the published code"},
        log_patient_level=False,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )
    tracker.params(recorded(flatten(config)))
    with files.atomic_directory(directory) as folder:
        files.write_text(folder / CONFIG, dump_yaml(config.model_dump(mode="json")))
        save_weights(folder / CHECKPOINTS_DIR / BEST, model=model, objective=scorer)
        files.write_manifest(
            folder,
            stage="run",
            content={
                ADOPTED: origin,
                "cohort": {"name": cohort.name, "hash": cohort.hash, "path": str(cohort.path)},
                "signature": signature(modalities),
                "best": {"epoch": (checkpoint.epoch or 0) + 1, "metrics": {}},
                "tracked_as": tracker.run_id,
                "runtime": {"seconds": 0.0, "device": "cpu", "torch": torch.__version__,
                            "python": platform.python_version()},
            },
        )  # fmt: skip
    tracker.finish()
    progress.say(f"Took {path.name} over as run {directory}.")
    assert (directory / MANIFEST).is_file()
    return open_run(root, path.stem)
