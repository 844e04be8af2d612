"""What a build will cost, before it runs: rates that were just measured on this machine times counts, most estimated.

Nothing here is exact. Times are of one reader on the machine as busy as it is now; the cache of the file system, other
users and a slower network disk move them by a factor of two or more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from symile_clin.disk import amount
from symile_clin.modalities.base import Modality
from symile_clin.pipeline.opened import Opened
from symile_clin.sources.glance import Glance

#: Of all admissions, the share that becomes samples: 11,622 of 431,231 in the paper's cohort.
PAPER_SHARE: Final = 11_622 / 431_231
#: Records that are opened to find a valid one, for each sample and for those that have none.
CHECKS_PER_SAMPLE: Final = 1.3
#: Of joins and window ranks, per million rows of all tables, with two threads (scripts/bench_cohort.py).
JOIN_SECONDS_PER_MILLION: Final = 0.25
START_SECONDS: Final = 5.0
#: What takes less is left out.
LEAST_SECONDS: Final = 0.1
WRITE_BYTES_PER_SECOND: Final = 100e6
#: The engine overshoots its limit by up to a quarter.
OVERSHOOT: Final = 1.25
BASE_BYTES: Final = 400 << 20
BYTES_PER_PROCESS: Final = 200 << 20
#: Of an index event in the books.
BYTES_PER_INDEX_EVENT: Final = 1_500


@dataclass(frozen=True)
class Part:
    """One line of the estimate.

    Attributes:
        how: from which counts and rates.
    """

    what: str
    amount: float
    how: str


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes:
        samples: that it assumes.
        assumption: why that many.
        unknown: what could not be estimated.
        seconds, disk: parts in seconds and in bytes that stay; `temporary` are bytes that go again.
        memory: bytes at the peak, of all processes.
    """

    samples: int
    assumption: str
    seconds: Sequence[Part]
    disk: Sequence[Part]
    temporary: int
    memory: int
    unknown: Sequence[str] = ()

    @property
    def total_seconds(self) -> float:
        """Of the whole build."""
        return sum(part.amount for part in self.seconds)

    @property
    def total_disk(self) -> int:
        """Bytes that must be free."""
        return round(sum(part.amount for part in self.disk)) + self.temporary

    def text(self) -> str:
        """A few lines."""
        lines = [
            f"About {duration(self.total_seconds)}, {amount(self.memory)} of memory and "
            f"{amount(self.total_disk)} of disk, for {self.samples:,} samples ({self.assumption})."
        ]
        lines += [f"  {duration(part.amount):>10}  {part.what}: {part.how}" for part in self.seconds]
        lines += [f"  {amount(part.amount):>10}  {part.what}: {part.how}" for part in self.disk]
        if self.temporary:
            lines.append(f"  {amount(self.temporary):>10}  temporary, while it runs; the engine may spill more")
        lines += [f"  {'not known':>10}  {what}" for what in self.unknown]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "samples": self.samples,
            "assumption": self.assumption,
            "seconds": round(self.total_seconds, 1),
            "memory_bytes": self.memory,
            "disk_bytes": self.total_disk,
            "temporary_bytes": self.temporary,
            "unknown": list(self.unknown),
            "parts": [
                {"what": part.what, unit: round(part.amount, 1), "how": part.how}
                for unit, parts in (("seconds", self.seconds), ("bytes", self.disk))
                for part in parts
            ],
        }


def estimate(
    modalities: Mapping[str, Modality],
    *,
    tables: Mapping[str, Glance],
    kept: frozenset[str],
    opened: Mapping[str, Opened],
    index_rows: int,
    alone: bool = False,
    synthetic: bool,
    workers: int,
    engine_bytes: int,
    unseen: Sequence[str] = (),
) -> Cost:
    """Add up what a build will cost.

    Args:
        tables: what a look at each table found.
        kept: tables whose typed copy is there already.
        opened: what a sample of each modality's files took; modalities whose files are out of reach are not in it.
        index_rows: index events.
        alone: they are of a table of the user's, and no window narrows them.
        synthetic: the sources are a synthetic tree, where nearly every admission qualifies.
        workers: processes that open files.
        engine_bytes: the engine's memory limit.
        unseen: tables that could not be looked at.
    """
    share = 1.0 if synthetic or alone else PAPER_SHARE
    samples = math.ceil(index_rows * share)
    assumption = (
        f"as if each of {index_rows:,} rows of the index table qualified"
        if alone
        else f"as if each of {index_rows:,} index events qualified: the tree is synthetic"
        if synthetic
        else f"{share:.1%} of {index_rows:,} index events, as in the paper's cohort; another spec keeps another share"
    )
    seconds = [_conversion(tables, kept), _join(tables)]
    disk = [_copies(tables, kept)]
    arrays = 0.0
    for name, modality in modalities.items():
        if name in opened:
            seconds.append(_opening(opened[name], samples, workers))
        bytes_each = sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in modality.arrays.values())
        if name in opened or modality.reads_from is None:
            arrays += samples * bytes_each
            disk.append(Part(f"{name} arrays", samples * bytes_each, f"{bytes_each:,} bytes a sample"))
    seconds.append(Part("writing", arrays * 2 / WRITE_BYTES_PER_SECOND, "arrays twice, at 100 MB a second"))
    return Cost(
        samples=samples,
        assumption=assumption,
        seconds=[part for part in seconds if part.amount >= LEAST_SECONDS],
        disk=[part for part in disk if part.amount],
        temporary=round(arrays),
        unknown=[
            *(f"table {name}: it could not be looked at" for name in unseen),
            *(f"{name} files: none could be read" for name, one in opened.items() if not one.read_seconds),
        ],
        memory=round(
            engine_bytes * OVERSHOOT + BASE_BYTES + workers * BYTES_PER_PROCESS + index_rows * BYTES_PER_INDEX_EVENT
        ),
    )


def _conversion(tables: Mapping[str, Glance], kept: frozenset[str]) -> Part:
    due = {name: one for name, one in tables.items() if name not in kept and one.convert_seconds}
    largest = max(due, key=lambda name: due[name].convert_seconds, default="")
    how = f"{len(due)} tables, {largest} the longest, at the rate of the part that was just read" if due else ""
    return Part("conversion to Parquet", sum(one.convert_seconds for one in due.values()), how)


def _join(tables: Mapping[str, Glance]) -> Part:
    millions = sum(one.rows for one in tables.values()) / 1e6
    how = f"{millions:,.1f} million rows at {JOIN_SECONDS_PER_MILLION} s a million, and {START_SECONDS:.0f} s to start"
    return Part("join", START_SECONDS + millions * JOIN_SECONDS_PER_MILLION, how)


def _copies(tables: Mapping[str, Glance], kept: frozenset[str]) -> Part:
    due = [one for name, one in tables.items() if name not in kept and one.copy_bytes]
    return Part("Parquet copies", sum(one.copy_bytes for one in due), f"{len(due)} tables, as small as their samples'")


def _opening(opened: Opened, samples: int, workers: int) -> Part:
    each = opened.check_seconds * CHECKS_PER_SAMPLE + opened.read_seconds
    how = (
        f"{samples:,} samples, {opened.check_seconds * 1e3:.1f} ms to check and {opened.read_seconds * 1e3:.1f} ms to "
        f"read one, {CHECKS_PER_SAMPLE} checks a sample, {workers} processes"
    )
    return Part(f"{opened.modality} files", samples * each / workers, how)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, to two digits."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
