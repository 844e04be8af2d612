"""The chosen files, read by worker processes into shards on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.choose import Chooser, Chosen, records
from symile_clin.cohort.opening import SHARD_EVENTS, FileRead, Outcome, Read, died, read_shard
from symile_clin.cohort.refusals import RefusalLimit
from symile_clin.cohort.spec import OnUnreadable
from symile_clin.cohort.workers import Mapper
from symile_clin.modalities.base import Modality, Reason, Refusal
from symile_clin.progress import Progress
from symile_clin.schema import SAMPLE_ID
from symile_clin.sources.checksums import SUMS, listed_digests


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
    max_refused: float,
    attrition: Attrition,
    workers: Mapper,
    progress: Progress,
) -> tuple[Chosen, Shards]:
    """Read every chosen event's files, and hold them against the source's SHA256SUMS.txt where there is one.

    The list costs its own reading, once: the files' digests are taken in any case.

    Args:
        work: where shards are made; those that are there are not read again.
        samples: in the order in which files are read, so that neighbours lie together.
        on_unreadable: "next" tries the next event where the room would drop the sample.
        max_refused: the share of the chosen events beyond which the build stops.

    Returns:
        Events that were read, with the scalar columns that came from their files, and why other samples have none;
        and what was read.

    Raises:
        TooManyRefusedError: more are refused than the share allows.
        DiskError: the disk does not take what was read.
    """
    done: list[pd.DataFrame] = []
    reasons = dict(chosen.reasons)
    shards = Shards([], {}, {})
    part_of: dict[str, int] = {}
    order = pd.Series(np.arange(len(samples)), index=samples[SAMPLE_ID])
    limit = RefusalLimit(modality.name, "read", share=max_refused, attrition=attrition)
    listed = 0
    pending = chosen.events
    with progress.track(f"reading {modality.name}", len(pending)) as advance:
        while len(pending):
            pending = pending.sort_values(SAMPLE_ID, key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
            rows = records(pending)
            again, scalars = np.zeros(len(rows), dtype=bool), []
            read = np.zeros(len(rows), dtype=bool)
            limit.expect(len(rows))
            sums = listed_digests(source, {path for row in rows for path in modality.files(row)})
            listed += len(sums)
            outcomes = workers.map(
                partial(read_shard, modality, source, work), rows, chunk=SHARD_EVENTS, died=partial(died, "drop")
            )
            for place, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
                advance(1)
                sample = row[SAMPLE_ID]
                match _held_against(outcome, sums, modality):
                    case Refusal() as refusal:
                        attrition.refuse(modality.name, row, refusal)
                        limit.count(refusal)
                        limit.stop_if_exceeded()
                        reasons[sample] = str(refusal.reason)
                        again[place] = "next" in (refusal.then, on_unreadable)
                    case Read() as found:
                        part = part_of.setdefault(found.shard, len(part_of))
                        shards.places[sample] = part, found.position
                        shards.files[sample] = found.files
                        read[place] = True
                        scalars.append(found.scalars)
            done.append(pd.concat([pending[read].reset_index(drop=True), pd.DataFrame(scalars)], axis="columns"))
            if not again.any():
                break
            following = chooser.after(pending[again])
            reasons |= following.reasons
            pending = following.events
    if listed:
        progress.say(f"  {modality.name}: {listed:,} files were held against {SUMS}.")
    shards.parts.extend(work / name for name in part_of)
    events = pd.concat(done, ignore_index=True) if done else chosen.events
    return Chosen(events, {s: reason for s, reason in reasons.items() if s not in shards.places}), shards


def _held_against(outcome: Outcome, sums: Mapping[str, str], modality: Modality) -> Outcome:
    """What was read, unless a file of it is not what the source's list of digests says."""
    if isinstance(outcome, Read) and any(sums.get(file.path, file.sha256) != file.sha256 for file in outcome.files):
        return Refusal(Reason.CHECKSUM, f"not what {SUMS} lists", modality.after_unreadable)
    return outcome
