"""A build that can be cut short: what it has read is kept, and the same command goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symile_clin import files
from symile_clin.progress import Progress

WORK_DIR: Final = "shards"


@dataclass(frozen=True)
class Workplace:
    """Where a build works.

    Attributes:
        directory: to fill; it becomes the cohort.
        work: the folder in it that outlives a build that is cut short.
        died: whether a build before this one was cut short, perhaps by a file that kills the process that opens it.
    """

    directory: Path
    work: Path
    died: bool


@contextmanager
def resumable(out: Path, progress: Progress) -> Iterator[Workplace]:
    """`files.atomic_directory` for a build.

    Raises:
        BusyError: another process is building the same cohort.
        DiskError: a disk does not take it.
    """
    work = files.building(out) / WORK_DIR
    died = any(files.building(out).glob("*"))
    try:
        with files.atomic_directory(out, keep=WORK_DIR) as directory:
            if work.is_dir():
                progress.say("  going on with what a build that was cut short has read.")
            yield Workplace(directory, work, died)
    except BaseException:
        if any(work.glob("[!.]*")):
            progress.say(f"What was read is kept in {work}: the next build there need not read it again.")
        raise
