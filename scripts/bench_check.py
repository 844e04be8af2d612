"""Seconds that `symile-clin cohort check` takes on sources as large as MIMIC's.

    python scripts/bench_check.py                        # a fake tree with a labevents.csv.gz of 2 GB, made in seconds
    python scripts/bench_check.py --tables /tmp/tables   # tables that scripts/bench_cohort.py wrote at scale 1

The fake table repeats one gzip member: an archive of many members is a whole archive. It is as long as a real one to
whoever reads it, and costs nothing to make. There are no images or records in either, which the check says.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from isal import igzip

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from scripts.bench_demo import COMMAND
from scripts.full_size_tables import FOLDERS, write_tables
from symile_clin.modalities.labs.tables import LABEVENTS
from symile_clin.pipeline.readiness import UNREADY

SCALE = 0.01
MEMBER_ROWS = 500_000


def fake_tree(folder: Path, *, gigabytes: float) -> int:
    """Small tables, and a labevents.csv.gz of about that size; its rows."""
    write_tables(folder, scale=SCALE)
    table = folder / FOLDERS[LABEVENTS.source] / f"{LABEVENTS.path}.gz"
    with igzip.open(table, "rt") as lines:
        header = next(lines)
        text = "".join(line for _, line in zip(range(MEMBER_ROWS), lines, strict=False))
    member = igzip.compress(text.encode(), compresslevel=1)
    times = round(gigabytes * 1e9 / len(member))
    with table.open("wb") as target:
        target.write(igzip.compress(header.encode()))
        for _ in range(times):
            target.write(member)
    return times * text.count("\n")


@click.command(help=__doc__)
@click.option("--tables", type=click.Path(path_type=Path, exists=True), help="A tree that is there already.")
@click.option("--gigabytes", type=float, default=2.0, show_default=True, help="Of the fake labevents.csv.gz.")
def main(tables: Path | None, gigabytes: float) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        tree = tables or Path(name) / "tree"
        rows = None if tables else fake_tree(tree, gigabytes=gigabytes)
        folders = {source: tree / folder for source, folder in FOLDERS.items()}
        options = [part for source, path in folders.items() for part in (f"--{source.replace('_', '-')}", str(path))]
        started = time.monotonic()
        done = subprocess.run(
            [COMMAND, "cohort", "check", "--json", "--quiet", *options], cwd=name, capture_output=True
        )
        seconds = time.monotonic() - started
        if done.returncode not in (0, UNREADY):
            raise SystemExit(done.stderr.decode())
        gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        one = json.loads(done.stdout)["tables"][LABEVENTS.name]
        there = "" if rows is None else f" of {rows / 1e6:.1f} M"
        print(f"labevents of {one['bytes'] / 1e9:.1f} GB, {one['rows'] / 1e6:.1f} M rows estimated{there}: "
              f"{seconds:.1f} s, {gib:.1f} GiB")  # fmt: skip


if __name__ == "__main__":
    main()
