"""Stages on disks of a chosen size: a tmpfs in a mount namespace of its own, which no other process sees.

`Session` of points.py is started in that namespace, with a few more stages; each of them is there twice, the second
time without its look for room beforehand, as if somebody else had filled the disk since.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from tests.faults import points, stages
from tests.faults.points import ROOT, Session
from tests.faults.stages import SPLIT, TRAIN, TRAINED, Stage, command

UNCHECKED: Final = "unchecked "
LARGE: Final = 1 << 30
_TRACKED: Final = [*(part for part in TRAIN if part != "--no-tracking"), "--tracking-uri", "sqlite:///store/mlflow.db"]


def _compared(session: Session, folder: Path) -> None:
    """Two runs that are evaluated."""
    stages._evaluated(session, folder)
    shutil.copytree(folder / "runs/run", folder / "runs/other")


def _spill() -> None:
    """A table that a join's engine cannot keep in memory."""
    import ibis

    from symile_clin.errors import DiskError
    from symile_clin.progress import Quiet
    from symile_clin.sources.cache import ParquetCache
    from symile_clin.sources.duckdb_catalog import DuckDbCatalog

    rows = ibis.range(0, 1_100_000).unnest().name("n").as_table()
    cache = ParquetCache([], roots={}, directory=Path("cache"), progress=Quiet())
    try:
        with DuckDbCatalog(cache, memory="64MB", threads=1) as catalog:
            catalog.keep("kept", rows.mutate(name=(rows["n"] * 7919 % 1_000_003).cast(str) + "x" * 60))
    except DiskError as error:
        print(f"symile-clin: {error}")
        raise SystemExit(error.exit_code) from None


MORE: Final[Mapping[str, Stage]] = {
    "export": Stage(command("export", "run", "--out", "exported"), stages._trained, given=TRAINED),
    "information": Stage(command("information", *SPLIT, "--no-tracking"), stages._trained, given=TRAINED),
    "audit": Stage(command("audit", *SPLIT, "--no-tracking"), stages._evaluated, given=TRAINED),
    "compare": Stage(command("compare", "run", "other", "--split", "val", "--no-tracking"), _compared, given=TRAINED),
    "tracked train": Stage(command(*_TRACKED), stages._cohort, given=TRAINED),
    "spill": Stage(_spill, stages.nothing),
}


class SmallDisk(Session):
    """A session whose `place` is a disk that can be made smaller and larger.

    Args:
        place: an empty directory, where the disk is mounted for the session and for nobody else.
    """

    def __init__(self, place: Path) -> None:
        self.place = place.resolve()

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            ["unshare", "-rm", sys.executable, "-m", "tests.faults.small_disks"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MPLBACKEND": "agg"},
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        return self

    @property
    def seen(self) -> Path:
        """The place as this process can look into it."""
        return Path(f"/proc/{self._server.pid}/root{self.place}")

    def mount(self) -> None:
        """An empty disk, large at first."""
        self._in_there("mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", str(self.place))

    def unmount(self) -> None:
        """Throw the disk away."""
        self._in_there("umount", str(self.place))

    def resize(self, size: int) -> None:
        """Let the disk be of so many bytes, at least as many as are used; 0 would be no limit."""
        self._in_there("mount", "-o", f"remount,size={max(size, 4096)}", str(self.place))

    @property
    def used(self) -> int:
        """Bytes, in whole pages."""
        found = os.statvfs(self.seen)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _in_there(self, *arguments: str) -> None:
        enter = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", str(self._server.pid), *arguments]
        subprocess.run(enter, check=True, capture_output=True, text=True)


def _without_looking(act: Callable[[], None]) -> Callable[[], None]:
    def unchecked() -> None:
        from symile_clin import disk

        disk.require_space = lambda *_, **__: None
        act()

    return unchecked


if __name__ == "__main__":
    every = {**stages.STAGES, **MORE}
    stages.STAGES = {  # type: ignore[misc]  # of this process alone
        **every,
        **{f"{UNCHECKED}{name}": replace(one, act=_without_looking(one.act)) for name, one in every.items()},
    }
    print("ready", flush=True)
    points._serve()
