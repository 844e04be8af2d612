"""Wall time and peak memory of what a newcomer runs first. `python scripts/bench_demo.py` prints a Markdown table.

Memory is the summed resident size (RSS) of the command and all its child processes, sampled every 50 ms; pages that
processes share are counted once for each, so it errs on the high side.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

COMMAND = str(Path(sys.executable).with_name("symile-clin"))


def measure(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak GiB of one command."""
    started, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen([COMMAND, *arguments], cwd=folder, stdout=log, stderr=log) as process:
            me = psutil.Process(process.pid)
            while process.poll() is None:
                peak = max(peak, resident(me))
                time.sleep(0.05)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{arguments}: {log.read().decode()}")
    return time.monotonic() - started, peak / 2**30


def resident(process: psutil.Process) -> int:
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between the listing and the look
    return total


def main() -> None:
    """Measure and print."""
    print(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB\n")
    print("| command | seconds | peak GiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        helps = [measure(["--help"], folder)[0] for _ in range(11)]
        print(f"| `symile-clin --help` (median of 11) | {statistics.median(helps):.2f} | |", flush=True)
        for arguments in (["synth", "tree", "--patients", "400"], ["demo"]):
            seconds, gib = measure(arguments, folder)
            print(f"| `symile-clin {' '.join(arguments)}` | {seconds:.0f} | {gib:.1f} |", flush=True)


if __name__ == "__main__":
    main()
