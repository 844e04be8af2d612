"""What this machine has for a build: room on the disk, cores, memory, engines."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from symile_clin.disk import amount


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        folder: the nearest folder that is there, at or above the cohort's.
        disk, memory: free bytes; memory is 0 where the system does not say.
        cores: that this process may use.
        engines: what each table engine lacks; empty if it is ready.
    """

    folder: Path
    writable: bool
    disk: int
    cores: int
    memory: int
    engines: dict[str, str]

    def text(self) -> str:
        """Two lines."""
        memory = f"{amount(self.memory)} of memory, " if self.memory else ""
        engines = ", ".join(f"{name} {lack or 'ready'}" for name, lack in self.engines.items())
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        place = "this folder" if self.folder == Path() else self.folder
        return f"{cores}, {memory}{amount(self.disk)} free in {place}\nEngines: {engines}"

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "folder": str(self.folder),
            "writable": self.writable,
            "disk_bytes": self.disk,
            "cores": self.cores,
            "memory_bytes": self.memory,
            "engines": {name: lack or "ready" for name, lack in self.engines.items()},
        }


def look_at_machine(out: Path) -> Machine:
    """What there is for a cohort in `out`, which need not be there."""
    folder = out.parent  # as it was given: what is printed goes into reports
    while not folder.is_dir():
        folder = folder.parent
    return Machine(
        folder=folder,
        writable=os.access(folder, os.W_OK | os.X_OK),
        disk=shutil.disk_usage(folder).free,
        cores=len(os.sched_getaffinity(0)),
        memory=_free_memory(),
        engines={"duckdb": "", "pyspark": _pyspark(), "bigquery": _bigquery()},
    )


def _pyspark() -> str:
    if find_spec("pyspark") is None:
        return "lacks its package (pip install 'symile-clin[spark]')"
    java = shutil.which("java") or (Path(os.environ.get("JAVA_HOME", "/nonexistent")) / "bin" / "java").is_file()
    return "" if java else "lacks Java 17 or later"


def _bigquery() -> str:
    try:
        found = find_spec("google.cloud.bigquery") is not None
    except ModuleNotFoundError:
        found = False
    return "" if found else "lacks its package (pip install 'symile-clin[bigquery]')"


def _free_memory() -> int:
    """What the system could give a process now, within the limit of its control group."""
    free = []
    try:
        text = Path("/proc/meminfo").read_text()
        free += [int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("MemAvailable:")]
    except OSError:
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free.append(max(0, int(limit) - int((group / "memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(free, default=0)
