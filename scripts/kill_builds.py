"""Kill cohort builds at random moments and see whether the next one finishes them to the same bytes.

    python scripts/kill_builds.py --kills 50 --patients 120

A small synthetic tree is built once undisturbed. Then, again and again: a build (of its own process group) is killed
with SIGKILL at a random moment of the time that the undisturbed one took, and started anew; every file but the run-time
fields of manifest.json must be what it was. Prints one line a kill, and the figure; leaves with 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: The command line, with shards so small and processes so eager that a small tree has many of both.
PROGRAM = """
import sys
from symile_clin import cli
from symile_clin.cohort import reading, workers

if __name__ == "__main__":
    reading.SHARD_EVENTS = 16
    workers.WORTH_STARTING_SECONDS = 0.0
    sys.exit(cli.run(sys.argv[1:]))
"""
FOLDERS = {"--mimic-iv": "mimic-iv", "--mimic-cxr": "mimic-cxr-jpg", "--mimic-ecg": "mimic-iv-ecg"}


def main() -> int:
    """Run the experiment; 0 if every cohort was what it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="Stop after so long, whatever --kills says.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return experiment(Path(folder), options)


def experiment(folder: Path, options: argparse.Namespace) -> int:
    """Build, kill, build, compare."""
    draw = random.Random(options.seed)
    program = [sys.executable, "-c", PROGRAM]
    subprocess.run(
        [*program, "synth", str(folder / "tree"), "--patients", str(options.patients), "--quiet"], check=True
    )
    roots = [part for option, name in FOLDERS.items() for part in (option, str(folder / "tree" / name))]
    command = [
        *program,
        "cohort",
        "build",
        "demo",
        *roots,
        "--workers",
        str(options.workers),
        "--no-tracking",
        "--quiet",
    ]
    started = time.monotonic()
    subprocess.run([*command, "--out", str(folder / "undisturbed" / "c")], check=True)
    took = time.monotonic() - started
    expected = content(folder / "undisturbed" / "c")
    print(f"undisturbed: {took:.1f} s, {len(expected)} files", flush=True)
    killed = different = finished = 0
    begun = time.monotonic()
    while killed < options.kills and (options.minutes is None or time.monotonic() - begun < 60 * options.minutes):
        place = folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        out = ["--out", str(place / "c")]
        seconds = draw.uniform(0.0, took)
        process = subprocess.Popen([*command, *out], start_new_session=True)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its own group: started by this script
            killed += 1
        else:
            finished += 1
        process.wait()
        kept = len(list(place.glob(".c.building/shards/*")))
        subprocess.run([*command, *out], check=True)
        same = content(place / "c") == expected
        different += not same
        print(
            f"{killed}: killed after {seconds:.1f} s, {kept} shards kept: {'same' if same else 'DIFFERENT'}", flush=True
        )
    print(f"{killed} kills ({finished} builds were faster): {different} cohorts differ")
    return 1 if different else 0


def content(cohort: Path) -> dict[str, Any]:
    """Every file of a cohort, without what its manifest tells of the run itself."""
    found: dict[str, Any] = {
        path.relative_to(cohort).as_posix(): path.read_bytes() for path in cohort.rglob("*") if path.is_file()
    }
    manifest = json.loads(found["manifest.json"])
    del manifest["runtime"]
    found["manifest.json"] = manifest
    return found


if __name__ == "__main__":
    sys.exit(main())
