"""What must hold of any bytes whatever: one function a reader, for hypothesis in the tests and for scripts/fuzz.py.

Each writes the bytes where its reader finds them, and fails unless they are refused in the reader's own way or read as
an independent reader reads them.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pydicom
import wfdb
from PIL import Image

from symile_clin.cohort.spec import load_spec, parse_spec
from symile_clin.cohort.window import rank_events
from symile_clin.config import load_config, resolve_config
from symile_clin.errors import ConfigError, NotFoundError, SourceError
from symile_clin.modalities.base import Modality, Refusal
from symile_clin.modalities.cxr import dicom, dicom_reader, preprocess
from symile_clin.modalities.ecg.preprocess import LEADS, SAMPLES, read_ecg
from symile_clin.modalities.registry import ROOMS, modalities_of
from symile_clin.sources.archive import open_archive
from symile_clin.sources.csv_table import read_csv
from symile_clin.sources.paths import inside
from symile_clin.sources.tables import TableSpec
from symile_clin.strict import dump_yaml
from tests.cohort.tree import ADMITTED, SPEC, header, jpeg, waveform
from tests.pipeline.tiny_cohort import ITEMS, NAMES, PRESET

SHORT, LONG = 32, 40
TABLE: Final = TableSpec(
    name="fuzzed",
    source="mimic_iv",
    path="fuzzed.csv",
    columns={"number": "int", "share": "float", "words": "text", "moment": "time"},
    key=("number",),
)


@cache
def _folder() -> Path:
    """A private folder, in memory where there is such a disk, that goes when the process does."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(prefix="fuzz", dir=memory if os.access(memory, os.W_OK) else None)
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: Final[list[tempfile.TemporaryDirectory[str]]] = []


@cache
def _record() -> Path:
    record = _folder() / "41"
    record.with_suffix(".dat").write_bytes(waveform().tobytes())
    return record


def check_header(data: bytes) -> None:
    """A WFDB header beside a whole signal: refused, or read to the same numbers as by the wfdb library."""
    record = _record()
    record.with_suffix(".hea").write_bytes(data)
    found = read_ecg(record)
    if isinstance(found, Refusal):
        return
    assert found.signal.shape == (SAMPLES, len(LEADS))
    assert found.signal.dtype == np.int16
    assert np.isfinite(found.gain)
    assert found.gain > 0
    theirs = wfdb.rdrecord(str(record), physical=False)
    columns = [theirs.sig_name.index(lead) for lead in LEADS]
    assert np.array_equal(found.signal, theirs.d_signal[:, columns])
    assert set(theirs.adc_gain) == {found.gain}
    assert set(theirs.baseline) == {found.baseline}


def check_spec(data: bytes) -> None:
    """A cohort spec: refused in words, or one that comes back equal from its own YAML."""
    path = _folder() / "spec.yaml"
    path.write_bytes(data)
    try:
        spec = load_spec(str(path), [], ROOMS)
    except (ConfigError, NotFoundError, SourceError) as error:
        _says_something(error)
        return
    again = parse_spec(spec.resolved(), ROOMS, source="its own values")
    assert again == spec
    path.write_text(dump_yaml(spec.resolved()), encoding="utf-8")
    assert load_spec(str(path), [], ROOMS) == spec


@cache
def _modalities() -> Mapping[str, Modality]:
    return modalities_of({"modalities": {name: {"room": "labs", "items": ITEMS} for name in NAMES}})


def check_config(data: bytes) -> None:
    """A training preset: refused in words, or one that comes back equal from its own YAML."""
    path = _folder() / "preset.yaml"
    path.write_bytes(data)
    try:
        config = load_config(str(path), overrides=[], objective=None, modalities=_modalities())
    except (ConfigError, NotFoundError) as error:
        _says_something(error)
        return
    again = resolve_config(config.model_dump(mode="json"), source="its own values", modalities=_modalities())
    assert again == config


def _says_something(error: Exception) -> None:
    assert len(str(error)) < 1_000_000
    assert str(error)


def check_image(data: bytes) -> None:
    """A file called .jpg or .dcm: refused, or a grey picture of the size that was asked for."""
    path = _folder() / "picture"
    path.write_bytes(data)
    for found in (
        preprocess.read_xray(path, short_side=SHORT, long_side=LONG),
        *(
            dicom_reader.read_dicom(
                path, rendering=rendering, subject_id=None, study_id=None, short_side=SHORT, long_side=LONG
            )
            for rendering in ("mimic_jpg", "voi")
        ),
    ):
        if not isinstance(found, Refusal):
            assert found.dtype == np.uint8
            assert found.ndim == 2
            assert min(found.shape) == SHORT
            assert max(found.shape) <= LONG


def check_csv(data: bytes) -> None:
    """A CSV, gzipped if it begins so: refused, or read to the values that Python's own reader finds in it."""
    packed = data.startswith(b"\x1f\x8b")
    path = _folder() / ("table.csv.gz" if packed else "table.csv")
    path.write_bytes(data)
    try:
        with open_archive(path) as archive:
            parts = [part.to_pandas(integer_object_nulls=True) for part in read_csv(TABLE, path, archive)]
    except SourceError as error:
        _says_something(error)
        return
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(TABLE.columns))
    # columns that nobody uses may hold bytes that are no text
    text = (gzip.decompress(data) if packed else data).decode("utf-8-sig", errors="surrogateescape")
    names, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert len(rows) == len(lines)
    for column, read in _READ.items():
        place = names.index(column)
        for ours, line in zip(rows[column].tolist(), lines, strict=True):
            theirs = None if line[place] == "" else read(line[place])
            assert (theirs is None and pd.isna(ours)) or ours == theirs or (ours != ours and theirs != theirs)


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "number": int, "share": float, "words": str, "moment": pd.Timestamp,
}  # fmt: skip


@cache
def _root() -> Path:
    root = _folder() / "root"
    (root / "files" / "p10").mkdir(parents=True)
    (root / "out").symlink_to(_folder())
    (root / "etc").symlink_to("/etc")
    (root / "loop").symlink_to("loop")
    (root / "files" / "again").symlink_to(root / "files" / "p10")
    return root.resolve()


def check_path(data: bytes) -> None:
    """A path that a table names: refused, or inside the source after every link is followed."""
    relative = data.decode("utf-8", errors="surrogateescape")
    found = inside(_root(), relative)
    if found is not None:
        assert os.path.commonpath([os.path.realpath(_root() / relative), _root()]) == str(_root())
        assert os.path.realpath(found) == str(found)


def seeds(target: str) -> list[bytes]:
    """Valid files to begin with."""
    return _SEEDS[target]()


def _header_seeds() -> list[bytes]:
    strict = header(41, waveform())
    loose = strict.replace(" 12 500 5000 ", "  12  500.0  5000 ").replace("200.0(0)/mV", "200(0)/mV")
    return [strict.encode(), loose.encode(), ("# comment\n" + loose).encode()]


def _spec_seeds() -> list[bytes]:
    shipped = sorted((Path(__file__).parents[2] / "cohorts").glob("*.yaml"))
    return [dump_yaml(SPEC).encode(), *(path.read_bytes() for path in shipped)]


def _config_seeds() -> list[bytes]:
    least = {"objective": {"name": "clip"}, "model": {"dim": 8}, "training": {"epochs": 1, "batch_size": 4, "lr": 1e-3}}
    return [dump_yaml(PRESET).encode(), dump_yaml(least).encode()]


def _image_seeds() -> list[bytes]:
    found = [jpeg(), jpeg(mode="RGB")]
    progressive = io.BytesIO()
    Image.new("L", (64, 80), 90).save(progressive, "JPEG", progressive=True)
    path = _folder() / "seed.dcm"
    for inverted in (False, True):
        stored = np.arange(64 * 80, dtype=np.uint16).reshape(80, 64) % 4096
        dicom.write_dicom(
            path, stored, dicom_id="a", subject_id=10000032, study_id=50000001, time=ADMITTED, view="AP",
            inverted=inverted,
        )  # fmt: skip
        found.append(path.read_bytes())
    dataset = pydicom.dcmread(path)
    dataset.WindowCenter, dataset.WindowWidth, dataset.RescaleSlope, dataset.RescaleIntercept = 2048, 3000, 2, -5
    dataset.save_as(path, enforce_file_format=True)
    return [*found, progressive.getvalue(), path.read_bytes()]


def _csv_seeds() -> list[bytes]:
    plain = (
        b'number,share,words,moment\n1,0.5,a b,2150-03-01 12:00:00\n,nan,"x, ""y""",\n-7,1e300,,2150-03-01 12:00:01\n'
    )
    return [plain, plain.replace(b"\n", b"\r\n"), gzip.compress(plain, mtime=0), b"\xef\xbb\xbf" + plain]


def check_join(data: bytes) -> None:
    """Index rows and events out of a few bytes each, full of ties, borders and nulls, against a loop over all pairs."""
    start, end, rule = (*data[:3], 0, 0, 0)[:3]
    borders = sorted({_OFFSETS[start % len(_OFFSETS)], _OFFSETS[end % len(_OFFSETS)]})
    if len(borders) < 2:
        return
    take = _TAKES[rule % 3]
    closed = {"include_start": bool(rule & 4), "include_end": bool(rule & 8)}
    rows = [data[place : place + 3] for place in range(3, len(data) - 2, 3)][:40]
    index: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for who, when, what in rows:
        subject = None if who % 8 == 7 else who % 3
        time = None if when == 255 else ADMITTED + _OFFSETS[when % len(_OFFSETS)] + ((when >> 4) % 3 - 1) * _TICK
        if what % 4 == 0:
            index.append({"sample_id": f"s{len(index)}", "subject_id": subject, "index_time": time})
        else:
            events.append({"subject_id": subject, "event_time": time, "event_id": (len(events) * 7919) % 1009,
                           "key": what % 3, "payload": len(events)})  # fmt: skip
    ranked = rank_events(
        ibis.memtable(pa.Table.from_pylist(index, schema=_INDEX)),
        ibis.memtable(pa.Table.from_pylist(events, schema=_EVENTS)),
        start=borders[0], end=borders[1], take=take, **closed,
    )  # fmt: skip
    found = _rows(ranked.select("sample_id", "key", "rank", "payload"))
    expected = _loop(index, events, start=borders[0], end=borders[1], take=take, **closed)
    assert sorted(tuple(row.values()) for row in found) == sorted(expected)


def _loop(
    index: list[dict[str, Any]], events: list[dict[str, Any]], *, start: timedelta, end: timedelta,
    include_start: bool, include_end: bool, take: str,
) -> list[tuple[Any, ...]]:  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for sample in index:
        inside_window: dict[int, list[tuple[Any, ...]]] = {}
        for event in events:
            if None in (sample["subject_id"], sample["index_time"], event["subject_id"], event["event_time"]):
                continue
            away = event["event_time"] - sample["index_time"]
            after = away > start or (include_start and away == start)
            before = away < end or (include_end and away == end)
            if event["subject_id"] == sample["subject_id"] and after and before:
                order = {"earliest": (away,), "latest": (-away,), "nearest": (abs(away), away)}[take]
                inside_window.setdefault(event["key"], []).append((*order, event["event_id"], event["payload"]))
        for key, some in inside_window.items():
            rows += [(sample["sample_id"], key, rank, one[-1]) for rank, one in enumerate(sorted(some), start=1)]
    return rows


def _rows(table: ibis.Table) -> list[dict[str, Any]]:
    """Rows of an expression, by an engine that is closed again."""
    engine = ibis.duckdb.connect(threads=1)
    try:
        rows: list[dict[str, Any]] = engine.to_pyarrow(table).to_pylist()
        return rows
    finally:
        engine.disconnect()


_TICK: Final = timedelta(microseconds=1)
_OFFSETS: Final = [timedelta(hours=hours) for hours in (0, -24, 24, 72, -48, 48, 1, 96)]
_TAKES: Final[tuple[Literal["earliest", "latest", "nearest"], ...]] = ("earliest", "latest", "nearest")
_TIME: Final = pa.timestamp("us")
_INDEX: Final = pa.schema({"sample_id": pa.string(), "subject_id": pa.int64(), "index_time": _TIME})
_EVENTS: Final = pa.schema(
    {"subject_id": pa.int64(), "event_time": _TIME, "event_id": pa.int64(), "key": pa.int64(), "payload": pa.int64()}
)


def _join_seeds() -> list[bytes]:
    """Two samples of a patient, one of nobody; events on every border and a microsecond beside it, some twice."""
    index = bytes([0, 16, 0, 0, 18, 0, 7, 16, 0])
    events = b"".join(
        bytes([0, tick << 4 | place, 1 + place % 3]) for tick in (1, 0, 2, 1) for place in range(len(_OFFSETS))
    )
    rules = ((1, 2, 0), (1, 2, 13), (2, 3, 10), (2, 3, 4))
    return [bytes([start, end, rule]) + index + events for start, end, rule in rules]


def _path_seeds() -> list[bytes]:
    return [b"files/p10/a.jpg", b"../x", b"out/x", b"loop", b"files/again/../../etc/passwd", b"/etc/passwd", b"a\0b"]


_SEEDS: Final[Mapping[str, Callable[[], list[bytes]]]] = {
    "header": _header_seeds, "spec": _spec_seeds, "config": _config_seeds, "join": _join_seeds,
    "image": _image_seeds, "csv": _csv_seeds, "path": _path_seeds,
}  # fmt: skip
TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "header": check_header, "spec": check_spec, "config": check_config, "join": check_join,
    "image": check_image, "csv": check_csv, "path": check_path,
}  # fmt: skip
