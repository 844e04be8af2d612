"""A sample of a modality's files, opened by its room as a build would: how many are fine, and how long one takes."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from symile_clin.modalities.base import Modality, Reason, Refusal, Row
from symile_clin.rng import stream
from symile_clin.sources import paths
from symile_clin.sources.deadline import Deadline, within
from symile_clin.sources.sampled import SampledTables, thin

FILES: Final = 32
#: Rows of the table that names the files, of which those of `FILES` are drawn.
ROWS: Final = 4_000
SECONDS_PER_FILE: Final = 6.0
NO_ANSWER: Final = "no answer"
SEED: Final = 0


@dataclass(frozen=True)
class Opened:
    """What became of the sample.

    Attributes:
        looked_at: events whose files were asked for.
        refused: how many were refused, by reason; `Reason.MISSING` among them.
        instead: what files end in that lie where missing ones should; empty if none do.
        check_seconds, read_seconds: median of one file; 0 where none was fine.
    """

    modality: str
    looked_at: int
    fine: int
    refused: Mapping[str, int]
    instead: str
    check_seconds: float
    read_seconds: float

    @property
    def missing(self) -> int:
        """How many were not there."""
        return self.refused.get(Reason.MISSING, 0)

    def refusals(self, *, all: bool = False) -> str:
        """Reasons and counts in words; missing files only if `all` are asked for."""
        shown = [f"{reason} {n}" for reason, n in self.refused.items() if all or reason != Reason.MISSING]
        return ", ".join(shown)

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "modality": self.modality,
            "looked_at": self.looked_at,
            "fine": self.fine,
            "refused": dict(self.refused),
            "check_seconds": round(self.check_seconds, 5),
            "read_seconds": round(self.read_seconds, 5),
        }


def open_some(
    modality: Modality, samples: Mapping[str, pa.Table], root: Path, *, deadline: Deadline, seconds: float
) -> Opened:
    """Open a seeded sample of a modality's files.

    Args:
        samples: rows of its tables, of which the first names the files.
        root: the directory of its source.
        seconds: after which no more are opened.
    """
    own = Deadline(deadline.left(seconds))
    refused: Counter[str] = Counter()
    instead: Counter[str] = Counter()
    checks: list[float] = []
    reads: list[float] = []
    asked = 0
    for row in _draw(modality, samples):
        if own.left() == 0:
            break
        asked += 1
        try:
            outcome = within(own.left(SECONDS_PER_FILE), partial(_open, modality, row, root))
        except TimeoutError:
            if own.left() == 0:
                asked -= 1  # it may only have come late
            else:
                refused[NO_ANSWER] += 1
            break  # the next would not be answered either
        if isinstance(outcome, Refusal):
            refused[str(outcome.reason)] += 1
            if outcome.reason == Reason.MISSING:
                instead.update(_others(modality, row, root))
        else:
            checks.append(outcome[0])
            reads.append(outcome[1])
    return Opened(
        modality=modality.name,
        looked_at=asked,
        fine=len(reads),
        refused=dict(sorted(refused.items())),
        instead=min(instead, key=lambda suffix: -instead[suffix], default=""),
        check_seconds=statistics.median(checks) if checks else 0.0,
        read_seconds=statistics.median(reads) if reads else 0.0,
    )


def _draw(modality: Modality, samples: Mapping[str, pa.Table]) -> list[Row]:
    """Rows of events that could be chosen, as far as the tables say."""
    first = modality.tables[0].name
    with SampledTables({**samples, first: thin(samples[first], ROWS, seed=SEED)}) as tables:
        events = tables.eligible(modality.events(tables))
    possible = [row for row in events if modality.is_valid(row, None) is None]
    order = stream(SEED, "opened", modality.name).permutation(len(possible))
    return [possible[place] for place in order[:FILES]]


def _open(modality: Modality, row: Row, root: Path) -> tuple[float, float] | Refusal:
    started = time.monotonic()
    try:
        refusal = modality.is_valid(row, root)
        checked = time.monotonic()
        outcome = refusal or modality.read(row, root)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or "")
    if isinstance(outcome, Refusal):
        return outcome
    return checked - started, time.monotonic() - checked


def _others(modality: Modality, row: Row, root: Path) -> set[str]:
    """What the files end in that bear the names of an event's, but for the ending."""
    found: set[str] = set()
    for name in modality.files(row):
        path = paths.inside(root, name)
        if path is None:
            continue
        try:
            found |= {other.suffix for other in path.parent.glob(f"{path.stem}.*") if other.suffix != path.suffix}
        except OSError:
            continue
    return found
