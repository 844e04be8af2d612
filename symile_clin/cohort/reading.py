"""The chosen files, read by worker processes into shards on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.choose import Chooser, Chosen, records
from symile_clin.cohort.opening import SHARD_EVENTS, FileRead, Read, died, read_shard
from symile_clin.cohort.spec import OnUnreadable
from symile_clin.cohort.workers import Mapper
from symile_clin.modalities.base import Modality, Refusal
from symile_clin.progress import Progress
from symile_clin.schema import SAMPLE_ID


@dataclass(frozen=True)
class Shards:
    """What was read of one modality.

    Attributes:
        parts: directories with one .npy for each of the modality's arrays.
        places: by sample_id: number of the part, and row of the sample in its arrays.
        files: by sample_id: the files behind its event.
    """

    parts: list[Path]
    places: dict[str, tuple[int, int]]
    files: dict[str, tuple[FileRead, ...]]

    def rows(self, samples: pd.Series) -> NDArray[np.int64]:
        """Part and row of each sample, shape (n, 2); −1 where the modality is absent."""
        found = [self.places.get(sample, (-1, -1)) for sample in samples]
        return np.array(found, dtype=np.int64).reshape(-1, 2)


def read_chosen(
    modality: Modality,
    chosen: Chosen,
    chooser: Chooser,
    *,
    source: Path,
    work: Path,
    samples: pd.DataFrame,
    on_unreadable: OnUnreadable,
    attrition: Attrition,
    workers: Mapper,
    progress: Progress,
) -> tuple[Chosen, Shards]:
    """Read every chosen event's files.

    Args:
        work: where shards are made; those that are there are not read again.
        samples: in the order in which files are read, so that neighbours lie together.
        on_unreadable: "next" tries the next event where the room would drop the sample.

    Returns:
        Events that were read, with the scalar columns that came from their files, and why other samples have none;
        and what was read.

    Raises:
        DiskError: there is not enough room for the shards and the arrays that will be made of them.
    """
    done: list[pd.DataFrame] = []
    reasons = dict(chosen.reasons)
    shards = Shards([], {}, {})
    part_of: dict[str, int] = {}
    order = pd.Series(np.arange(len(samples)), index=samples[SAMPLE_ID])
    pending = chosen.events
    files.require_space(work, 2 * len(pending) * _row_bytes(modality) - files.size(work))
    with progress.track(f"reading {modality.name}", len(pending)) as advance:
        while len(pending):
            pending = pending.sort_values(SAMPLE_ID, key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
            rows = records(pending)
            again, scalars = np.zeros(len(rows), dtype=bool), []
            read = np.zeros(len(rows), dtype=bool)
            outcomes = workers.map(
                partial(read_shard, modality, source, work), rows, chunk=SHARD_EVENTS, died=partial(died, "drop")
            )
            for place, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
                advance(1)
                sample = row[SAMPLE_ID]
                match outcome:
                    case Refusal():
                        attrition.refuse(modality.name, row, outcome)
                        reasons[sample] = str(outcome.reason)
                        again[place] = "next" in (outcome.then, on_unreadable)
                    case Read():
                        part = part_of.setdefault(outcome.shard, len(part_of))
                        shards.places[sample] = part, outcome.position
                        shards.files[sample] = outcome.files
                        read[place] = True
                        scalars.append(outcome.scalars)
            done.append(pd.concat([pending[read].reset_index(drop=True), pd.DataFrame(scalars)], axis="columns"))
            if not again.any():
                break
            following = chooser.after(pending[again])
            reasons |= following.reasons
            pending = following.events
    shards.parts.extend(work / name for name in part_of)
    events = pd.concat(done, ignore_index=True) if done else chosen.events
    return Chosen(events, {s: reason for s, reason in reasons.items() if s not in shards.places}), shards


def _row_bytes(modality: Modality) -> int:
    return sum(
        math.prod(array.shape) * np.dtype(array.dtype).itemsize
        for array in modality.arrays.values()
        if not array.fitted
    )
