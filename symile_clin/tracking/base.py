"""The contract of a tracked run, and the tracker that records nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Artifact:
    """A file of a run that a tracker may record.

    Attributes:
        patient_level: shows single patients, so that it leaves the run's directory only where that is allowed.
    """

    path: Path
    patient_level: bool


class Tracker(Protocol):
    """One tracked run. No method raises for a store that fails: training never stops for its tracker."""

    @property
    def run_id(self) -> str | None:
        """The store's id of the run, or None where nothing is recorded."""

    def params(self, values: Mapping[str, object]) -> None:
        """Record flat settings."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels."""

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers, sent in batches."""

    def artifact(self, path: Path, *, folder: str | None = None, patient_level: bool) -> None:
        """Record a file; a patient-level one only where that is allowed."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Send what is left and close the run."""


class NullTracker:
    """Records nothing."""

    run_id: str | None = None

    def params(self, values: Mapping[str, object]) -> None:
        """Record nothing."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record nothing."""

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record nothing."""

    def artifact(self, path: Path, *, folder: str | None = None, patient_level: bool) -> None:
        """Record nothing."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Close nothing."""
