"""The chosen files, read in worker processes into arrays on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd
from numpy.lib.format import open_memmap

from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.choose import Chooser, Chosen, records
from symile_clin.cohort.opening import Outcome, read_into
from symile_clin.cohort.spec import OnUnreadable
from symile_clin.cohort.workers import Workers
from symile_clin.modalities.base import Modality, Refusal
from symile_clin.progress import Progress
from symile_clin.schema import SAMPLE_ID


def allocate(modality: Modality, folder: Path, rows: int) -> None:
    """Make the modality's arrays of zeros, the bytes reserved: a full disk shows here, not in the middle."""
    folder.mkdir(parents=True)
    for name, array in modality.arrays.items():
        if not array.fitted:
            path = folder / f"{name}.npy"
            open_memmap(path, mode="w+", dtype=array.dtype, shape=(rows, *array.shape)).flush()
            with path.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def read_chosen(
    modality: Modality,
    chosen: Chosen,
    chooser: Chooser,
    *,
    source: Path,
    folder: Path,
    slots: Mapping[str, int],
    on_unreadable: OnUnreadable,
    attrition: Attrition,
    workers: Workers,
    progress: Progress,
) -> Chosen:
    """Read every chosen event's file into the arrays in `folder`.

    Args:
        slots: sample_id -> row of the arrays.
        on_unreadable: "next" tries the next event where the room would drop the sample.

    Returns:
        Events that were read, with the scalar columns that came from their files, and why other samples have none.
    """
    done: list[pd.DataFrame] = []
    reasons = dict(chosen.reasons)
    pending = chosen.events
    with progress.track(f"reading {modality.name}", len(pending)) as advance:
        while len(pending):
            rows = records(pending)
            jobs = [(slots[row[SAMPLE_ID]], row) for row in rows]
            outcomes: list[Outcome] = []
            for outcome in workers.map(partial(read_into, modality, source, folder), jobs):
                outcomes.append(outcome)
                advance(1)
            again = []
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, Refusal):
                    attrition.refuse(modality.name, row, outcome)
                    reasons[row[SAMPLE_ID]] = str(outcome.reason)
                again.append(isinstance(outcome, Refusal) and "next" in (outcome.then, on_unreadable))
            read = [not isinstance(outcome, Refusal) for outcome in outcomes]
            scalars = pd.DataFrame([one for one in outcomes if not isinstance(one, Refusal)])
            done.append(pd.concat([pending[read].reset_index(drop=True), scalars], axis="columns"))
            if not any(again):
                break
            following = chooser.after(pending[again])
            reasons |= following.reasons
            pending = following.events
    events = pd.concat(done, ignore_index=True) if done else chosen.events
    taken = set(events[SAMPLE_ID])
    return Chosen(events, {sample: reason for sample, reason in reasons.items() if sample not in taken})
