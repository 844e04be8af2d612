"""`symile-clin export`: a run's best model as a folder that others can load, without its cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin import disk, files
from symile_clin.config import RunConfig, encoder_options, resolve_config
from symile_clin.data.store import Cohort
from symile_clin.errors import ConfigError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import Linked
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.models import build_model
from symile_clin.pipeline.runs import Run, check_fit, home_of, open_run
from symile_clin.progress import Progress
from symile_clin.report.model_card import model_card
from symile_clin.schema import (
    BEST,
    CHECKPOINTS_DIR,
    EVAL_DIR,
    EVALUATION,
    METRICS,
    RUNS_ROOT,
    SPLIT,
    SPLITS,
    STATE_DIR,
    SUBJECT_ID,
)
from symile_clin.training.checkpoint import WEIGHTS, load_weights, save_weights

EXPORTS_ROOT: Final = "exports"
#: What an exported folder says of itself.
MODEL: Final = "model.json"
CARD: Final = "README.md"
STAGE: Final = "export"
#: At most, of the card, the settings and the fitted states.
CARD_BYTES: Final = 256 << 10


@dataclass(frozen=True)
class ExportResult:
    """An exported model."""

    run: str
    path: Path
    bytes: int

    def text(self) -> str:
        """Where it is and how it is loaded."""
        return (
            f"Exported run {self.run} to {self.path} ({self.bytes / 1e6:,.1f} MB); its card is {self.path / CARD}\n"
            f'Load it: import symile_clin; model = symile_clin.load("{self.path}")'
        )

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {"run": self.run, "path": str(self.path), "bytes": self.bytes}


def export_run(*, run: str | None = None, out: Path | None = None, progress: Progress) -> ExportResult:
    """Write a run's best model with all that encoding new files takes, and its card.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        out: the folder to write; None takes exports/<run>.

    Raises:
        NotFoundError: no finished run, or its cohort is gone.
        ConfigError: the folder is there already.
        MismatchError: the cohort in the run's place is not the one it was trained on.
    """
    opened = open_run(Path(RUNS_ROOT), run)
    cohort = home_of(opened)
    modalities = modalities_of(cohort.spec)
    check_fit(opened, cohort, modalities)
    folder = out if out is not None else Path(EXPORTS_ROOT) / opened.name
    if folder.exists():
        raise ConfigError(f"{folder} is there already", remedy="Choose another folder with --out, or remove it")
    config = _portable(
        resolve_config(opened.config, source=f"the config of run '{opened.name}'", modalities=modalities), modalities
    )
    model, objective = build_model(config, modalities, pretrained=False)
    load_weights(opened.path / CHECKPOINTS_DIR / BEST, model=model, objective=objective)
    settings = config.model_dump(mode="json")
    spec = {name: _without_folders(one, cohort.spec["modalities"][name]) for name, one in modalities.items()}
    progress.say(f"Exporting run {opened.path}, trained on cohort {cohort.name}.")
    needed = disk.size(opened.path / CHECKPOINTS_DIR / BEST / WEIGHTS) + CARD_BYTES
    disk.require_space(folder, needed, what="the model")
    with files.atomic_directory(folder, needed=needed) as temporary:
        save_weights(temporary, model=model, objective=objective)
        for name in modalities:
            files.write_json(temporary / STATE_DIR / f"{name}.json", cohort.state(name))
        files.write_json(
            temporary / MODEL,
            {
                "run": opened.name,
                "config": settings,
                "modalities": spec,
                "order": list(modalities),
                "cohort": {"name": cohort.name, "hash": cohort.hash, "synthetic": cohort.synthetic},
            },
        )
        listed = [WEIGHTS, MODEL, *(f"{STATE_DIR}/{name}.json" for name in modalities)]
        card = model_card(
            name=opened.name,
            settings=settings,
            modalities=spec,
            cohort=_described(cohort),
            best=opened.manifest["best"],
            evaluations=_evaluations(opened),
            files=listed,
        )
        files.write_text(temporary / CARD, card)
        files.write_manifest(temporary, stage=STAGE, content={"files": files.listing(temporary)})
    return ExportResult(run=opened.name, path=folder, bytes=disk.size(folder))


def _portable(config: RunConfig, modalities: Mapping[str, Modality]) -> RunConfig:
    """The same model without paths of this machine: what it started from is in its weights."""
    blank = {name: one.blank().model_dump(mode="json") for name, one in encoder_options(config, modalities).items()}
    model = config.model.model_copy(update={"encoders": blank})
    return config.model_copy(update={"model": model, "init_from": None})


def _without_folders(modality: Modality, entry: Mapping[str, Any]) -> dict[str, Any]:
    portable = modality.portable_options.model_dump(mode="json") if isinstance(modality, Linked) else {}
    return {key: portable.get(key, value) for key, value in entry.items()}


def _described(cohort: Cohort) -> dict[str, Any]:
    of_split = cohort.samples.groupby(SPLIT)[SUBJECT_ID]
    return {
        "name": cohort.name,
        "hash": cohort.hash,
        "synthetic": cohort.synthetic,
        "splits": {
            split: (int(of_split.size()[split]), int(of_split.nunique()[split]))
            for split in SPLITS
            if split in of_split.groups
        },
    }


def _evaluations(run: Run) -> dict[str, tuple[Mapping[str, Any], Mapping[str, float]]]:
    """What was measured on the run's own cohort, by split, test first."""
    found = {}
    for split in ("test", "val"):
        folder = run.path / EVAL_DIR / split
        if (folder / EVALUATION).is_file():
            found[split] = (files.read_json(folder / EVALUATION), files.read_json(folder / METRICS))
    return found
