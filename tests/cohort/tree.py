"""Tiny hand-made MIMIC trees, and what the cohort builder makes of them."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from symile_clin.cohort.build import Assembled, assemble
from symile_clin.cohort.index import index_tables
from symile_clin.cohort.spec import CohortSpec, parse_spec
from symile_clin.cohort.workers import Workers
from symile_clin.modalities.cxr.tables import CHEXPERT, FINDINGS, METADATA
from symile_clin.modalities.ecg.preprocess import LEADS
from symile_clin.modalities.ecg.tables import RECORDS
from symile_clin.modalities.labs.tables import D_LABITEMS, LABEVENTS
from symile_clin.modalities.registry import ROOMS
from symile_clin.progress import Quiet
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS
from symile_clin.sources.icu import ICUSTAYS
from symile_clin.sources.tables import TableSpec
from symile_clin.strict import apply_overrides

ADMITTED = datetime(2150, 3, 1, 12)
HOUR = timedelta(hours=1)
TABLES = (PATIENTS, ADMISSIONS, ICUSTAYS, LABEVENTS, D_LABITEMS, METADATA, CHEXPERT, RECORDS)
DAY_AROUND = {"start": "-24h", "end": "24h", "include_start": True, "include_end": True}
SPEC: dict[str, Any] = {
    "name": "tiny",
    "index": {"event": "admission", "time": "admittime"},
    "modalities": {
        "cxr": {
            "window": {"start": "24h", "end": "72h", "include_start": False, "include_end": True},
            "take": "earliest", "short_side": 32, "long_side": 40,
        },
        "ecg": {"window": DAY_AROUND, "take": "earliest"},
        "labs": {"window": DAY_AROUND, "take": "earliest", "items": [50912, 50931]},
    },
    "require": ["cxr", "ecg", "labs"],
    "splits": {"by": "subject", "train": 0.5, "val": 0.25, "test": "rest"},
    "candidates": {"target": "cxr", "n": 2},
    "preset": "demo",
}  # fmt: skip


def jpeg(width: int = 64, height: int = 80, *, mode: str = "L", level: int = 120) -> bytes:
    """A small grey JPEG with a gradient in it."""
    ramp = np.linspace(0, level, height)[:, None] + np.linspace(0, 255 - level, width)[None]
    buffer = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def waveform(seed: int = 0) -> NDArray[np.int16]:
    """A valid raw ECG (5000, 12)."""
    return np.random.default_rng(seed).integers(-300, 300, (5000, 12)).astype(np.int16)


def header(study: int, signal: NDArray[np.int16], *, leads: Sequence[str] = LEADS) -> str:
    """A header as MIMIC writes them."""
    lines = [f"{study} 12 500 5000 12:00:00 01/03/2150"]
    for lead, column in zip(leads, signal.T, strict=True):
        checksum = int(column.sum(dtype=np.int64) + 2**15) % 2**16 - 2**15
        lines.append(f"{study}.dat 16 200.0(0)/mV 16 0 {column[0]} {checksum} 0 {lead}")
    return "\n".join(lines) + "\n"


class Tree:
    """A MIMIC tree that is filled row by row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[dict[str, Any]]] = {spec.name: [] for spec in TABLES}
        self.roots = {source: root / source for source in ("mimic_iv", "mimic_cxr", "mimic_ecg")}

    def admission(self, subject: int, hadm: int, time: datetime = ADMITTED, **patient: Any) -> None:
        """An admission, and its patient if new."""
        known = {row["subject_id"] for row in self.rows["patients"]}
        if subject not in known:
            base = {"gender": "F", "anchor_age": 60, "anchor_year": 2148, "anchor_year_group": "2011 - 2013"}
            self.rows["patients"].append({"subject_id": subject, **base, **patient})
        self.rows["admissions"].append(
            {"subject_id": subject, "hadm_id": hadm, "admittime": time, "admission_type": "URGENT", "race": "WHITE"}
        )

    def icu_stay(self, subject: int, hadm: int, stay: int, time: datetime = ADMITTED, **columns: Any) -> None:
        """An intensive care stay."""
        self.rows["icustays"].append(
            {"subject_id": subject, "hadm_id": hadm, "stay_id": stay, "intime": time, **columns}
        )

    def xray(
        self, subject: int, study: int, time: datetime, *, image: int = 0, view: str = "AP",
        content: bytes | None = None, labels: int = 1, file: bool = True, **columns: Any,
    ) -> str:  # fmt: skip
        """An image with its study's label rows; returns its dicom_id."""
        dicom_id = f"{image:08x}-00000000-00000000-00000000-{study:08x}"
        clock = float(time.strftime("%H%M%S")) + time.microsecond / 1e6
        row = {"dicom_id": dicom_id, "subject_id": subject, "study_id": study, "ViewPosition": view,
               "StudyDate": int(time.strftime("%Y%m%d")), "StudyTime": clock, **columns}  # fmt: skip
        self.rows["cxr_metadata"].append(row)
        findings = {FINDINGS[0]: 1.0}
        self.rows["cxr_chexpert"] += [{"subject_id": subject, "study_id": study, **findings}] * labels
        if file:
            path = self.roots["mimic_cxr"] / f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom_id}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg() if content is None else content)
        return dicom_id

    def ecg(
        self, subject: int, study: int, time: datetime, *, signal: NDArray[np.int16] | None = None,
        head: str | None = None, path: str | None = None,
    ) -> None:  # fmt: skip
        """A record and its row of the record list."""
        relative = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}" if path is None else path
        self.rows["ecg_records"].append(
            {"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": time, "path": relative}
        )
        if path is None:
            write_record(self.roots["mimic_ecg"] / relative, waveform(study) if signal is None else signal, head=head)

    def lab(self, subject: int, time: datetime, value: float | None = 1.0, *, item: int = 50912, **columns: Any) -> int:
        """A lab event; returns its labevent_id."""
        event = columns.pop("labevent_id", len(self.rows["labevents"]) + 1)
        self.rows["labevents"].append(
            {
                "labevent_id": event,
                "subject_id": subject,
                "itemid": item,
                "charttime": time,
                "valuenum": value,
                **columns,
            }
        )
        return int(event)

    def complete(self, subject: int, hadm: int, time: datetime = ADMITTED) -> None:
        """An admission that qualifies: studies are numbered after it."""
        self.admission(subject, hadm, time)
        self.xray(subject, 50_000_000 + hadm % 10_000_000, time + 30 * HOUR)
        self.ecg(subject, 40_000_000 + hadm % 10_000_000, time + HOUR)
        self.lab(subject, time + HOUR, float(hadm % 97))
        self.lab(subject, time + HOUR, float(hadm % 89), item=50931)

    def write(self) -> dict[str, Path]:
        """Write the tables; returns the source directories."""
        for spec in TABLES:
            if spec is ICUSTAYS and not self.rows[spec.name]:
                continue  # a module that its own users download
            suffix = "" if spec is RECORDS else ".gz"
            write_table(self.roots[spec.source] / f"{spec.path}{suffix}", spec, self.rows[spec.name])
        return self.roots


def write_record(record: Path, signal: NDArray[np.int16], *, head: str | None = None) -> None:
    """Write a WFDB record."""
    record.parent.mkdir(parents=True, exist_ok=True)
    record.with_suffix(".hea").write_text(header(int(record.name), signal) if head is None else head)
    record.with_suffix(".dat").write_bytes(signal.astype("<i2").tobytes())


def write_table(path: Path, spec: TableSpec, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with all of its format's columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(spec.columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def tiny_spec(*overrides: str) -> CohortSpec:
    """The paper's rules on two labs and small pictures."""
    return parse_spec(apply_overrides(SPEC, overrides), ROOMS, source="tiny")


def open_catalog(roots: Mapping[str, Path], cache: Path, spec: CohortSpec | None = None) -> Catalog:
    """The tree's tables, as far as a spec needs them; the tiny one's by default."""
    tables = {table.name: table for room in ROOMS.values() for table in room.tables}
    specs = [*index_tables((spec or tiny_spec()).index), *tables.values()]
    return DuckDbCatalog(ParquetCache(specs, roots=roots, directory=cache, progress=Quiet()), threads=1)


def build(tree: Tree, *overrides: str, workers: int = 1) -> Assembled:
    """Assemble the tree's samples under the tiny spec."""
    spec = tiny_spec(*overrides)
    scratch = tree.root / "scratch"
    number = len(list(tree.root.glob("scratch*")))
    with open_catalog(tree.write(), tree.root / "cache", spec) as catalog, Workers(workers) as pool:
        return assemble(
            spec, spec.make_modalities(ROOMS), catalog=catalog, work=scratch.with_name(f"scratch{number}"),
            workers=pool, progress=Quiet(),
        )  # fmt: skip


def stored(built: Assembled, name: str, array: str) -> NDArray[Any]:
    """An array that was read of a modality, in the order of the samples; zeros where it is absent."""
    parts = [np.load(part / f"{array}.npy") for part in built.shards[name].parts]
    places = built.shards[name].rows(built.samples["sample_id"])
    return np.stack([parts[part][row] if part >= 0 else np.zeros_like(parts[0][0]) for part, row in places])
