"""Files that are small, or say that they are, and would fill the memory: each is refused at the cost of a good file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.cohort.tree import header, waveform
from tests.faults.corrupt_images import elements, good_jpeg, picture, sized, syntax, write_good_dicom

#: What a refusal may cost beyond what the same process has held after a good file of every format.
MOST_MB: Final = 50
SIDE: Final = 5_600  #: its square is beyond 30 million pixels
IDS: Final[dict[str, Any]] = {"subject_id": 10_000_032, "study_id": 50_414_267, "dicom_id": "a"}
#: Reads good files of every format, then forks for each bomb: a process's peak never falls.
PROGRAM: Final = """
import json, os, resource, sys, warnings
from pathlib import Path
from symile_clin.errors import SymileClinError
from symile_clin.modalities.base import Refusal
from symile_clin.modalities.cxr.dicom_reader import read_dicom
from symile_clin.modalities.cxr.preprocess import read_xray
from symile_clin.modalities.ecg.preprocess import read_ecg
from symile_clin.sources.convert import convert
from symile_clin.strict import load_yaml
from tests.sources.test_catalog import SPEC

folder = Path(sys.argv[1])
fit = {"short_side": 64, "long_side": 80}
readers = {
    ".jpg": lambda path: read_xray(path, **fit),
    ".dcm": lambda path: read_dicom(path, rendering="mimic_jpg", subject_id=None, study_id=None, **fit),
    ".hea": lambda path: read_ecg(path.with_suffix("")),
    ".gz": lambda path: convert(SPEC, path, folder / "copy.out"),
    ".csv": lambda path: convert(SPEC, path, folder / "copy.out"),
    ".parquet": lambda path: convert(SPEC, path, folder / "copy.out"),
    ".yaml": load_yaml,
}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for path in sorted((folder / "good").iterdir()):
    if path.suffix in readers:
        assert not isinstance(readers[path.suffix](path), Refusal), path
found = {}
for path in sorted((folder / "bombs").iterdir()):
    if path.suffix not in readers:
        continue
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        before = peak()
        try:
            outcome = readers[path.suffix](path)
            said = str(outcome.reason) if isinstance(outcome, Refusal) else "taken"
        except SymileClinError as error:
            said = type(error).__name__
        os.write(writing, json.dumps([said, peak() - before]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found[path.name] = json.loads(pipe.read() or b'["died", 0]')
    os.waitpid(child, 0)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    _write_good(folder / "good")
    _write_images(folder / "bombs")
    _write_others(folder / "bombs", folder / "good")
    return folder


def _write_good(good: Path) -> None:
    good.mkdir()
    (good / "a.jpg").write_bytes(good_jpeg())
    write_good_dicom(good / "a.dcm", **IDS)
    (good / "a.hea").write_text(header(0, waveform()).replace("0.dat", "a.dat"))
    (good / "a.dat").write_bytes(waveform().tobytes())
    text = "id,time,value,note,day,extra\n" + "1,2150-03-01 12:00:00,1.5,a,2150-03-01,x\n" * 20_000
    (good / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (good / "a.csv").write_text(text)
    table = {name: [None] * 600_000 for name in ("time", "value", "note", "day", "extra")}
    pq.write_table(pa.table({"id": range(600_000), **table}), good / "a.parquet")
    (good / "a.yaml").write_text("a: 1\n" * 1)


def _write_images(bombs: Path) -> None:
    bombs.mkdir()
    (bombs / "65,500 x 65,500 by its header.jpg").write_bytes(sized(65_500, 65_500))
    large = picture("JPEG", (SIDE, SIDE))
    (bombs / "31 million pixels.jpg").write_bytes(large)
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    (bombs / "31 million pixels in 31 MB.jpg").write_bytes(large[:2] + comment * 480 + large[2:])
    with (bombs / "65 MB.jpg").open("wb") as file:
        file.write(good_jpeg())
        file.truncate(65 << 20)
    described: dict[str, dict[str, Any]] = {
        "65,535 x 65,535 by its header": {"Rows": 65_535, "Columns": 65_535},
        "31 million pixels of 8 bits": {
            "Rows": SIDE, "Columns": SIDE, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
            "PixelData": bytes(SIDE**2),
        },
        "31 million pixels of 16 bits": {"Rows": SIDE, "Columns": SIDE, "PixelData": bytes(2 * SIDE**2)},
    }  # fmt: skip
    for name, values in described.items():
        write_good_dicom(bombs / f"{name}.dcm", **IDS)
        elements(**values)(bombs / f"{name}.dcm")
    deflated = bombs / "80 MB deflated.dcm"
    write_good_dicom(deflated, **IDS)
    syntax(DeflatedExplicitVRLittleEndian)(deflated)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    deflated.write_bytes(deflated.read_bytes()[:400] + body)


def _write_others(bombs: Path, good: Path) -> None:
    text = (good / "a.hea").read_text()
    for name, changed in {
        "a-million-million-samples": text.replace(" 500 5000", " 500 1000000000000"),
        "a-header-of-20-MB": "#" * (20 << 20) + "\n" + text,
        "a-million-leads": text.replace(" 12 500", " 1000000 500"),
    }.items():
        (bombs / f"{name}.hea").write_text(changed.replace("a.dat", f"{name}.dat"))
        (bombs / f"{name}.dat").write_bytes((good / "a.dat").read_bytes())
    (bombs / "a line of 1 GB.csv.gz").write_bytes(gzip.compress(bytes(b"a" * (16 << 20))) * 64)
    (bombs / "a header of 1 GB.csv.gz").write_bytes(gzip.compress(b'"' + bytes(b"a," * (8 << 20))) * 64)
    with (bombs / "a hole of 2 GB.csv").open("wb") as file:
        file.write((good / "a.csv").read_bytes())
        file.truncate(2 << 30)
    whole = (good / "a.parquet").read_bytes()
    (bombs / "a footer of 2 GB.parquet").write_bytes(whole[:-8] + (0x7FFF_FFF0).to_bytes(4, "little") + b"PAR1")
    # 600,000 rows as the format writes numbers, and the most that fits into as many bytes
    assert whole.count(b"\x80\x9f\x49") > 1
    (bombs / "more rows than there are.parquet").write_bytes(whole.replace(b"\x80\x9f\x49", b"\xfe\xff\x7f"))
    (bombs / "20 MB.yaml").write_text("a: 1\n" * (4 << 20))
    (bombs / "nested.yaml").write_text("[" * 90_000)


def test_no_bomb_costs_more_memory_than_a_good_file(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[str, float]] = json.loads(done.stdout)
    bombs = {path.name for path in (folder / "bombs").iterdir() if path.suffix != ".dat"}
    assert found.keys() == bombs
    assert not {name for name, (said, _) in found.items() if said in ("taken", "died")}
    for name, (said, _) in found.items():
        if "pixels" in name or "65,5" in name or "65 MB" in name:
            assert said == "too large", name
    print(json.dumps(found, indent=1))  # the figures, with -s
    costly = {name: mb for name, (_, mb) in found.items() if mb >= MOST_MB}
    assert not costly
