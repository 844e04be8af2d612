"""Speed, memory and disk of image and ECG preparation. Prints Markdown tables.

    python scripts/bench_files.py                                  # under a minute
    python scripts/bench_files.py --samples 11600 --tree /tmp/tree # the paper's cohort, real time on an idle machine

Files are a synthetic tree's of full size. Samples are hard links to them, each with a name of its own, so reading from
a cold disk is not measured. Rivals take turns in one process and thread; of each, the round of least CPU time counts.
Memory is the summed resident size (RSS) of all processes, sampled every 20 ms; shared pages count for each.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts are run from anywhere
from scripts.bench_demo import resident
from symile_clin.cohort.opening import SHARD_EVENTS, Outcome, Read, died, read_shard
from symile_clin.cohort.workers import Mapper, Workers
from symile_clin.modalities.base import Modality, Refusal
from symile_clin.modalities.cxr.preprocess import read_xray, stored_size
from symile_clin.modalities.ecg.preprocess import Ecg, read_ecg
from symile_clin.modalities.registry import ROOMS, released_forms
from symile_clin.progress import Quiet

SHORT, LONG = 320, 400
MEAN_JPG_BYTES = 1_500_000  #: of MIMIC-CXR-JPG: 558 GB in 377,110 files
#: Rows of the release's train, val, val_retrieval and test, and its distinct admissions.
RELEASED_ROWS, RELEASED_ADMISSIONS = 10_000 + 750 + 7_500 + 4_640, 10_000 + 750 + 464
RELEASED_BYTES = 4 * 3 * 320 * 320 + 4 * 5000 * 12 + 4 * 50 + 8 * 50
READ_FROM = {"cxr": "mimic-cxr-jpg", "ecg": "mimic-iv-ecg"}


class Peak(AbstractContextManager["Peak"]):
    """Seconds, and the largest summed RSS of this process and its children."""

    def __enter__(self) -> Peak:
        self.bytes, self._ended = 0, threading.Event()
        self._watch = threading.Thread(target=self._sample)
        self._started = time.monotonic()
        self._watch.start()
        return self

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.02):
            self.bytes = max(self.bytes, resident(me))

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started
        self._ended.set()
        self._watch.join()


def in_turns(rivals: Mapping[str, Callable[[Path], object]], files: Sequence[Path], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU a file: each rival over all files, in turns; the best round of each."""
    best = dict.fromkeys(rivals, float("inf"))
    for _, (name, read) in itertools.product(range(rounds), rivals.items()):
        started = time.process_time()
        for file in files:
            read(file)
        best[name] = min(best[name], (time.process_time() - started) / len(files) * 1000)
    return best


def full_decode(path: Path, mode: str) -> NDArray[np.uint8]:
    """Pillow's whole decode and resize; in RGB, this is how the published code opens an X-ray."""
    with Image.open(path) as image:
        picture = image if image.mode == mode else image.convert(mode)
        return np.asarray(picture.resize(stored_size(*picture.size, SHORT), Image.Resampling.BILINEAR))


def xrays(films: Sequence[Path], rounds: int) -> str:
    """Ours against Pillow."""
    rivals: dict[str, Callable[[Path], object]] = {
        "RGB": partial(full_decode, mode="RGB"),
        "grey": partial(full_decode, mode="L"),
        "ours": partial(read_xray, short_side=SHORT, long_side=LONG),
    }
    best = in_turns(rivals, films, rounds)
    differences = [np.abs(full_decode(film, "L").astype(int) - whole(film)) for film in films]
    size = sum(film.stat().st_size for film in films) / len(films) / 1e6
    return (
        f"| {size:.1f} | {best['RGB']:.1f} | {best['grey']:.1f} | {best['ours']:.1f} "
        f"| {best['RGB'] / best['ours']:.2f} | {best['grey'] / best['ours']:.2f} "
        f"| {max(one.max() for one in differences)} | {np.mean([one.mean() for one in differences]):.3f} |"
    )


def whole(film: Path) -> NDArray[np.uint8]:
    """Ours, uncropped."""
    found = read_xray(film, short_side=SHORT, long_side=4096)
    assert not isinstance(found, Refusal)
    return found


def with_less_grain(film: Path, folder: Path) -> Path:
    """The same film, blurred until its JPEG is as large as MIMIC's are on average."""
    with Image.open(film) as image:
        share = image.width * image.height / (2500 * 3050)
        for radius in np.arange(0, 3, 0.05):
            buffer = io.BytesIO()
            image.filter(ImageFilter.GaussianBlur(float(radius))).save(buffer, "JPEG", quality=95)
            if len(buffer.getvalue()) <= MEAN_JPG_BYTES * share:
                break
    (folder / film.name).write_bytes(buffer.getvalue())
    return folder / film.name


def ecgs(records: Sequence[Path], rounds: int) -> str:
    """Ours against the wfdb library."""
    import wfdb  # worker processes import this module, and their memory is measured

    rivals: dict[str, Callable[[Path], object]] = {"wfdb": lambda record: wfdb.rdrecord(str(record)), "ours": read_ecg}
    best = in_turns(rivals, records, rounds)
    for record in records:
        found = read_ecg(record)
        assert isinstance(found, Ecg)
        np.testing.assert_array_equal((found.signal - found.baseline) / found.gain, wfdb.rdrecord(str(record)).p_signal)
    return f"| {best['wfdb']:.2f} | {best['ours']:.3f} | {best['wfdb'] / best['ours']:.0f} |"


@contextmanager
def linked(files: Mapping[str, Sequence[Path]], samples: int) -> Iterator[tuple[Path, dict[str, list[dict[str, Any]]]]]:
    """A folder with `samples` X-rays and records, hard links to a few, and the events that name them."""
    with tempfile.TemporaryDirectory(dir=files["cxr"][0].parents[5]) as name:
        folder = Path(name)
        events: dict[str, list[dict[str, Any]]] = {"cxr": [], "ecg": []}
        for number, film, record in zip(
            range(samples), itertools.cycle(files["cxr"]), itertools.cycle(files["ecg"]), strict=False
        ):
            (folder / f"{number:06d}.jpg").hardlink_to(film)
            events["cxr"].append({"path": f"{number:06d}.jpg", "labelled": True})
            for suffix in (".hea", ".dat"):
                (folder / str(number)).mkdir(exist_ok=True)
                (folder / str(number) / f"{record.name}{suffix}").hardlink_to(record.with_suffix(suffix))
            events["ecg"].append({"path": f"{number}/{record.name}"})
        yield folder, events


def prepare(folder: Path, events: Mapping[str, Sequence[Mapping[str, Any]]], workers: Mapper, out: Path) -> None:
    """What a build does with chosen files: read them into shards, and join these."""
    from symile_clin.data.join import join_shards

    for name, rows in events.items():
        modality = ROOMS[name](name, ROOMS[name].Options())
        parts, places = read(modality, folder, rows, workers, out / "shards" / name)
        (out / name).mkdir(parents=True)
        for array, spec in modality.arrays.items():
            join_shards(parts, places, out / name, array, spec)


def read(
    modality: Modality, folder: Path, rows: Sequence[Mapping[str, Any]], workers: Mapper, work: Path
) -> tuple[list[Path], NDArray[np.int64]]:
    """Shards, and each event's place in them."""
    work.mkdir(parents=True)
    shard = partial(read_shard, modality, folder, work)
    outcomes: list[Outcome] = list(workers.map(shard, rows, chunk=SHARD_EVENTS, died=partial(died, "drop")))
    read = [outcome for outcome in outcomes if isinstance(outcome, Read)]
    if len(read) != len(rows):
        raise SystemExit(f"{len(rows) - len(read)} files were refused")
    shards = {name: number for number, name in enumerate(dict.fromkeys(one.shard for one in read))}
    places = np.array([(shards[one.shard], one.position) for one in read], dtype=np.int64)
    return [work / name for name in shards], places


def bytes_on_disk() -> str:
    """What a sample takes, by the arrays' own types and shapes, against the release."""
    ours = 0
    for name in released_forms():
        room = ROOMS[name]
        arrays = room(name, room.Options()).arrays.values()
        ours += sum(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays)
    ours_total, theirs = ours * RELEASED_ADMISSIONS, RELEASED_BYTES * RELEASED_ROWS
    return (
        f"| one distinct sample | {RELEASED_BYTES / 1e3:,.0f} kB | {ours / 1e3:,.0f} kB "
        f"| 1/{RELEASED_BYTES / ours:.1f} |\n"
        f"| {RELEASED_ADMISSIONS:,} admissions, as released | {theirs / 1e9:.1f} GB | {ours_total / 1e9:.1f} GB "
        f"| 1/{theirs / ours_total:.1f} |"
    )


def find_files(tree: Path) -> dict[str, list[Path]]:
    """The tree's X-rays and records that can be read."""
    films = sorted((tree / READ_FROM["cxr"]).rglob("*.jpg"))
    records = sorted(path.with_suffix("") for path in (tree / READ_FROM["ecg"]).rglob("*.hea"))
    return {
        "cxr": [film for film in films if not isinstance(read_xray(film, short_side=SHORT, long_side=LONG), Refusal)],
        "ecg": [record for record in records if isinstance(read_ecg(record), Ecg)],
    }


@click.command(help=__doc__)
@click.option("--patients", default=4, show_default=True, help="Of the synthetic tree: about two X-rays each.")
@click.option("--samples", default=512, show_default=True, help="To prepare.")
@click.option("--rounds", default=3, show_default=True, help="Of which the best is taken.")
@click.option("--small", is_flag=True, help="X-rays of 512 x 624 pixels, to see that the script runs.")
@click.option("--tree", type=click.Path(path_type=Path), help="Where the tree is kept.  [default: a temporary folder]")
def main(patients: int, samples: int, rounds: int, small: bool, tree: Path | None) -> None:
    """Measure and print."""
    from symile_clin.pipeline.synthesis import synth

    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as name:
        tree = tree or Path(name) / "tree"
        synth(out=tree, patients=patients, seed=0, full_size=not small, progress=Quiet())
        files = find_files(tree)
        films = files["cxr"][:6]
        print(
            "| X-rays, MB a file | full decode, RGB: ms | grey: ms | ours: ms | ratio to RGB | to grey | max | mean |"
        )
        print("|---|---|---|---|---|---|---|---|")
        print(xrays(films, rounds), flush=True)
        print(xrays([with_less_grain(film, Path(name)) for film in films], rounds), flush=True)
        print("\n`max` and `mean`: grey levels between ours and the grey full decode.\n")
        print("| ECGs: wfdb.rdrecord, ms | ours, ms | ratio |\n|---|---|---|")
        print(ecgs(files["ecg"][:50], rounds), flush=True)
        print("\n| processes | X-rays and ECGs prepared | seconds | a second | for 11,600: min | peak GB |")
        print("|---|---|---|---|---|---|")
        for count in range(1, cores + 1):
            with linked(files, samples) as (folder, events), Workers(count, cautious=True) as workers, Peak() as peak:
                prepare(folder, events, workers, folder / "out")
            rate = samples / peak.seconds
            figures = f"{peak.seconds:.1f} | {rate:.1f} | {11_600 / rate / 60:.1f} | {peak.bytes / 1e9:.2f}"
            print(f"| {count} | {samples:,} | {figures} |", flush=True)
    print("\n| bytes on disk | released | ours | |\n|---|---|---|---|")
    print(bytes_on_disk())


if __name__ == "__main__":
    main()
