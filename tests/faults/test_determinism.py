"""Equal inputs give equal bytes: in any order of rows, on any number of threads, in any time zone, on any hash seed.

A cohort's manifest may differ in what it says of its inputs and of how it was made, and in nothing else.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from symile_clin import files
from symile_clin.modalities.cxr.tables import FINDINGS
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, TABLES, Tree, jpeg, write_table

ADMISSIONS: Final = 48
#: Two interpreters that differ in all that a user's shell may.
HERE: Final = {"TZ": "UTC", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
ELSEWHERE: Final = {"TZ": "America/New_York", "PYTHONHASHSEED": "1", "LC_ALL": "tr_TR.UTF-8"}
#: Does jobs, each in a process forked from one that has imported what they need: imports are most of the time.
PROGRAM: Final = """
import contextlib, json, os, random, sys, traceback
import duckdb, ibis.backends.duckdb, PIL.Image, pyarrow.parquet
from pathlib import Path
from symile_clin.cohort import reading, workers
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.progress import Quiet


def shuffle_listings(order):
    # the order in which a file system lists a folder is its own
    scandir, listdir = os.scandir, os.listdir

    @contextlib.contextmanager
    def scan(path="."):
        with scandir(path) as entries:
            found = list(entries)
        order.shuffle(found)
        yield iter(found)

    def names(path="."):
        found = listdir(path)
        order.shuffle(found)
        return found

    os.scandir, os.listdir = scan, names


def work(
    place, source=None, out="cohort", overrides=(), workers_=1, umask=0o022, shuffled=False, synthesize=0, **options
):
    Path(place).mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    os.umask(umask)
    if shuffled:
        shuffle_listings(random.Random(0))
    workers.WORTH_STARTING_SECONDS = 0.0
    reading.SHARD_EVENTS = 16
    if synthesize:
        synth(out=Path("tree"), patients=synthesize, seed=3, workers=workers_, progress=Quiet())
        return
    roots = {name: Path(source) / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
    build_cohort(
        spec=str(Path(source) / "tiny.yaml"), out=Path(out), overrides=overrides, workers=workers_, tracking_uri=None,
        progress=Quiet(), **roots, **options,
    )


if __name__ == "__main__":
    for job in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            try:
                work(**job)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
"""
#: Trains, evaluates and writes the report of a run on a tiny cohort.
RUN: Final = """
import os, sys
from pathlib import Path
from tests.report.evaluated import evaluated_run

os.chdir(sys.argv[1])
evaluated_run(Path.cwd())
"""


def run(program: str, argument: str, environment: Mapping[str, str]) -> None:
    """Run a program in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, argument], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=600, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def do(jobs: Sequence[Mapping[str, Any]], environment: Mapping[str, str]) -> None:
    """Do the jobs of `PROGRAM` one after the other."""
    run(PROGRAM, json.dumps(jobs, default=str), environment)


def digests(directory: Path) -> dict[str, str]:
    """The sha256 of every file below a directory."""
    return {name: str(one["sha256"]) for name, one in files.listing(directory).items()}


def cohort_digests(cohort: Path) -> dict[str, str]:
    """The sha256 of every file of a cohort; of its manifest, that of what it says beside inputs and making."""
    manifest = json.loads((cohort / "manifest.json").read_text())
    assert {"inputs", "runtime"} < set(manifest)
    own = {name: part for name, part in manifest.items() if name not in ("inputs", "runtime")}
    return {**digests(cohort), "manifest.json": files.digest(own)}


def tree_of_ties(root: Path) -> Tree:
    """A tree with whatever could let the order of its rows matter."""
    tree = Tree(root)
    for number in range(ADMISSIONS):
        subject, study = 10_000_000 + number * 2 // 3, 50_000_000 + number
        time = ADMITTED + number % 3 // 2 * 400 * HOUR  # two admissions of a patient at one time
        tree.complete(subject, 20_000_000 + number, time)
        if number % 4 == 0:  # images of one study and of another, records and values, all at one time
            for image in (3, 1, 2):
                content, view = jpeg(level=60 + 10 * image), "PA" if image == 1 else "AP"
                tree.xray(subject, study, time + 30 * HOUR, image=image, view=view, content=content)
            tree.xray(subject, study + 1000, time + 30 * HOUR, content=jpeg(level=90))
            for later in (2000, 1000):
                tree.ecg(subject, 40_000_000 + number + later, time + HOUR)
            for value in (5.0, 7.0):
                tree.lab(subject, time + HOUR, value, hadm_id=None)
            tree.lab(subject, time + HOUR, 9.0, item=50931, hadm_id=29_999_999)
        if number % 6 == 1:  # refused files, before those that are taken
            tree.xray(subject, study - 500, time + 29 * HOUR, content=jpeg()[:-9])
            tree.ecg(subject, 39_000_000 + number, time + HOUR, signal=np.zeros((5000, 12), np.int16))
    rows = tree.rows
    for table in ("labevents", "cxr_metadata", "cxr_chexpert", "ecg_records"):
        rows[table] += [dict(row) for row in rows[table][:40:7]]  # the same row again
    # and the same id with other content
    rows["labevents"] += [{**row, "valuenum": 70.0 + place} for place, row in enumerate(rows["labevents"][3:60:5])]
    rows["cxr_metadata"] += [{**row, "ViewPosition": "PA"} for row in rows["cxr_metadata"][2:40:4]]
    rows["cxr_chexpert"] += [{**row, FINDINGS[0]: -1.0, FINDINGS[3]: 1.0} for row in rows["cxr_chexpert"][1:40:3]]
    rows["ecg_records"] += [{**row, "path": rows["ecg_records"][0]["path"]} for row in rows["ecg_records"][4:30:5]]
    return tree


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tables and files three times: as they were written, shuffled, and shuffled as Parquet and plain CSV."""
    root = tmp_path_factory.mktemp("sources")
    tree = tree_of_ties(root / "as written")
    tree.write()
    # files that are refused are many here, on purpose
    (tree.root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ("on_unreadable=next", "max_refused=0.9"))))
    for seed, name in enumerate(("shuffled", "other forms")):
        order = random.Random(seed)
        shutil.copytree(tree.root, root / name)
        for table in TABLES:
            place = root / name / table.source / table.path
            packed = place.with_name(f"{place.name}.gz")
            if not (place.is_file() or packed.is_file()):
                continue
            shuffled = list(tree.rows[table.name])
            order.shuffle(shuffled)
            packed.unlink(missing_ok=True)
            write_table(place if name == "other forms" or not packed.exists() else packed, table, shuffled)
            if name == "other forms" and table.name in ("labevents", "cxr_metadata"):
                text = pd.read_csv(place, dtype=str, keep_default_na=False)
                text.to_parquet(place.with_suffix(".parquet"))
                place.unlink()
    return {path.name: path for path in root.iterdir()}


def test_a_cohorts_bytes_are_equal_whatever_is_not_its_input(sources: Mapping[str, Path], tmp_path: Path) -> None:
    """Every value of every circumstance is tried, and most pairs of them."""
    written, shuffled, others = sources["as written"], sources["shuffled"], sources["other forms"]
    do(
        [
            {"place": tmp_path / "1", "source": written, "threads": 1},
            {"place": tmp_path / "1", "source": written, "threads": 2, "out": "warm/../again", "shuffled": True},
            {"place": tmp_path / "2", "source": shuffled, "threads": 8, "umask": 0o077},
        ],
        HERE,
    )
    do(
        [
            {"place": tmp_path / "3", "source": shuffled, "threads": 2, "workers_": 2, "out": "deep/er/cohort"},
            {"place": tmp_path / "4", "source": others, "threads": 8, "shuffled": True, "memory": "64MB"},
        ],
        ELSEWHERE,
    )
    first, *rest = [cohort_digests(path.parent) for path in sorted(tmp_path.rglob("manifest.json"))]
    assert len(first) == 21
    assert len(rest) == 4
    for other in rest:
        assert other == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["modalities.cxr.take=latest", "modalities.ecg.take=latest", "modalities.labs.take=latest"],
        ["modalities.cxr.take=nearest", "modalities.ecg.take=nearest", "splits.stratify=[gender, race]"],
        ["modalities.cxr.take=all"],
        ["modalities.cxr.labelled=candidates", "on_unreadable=drop"],
        ["require={at_least: 2}"],
        ["splits={by: admission_then_drop, train: 12, val: 6, test: rest}"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_so_they_are_by_every_other_rule(sources: Mapping[str, Path], tmp_path: Path, overrides: list[str]) -> None:
    for place, environment, source in ((1, HERE, "as written"), (2, ELSEWHERE, "shuffled"), (3, HERE, "other forms")):
        job = {"place": tmp_path / str(place), "source": sources[source], "threads": place, "overrides": overrides}
        do([job], environment)
    first, second, third = [cohort_digests(path.parent) for path in sorted(tmp_path.rglob("manifest.json"))]
    assert first == second == third


@pytest.mark.slow
def test_synthetic_trees_are_equal_byte_by_byte(tmp_path: Path) -> None:
    for number, environment in enumerate((HERE, ELSEWHERE)):
        job = {"place": tmp_path / str(number), "synthesize": 5, "workers_": 1 + number, "shuffled": bool(number)}
        do([job], environment)
    assert len(digests(tmp_path / "0")) > 40
    assert digests(tmp_path / "0") == digests(tmp_path / "1")


@pytest.mark.slow
def test_so_are_a_runs_weights_measurements_figures_and_pages(tmp_path: Path) -> None:
    """On one thread: sums of floats hang on how they are shared out, which docs/scaling.md says."""
    found = []
    for number, environment in enumerate((HERE, ELSEWHERE)):
        place = tmp_path / str(number)
        place.mkdir()
        run(RUN, str(place), {**environment, "OMP_NUM_THREADS": "1"})
        found.append(digests(place / "runs" / "one"))
    first, second = found
    assert {Path(name).suffix for name in first} >= {".safetensors", ".parquet", ".npz", ".png", ".html"}
    # seconds that it took, and what holds them
    timed = {"manifest.json", "metrics.jsonl", "training.pt", "SHA256SUMS.txt"}
    assert {Path(name).name for name in first if first[name] != second.get(name)} <= timed
    assert set(first) == set(second)
    losses = []
    for number in range(2):
        lines = (tmp_path / str(number) / "runs" / "one" / "metrics.jsonl").read_text().splitlines()
        losses.append([{**json.loads(line), "train/data_wait": None} for line in lines])
    assert losses[0] == losses[1]
