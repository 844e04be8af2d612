"""What every command that judges a run shares: its model, opened for a cohort, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch

from symile_clin.config import RunConfig, resolve_config
from symile_clin.data.store import Cohort
from symile_clin.evaluation.found import Found
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import modalities_of
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.pipeline.models import build_model, choose_device
from symile_clin.pipeline.runs import Run, check_fit
from symile_clin.pipeline.tracked import track_results
from symile_clin.progress import Progress
from symile_clin.schema import BEST, CHECKPOINTS_DIR, Split
from symile_clin.training.checkpoint import load_weights

#: Samples encoded at once; it changes the speed and nothing else.
BATCH_SIZE: Final = 64


@dataclass(frozen=True)
class Trained:
    """A run's best checkpoint, on a device, for a cohort."""

    run: Run
    cohort: Cohort
    config: RunConfig
    modalities: Mapping[str, Modality]
    model: MultimodalEncoder
    objective: Objective
    device: torch.device

    @property
    def trained_here(self) -> bool:
        """Whether the cohort is the one the run was trained on."""
        return self.cohort.hash == str(self.run.manifest["cohort"]["hash"])

    def directory(self, kind: str, split: Split | Literal["all"]) -> Path:
        """Where what is measured of a kind on a split goes, or on all of them."""
        return self.run.path / kind / (split if self.trained_here else f"{self.cohort.name}-{split}")

    def hand_over(
        self,
        found: Found,
        directory: Path,
        *,
        kind: str,
        split: str,
        tracking_uri: str | None,
        log_patient_level: bool,
        allow_remote_tracking: bool,
        progress: Progress,
    ) -> Measured:
        """Record what was measured, if that is wanted, and say what it was.

        Args:
            kind: of measurement.
            tracking_uri: MLflow store; None records nothing.

        Raises:
            TrackingError: the store is not allowed.
        """
        if tracking_uri is not None:
            track_results(
                tracking_uri,
                kind=kind,
                run=self.run,
                cohort=self.cohort,
                metrics=found.tracked,
                artifacts=found.artifacts,
                split=split,
                trained_here=self.trained_here,
                device=self.device.type,
                log_patient_level=log_patient_level,
                allow_remote_tracking=allow_remote_tracking,
                progress=progress,
            )
        return Measured(
            run=self.run.name,
            objective=self.config.objective["name"],
            directory=directory,
            metrics=found.metrics,
            table=found.table,
        )


def open_trained(run: Run, cohort: Cohort, *, device: str) -> Trained:
    """Build a run's model and load its best checkpoint.

    Raises:
        MismatchError: a checkpoint that does not fit the cohort.
        ConfigError: no such device.
    """
    modalities = modalities_of(cohort.spec)
    check_fit(run, cohort, modalities)
    config = resolve_config(run.config, source=f"the config of run '{run.name}'", modalities=modalities)
    chosen = choose_device(device)
    model, objective = build_model(config, modalities, pretrained=False)
    load_weights(run.path / CHECKPOINTS_DIR / BEST, model=model, objective=objective)
    return Trained(run, cohort, config, modalities, model.to(chosen), objective, chosen)


@dataclass(frozen=True)
class Measured:
    """What was measured of a run on a split.

    Attributes:
        metrics: as in the JSON file of `directory`.
        table: the same for a terminal.
    """

    run: str
    objective: str
    directory: Path
    metrics: Mapping[str, float]
    table: str

    def text(self) -> str:
        """The table and where the files are."""
        return f"{self.table}\nRun {self.run} ({self.objective}); figures and numbers in {self.directory}"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "run": self.run,
            "objective": self.objective,
            "directory": str(self.directory),
            "metrics": dict(self.metrics),
        }
