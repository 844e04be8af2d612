"""What a measurement of a run leaves: numbers, files, and lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from symile_clin.tracking import Artifact


@dataclass(frozen=True)
class Found:
    """What one measurement found and wrote.

    Attributes:
        metrics: all numbers, as in the JSON file among the artifacts.
        tracked: those of them that are worth a name in an experiment tracker.
        artifacts: the files in its directory.
        table: the same as lines for a terminal.
    """

    metrics: Mapping[str, float]
    tracked: Mapping[str, float]
    artifacts: tuple[Artifact, ...]
    table: str
