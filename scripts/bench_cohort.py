"""Time and memory of the join, from gzipped CSV to chosen samples, at one or more scales of MIMIC's tables.

    python scripts/bench_cohort.py                       # 0.5 % and 2 %, under a minute
    python scripts/bench_cohort.py --scale 0.01 --scale 0.1 --scale 1 --tables /tmp/tables     # full size

Tables are written once below `--tables` and found again. Each scale is built twice: from an empty cache, with every CSV
converted, and with another window on the cache that the first build left. Memory is the summed resident size (RSS)
of all processes, sampled every 50 ms.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from scripts.bench_demo import measure
from scripts.full_size_tables import FOLDERS, write_tables


def build(tables: Path, folder: Path, *overrides: str) -> tuple[float, float]:
    """Seconds and peak GiB of one build without files."""
    sources = [part for name, path in FOLDERS.items() for part in (f"--{name.replace('_', '-')}", str(tables / path))]
    rules = ["splits.by=subject", "splits.train=0.8", "splits.val=0.1", "candidates.n=2", *overrides]
    settings = [part for rule in rules for part in ("--set", rule)]
    command = ["cohort", "build", "symile_mimic", "--tables-only", "--no-tracking", "--out", "cohorts/bench"]
    return measure([*command, *sources, *settings], folder)


@click.command(help=__doc__)
@click.option("--scale", "scales", type=float, multiple=True, default=(0.005, 0.02), show_default=True)
@click.option("--tables", type=click.Path(path_type=Path), help="Where tables are kept.  [default: a temporary folder]")
def main(scales: tuple[float, ...], tables: Path | None) -> None:
    """Measure and print."""
    print(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB\n")
    print("| scale | lab events | first build: seconds | peak GiB | again, from the cache: seconds | peak GiB |")
    print("|---|---|---|---|---|---|")
    points: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as name:
        root = tables or Path(name) / "tables"
        for scale in scales:
            rows = write_tables(root / f"{scale:g}", scale=scale)
            folder = Path(name) / f"{scale:g}"
            folder.mkdir()
            first, first_peak = build(root / f"{scale:g}", folder)
            again, again_peak = build(root / f"{scale:g}", folder, "modalities.cxr.window.end=71h")
            shutil.rmtree(folder)
            points.append((rows["labevents"], first))
            figures = f"{first:.0f} | {first_peak:.1f} | {again:.0f} | {again_peak:.1f}"
            print(f"| {scale:g} | {rows['labevents']:,} | {figures} |", flush=True)
    if len(points) > 2:
        print(f"\n{linear_fit(points)}")


def linear_fit(points: list[tuple[int, float]]) -> str:
    """What a straight line through (lab events, seconds) says, and the exponent of a power law through the last two."""
    events, seconds = (np.array(values, dtype=np.float64) for values in zip(*points, strict=True))
    slope, start = np.polyfit(events, seconds, 1)
    exponent = np.log(seconds[-1] / seconds[-2]) / np.log(events[-1] / events[-2])
    return (
        f"{start:.0f} s + {slope * 1e6:.2f} s per million lab events (least squares); "
        f"between the last two scales the time grows as events^{exponent:.2f}"
    )


if __name__ == "__main__":
    main()
