"""Writes synthetic patients as the file trees that MIMIC's releases unpack to.

Patients are drawn one by one from their own random streams and written in chunks by several processes; tables are
joined from the chunks in the order of the patients, so the bytes are the same for any number of processes and memory
does not grow with the number of patients.
"""

from __future__ import annotations

import csv
import gzip
import io
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from symile_clin import disk
from symile_clin.modalities.base import Modality
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient
from symile_clin.progress import Progress
from symile_clin.rng import stream
from symile_clin.schema import HADM_ID, TRUTH
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS
from symile_clin.sources.icu import ICUSTAYS
from symile_clin.sources.tables import ColumnType, TableSpec
from symile_clin.synthetic.patients import draw_patient, hospital_rows, icu_rows
from symile_clin.synthetic.truth import Planting

#: Where in the tree each source lies, under the name its release has.
DIRECTORIES: Final[Mapping[str, str]] = {
    "mimic_iv": "mimic-iv",
    "mimic_cxr": "mimic-cxr-jpg",
    "mimic_cxr_dicom": "mimic-cxr",
    "mimic_ecg": "mimic-iv-ecg",
}
#: The sources whose tables are released without gzip.
PLAIN_TABLES: Final = frozenset({"mimic_ecg"})
CHUNK: Final = 20  #: patients
#: Chunks in flight per process: enough to keep it busy, few enough to hold no more than that in memory.
AHEAD: Final = 4
#: Later patients may have more admissions than the first ones.
MARGIN: Final = 1.25


@dataclass(frozen=True)
class _Writer:
    """What a process needs to write any chunk."""

    out: Path
    modalities: tuple[Modality, ...]
    planting: Planting
    patients: int
    seed: int
    options: SyntheticOptions

    def __call__(self, first: int) -> _Chunk:
        """Write the files of the chunk that starts with patient `first`; encode its rows."""
        rows: dict[str, list[Mapping[str, Any]]] = {}
        truth: list[dict[str, int]] = []
        for index in range(first, min(first + CHUNK, self.patients)):
            patient = draw_patient(seed=self.seed, index=index, patients=self.patients, planting=self.planting)
            written = [
                hospital_rows(patient, stream(self.seed, "hospital", index)),
                icu_rows(patient, stream(self.seed, "icu", index)),
            ]
            for modality in self.modalities:
                source = self.out / DIRECTORIES[modality.tables[0].source]
                rng = stream(self.seed, "room", modality.name, index)
                written.append(modality.write_synthetic(patient, source, rng, self.options))
            for tables in written:
                for name, more in tables.items():
                    rows.setdefault(name, []).extend(more)
            truth.extend(_truth(patient, self.planting))
        specs = {spec.name: spec for spec in table_specs(self.modalities)}
        return _Chunk(
            patients=min(CHUNK, self.patients - first),
            tables={name: encode(specs[name], more) for name, more in rows.items() if more},
            rows={name: len(more) for name, more in rows.items()},
            truth=truth,
        )


@dataclass(frozen=True)
class _Chunk:
    """Encoded rows of some patients' tables and their planted factors."""

    patients: int
    tables: Mapping[str, bytes]
    rows: Mapping[str, int]
    truth: Sequence[Mapping[str, int]]


def write_tree(
    out: Path,
    *,
    modalities: Sequence[Modality],
    planting: Planting,
    patients: int,
    seed: int,
    options: SyntheticOptions,
    workers: int,
    progress: Progress,
) -> dict[str, int]:
    """Write the trees of all sources and truth.parquet into the empty directory `out`.

    Args:
        modalities: the planting's target and queries, whose rooms write their own files.
        workers: processes; with 1 everything happens in this one.

    Returns:
        Number of rows by table.
    """
    writer = _Writer(out, tuple(modalities), planting, patients, seed, options)
    specs = {spec.name: spec for spec in table_specs(modalities)}
    fixed = {name: rows for modality in modalities for name, rows in modality.synthetic_tables().items()}
    optional = {spec.name for modality in modalities for spec in modality.synthetic_only} - fixed.keys()
    counts: Counter[str] = Counter({name: len(fixed.get(name, ())) for name in specs.keys() - optional})
    with ExitStack() as stack:
        tables = {name: _start(out, specs[name], fixed.get(name, ()), stack) for name in specs.keys() - optional}
        truth = stack.enter_context(pq.ParquetWriter(out / TRUTH, _truth_schema(planting)))
        advance = stack.enter_context(progress.track("Writing patients", patients))
        for chunk in _chunks(writer, patients, workers):
            for name, encoded in chunk.tables.items():
                if name not in tables:
                    tables[name] = _start(out, specs[name], (), stack)
                tables[name].write(encoded)
            counts.update(chunk.rows)
            truth.write_table(pa.Table.from_pylist(list(chunk.truth), schema=truth.schema))
            advance(chunk.patients)
    return {name: counts[name] for name in specs if name in tables}


def table_specs(modalities: Iterable[Modality]) -> list[TableSpec]:
    """Every table that the tree can hold, those of the hospital first."""
    specs = {spec.name: spec for spec in (PATIENTS, ADMISSIONS, ICUSTAYS)}
    for modality in modalities:
        specs |= {spec.name: spec for spec in (*modality.tables, *modality.synthetic_only)}
    return list(specs.values())


def encode(spec: TableSpec, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as CSV text in the format's column order, a gzip member where the release is gzipped."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = list(spec.columns.items())
    writer.writerows([_text(row.get(column), kind) for column, kind in kinds] for row in rows)
    return _compress(spec, text.getvalue())


def _header(spec: TableSpec) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(spec.columns)
    return _compress(spec, text.getvalue())


def _compress(spec: TableSpec, text: str) -> bytes:
    # members concatenate to one valid file; no time in them, so that equal rows are equal bytes
    return text.encode() if spec.source in PLAIN_TABLES else gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _text(value: Any, kind: ColumnType) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d" if kind == "date" else "%Y-%m-%d %H:%M:%S")
    return str(value)


def _start(out: Path, spec: TableSpec, rows: Sequence[Mapping[str, Any]], stack: ExitStack) -> BinaryIO:
    """Open a table and write its header and the rows that belong to no patient."""
    suffix = "" if spec.source in PLAIN_TABLES else ".gz"
    path = out / DIRECTORIES[spec.source] / f"{spec.path}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = stack.enter_context(path.open("wb"))
    table.write(_header(spec))
    if rows:
        table.write(encode(spec, rows))
    return table


def _chunks(writer: _Writer, patients: int, workers: int) -> Iterator[_Chunk]:
    """Chunks in the order of the patients, the first of which tells how much room the others will take.

    Raises:
        DiskError: there is not enough.
    """
    first = writer(0)
    yield first
    done = disk.size(writer.out, on_disk=True) + sum(map(len, first.tables.values()))
    disk.require_space(
        writer.out,
        round(MARGIN * done * (patients - first.patients) / first.patients),
        what=f"{patients - first.patients:,} more patients",
    )
    starts = range(CHUNK, patients, CHUNK)
    if workers == 1 or not starts:
        yield from map(writer, starts)
        return
    # Fresh processes: a fork would copy whatever threads and libraries the caller has.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(starts)), mp_context=context, initializer=_leave_interrupts_to_parent)
    waiting: deque[Future[_Chunk]] = deque()
    try:
        for start in starts:
            waiting.append(pool.submit(writer, start))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _truth(patient: SyntheticPatient, planting: Planting) -> Iterator[dict[str, int]]:
    for admission in patient.admissions:
        factors = {f"{name}_{j}": bit for name in planting.factors for j, bit in enumerate(admission.factors[name])}
        yield {HADM_ID: admission.hadm_id, **factors}


def _truth_schema(planting: Planting) -> pa.Schema:
    columns = [f"{name}_{j}" for name, count in planting.factors.items() for j in range(count)]
    return pa.schema([(HADM_ID, pa.int64()), *((column, pa.int8()) for column in columns)])
