"""Tables as large as MIMIC's, for benchmarks: every column of their formats, no patients behind them, no files.

Counts at scale 1 are those of MIMIC-IV 2.2, MIMIC-CXR-JPG 2.0.0, MIMIC-IV-ECG 1.0. Values are a function of the row's
number, so that equal scales are equal rows. What makes the join hard is kept: half of the lab events lack an admission,
panels share their times, images of a study share theirs, most events lie outside every window, and text columns hold
commas and quotes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
from isal import igzip

from symile_clin import files
from symile_clin.modalities.cxr.tables import CHEXPERT, FINDINGS, METADATA
from symile_clin.modalities.ecg.tables import RECORDS
from symile_clin.modalities.labs.items import SYMILE_ITEMS
from symile_clin.modalities.labs.tables import D_LABITEMS, LABEVENTS
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS
from symile_clin.sources.tables import TableSpec

FOLDERS: Final = {"mimic_iv": "mimic-iv", "mimic_cxr": "mimic-cxr-jpg", "mimic_ecg": "mimic-iv-ecg"}
#: Rows of CSV that are on disk uncompressed at a time.
CHUNK_ROWS: Final = 4_000_000
STAGE: Final = "tables"
VERSION: Final = 1


@dataclass(frozen=True)
class Filling:
    """How a table is filled.

    Attributes:
        rows: at scale 1.
        source: SQL of what rows are selected from, between {lower} and {upper}.
        columns: SQL of each column; others are left empty.
    """

    spec: TableSpec
    rows: int
    source: str
    columns: dict[str, str]


#: u(i, salt): uniform in [0, 1), a function of the row's number. pick(list, i): its elements in turn.
MACROS: Final = """
create macro u(i, salt) as (hash(i * 64 + salt) >> 11) / 9007199254740992.0;
create macro pick(list, i) as list[1 + cast(i % len(list) as int)];
create macro minutes(x) as to_minutes(cast(floor(x) as int));
"""

PATIENT: Final = Filling(
    PATIENTS,
    299_712,
    "range({lower}, {upper}) rows(i)",
    {
        "subject_id": "10000000 + i * 33",
        "gender": "if(u(i, 1) < 0.53, 'F', 'M')",
        "anchor_age": "18 + cast(floor(u(i, 2) * 73) as int)",
        "anchor_year": "2110 + cast(floor(u(i, 3) * 90) as int)",
        "anchor_year_group": "pick(['2008 - 2010', '2011 - 2013', '2014 - 2016', '2017 - 2019'], i)",
    },
)
ADMISSION: Final = Filling(
    ADMISSIONS,
    431_231,
    # six of ten patients were ever admitted
    "(select *, make_timestamp(anchor_year, 1, 1, 0, 0, 0) + minutes(u(rows.i, 4) * 3e6) as admitted "
    "from range({lower}, {upper}) rows(i) "
    "join patients on patients.i = cast(floor(rows.i * {patients} * 0.6 / {admissions}) as int)) order by i",
    {
        "subject_id": "subject_id",
        "hadm_id": "20000000 + (i * 7654321) % 9999991",
        "admittime": "admitted",
        "dischtime": "admitted + interval 5 day",
        "admission_type": "pick(['EW EMER.', 'URGENT', 'OBSERVATION ADMIT', 'ELECTIVE'], i)",
        "admission_location": "'EMERGENCY ROOM'",
        "discharge_location": "'HOME'",
        "insurance": "'Other'",
        "language": "'English'",
        "marital_status": "'MARRIED'",
        "race": "pick(['WHITE', 'BLACK/AFRICAN AMERICAN', 'ASIAN', 'UNKNOWN'], i)",
        "hospital_expire_flag": "0",
    },
)

#: Which admission an event belongs to, where any may.
ANY_ADMISSION: Final = "cast(floor(u(rows.g, 5) * {admissions}) as int)"


def _events(*, group: str, near: float, close: str, admission: str = ANY_ADMISSION) -> str:
    """Events of patients with admissions, in order.

    Args:
        group: SQL of a number that events at one time share.
        near: share of the events that lie around an admission; the others lie anywhere within three years of it.
        close: SQL of the interval from the admission to one of the near ones.
        admission: SQL of the admission's number.
    """
    return f"""(
        select rows.i, admissions.*,
            admittime + if(u(rows.g, 6) < {near}, {close}, minutes((u(rows.g, 7) - 0.5) * 3e6)) as moment
        from (select i, {group} as g from range({{lower}}, {{upper}}) events(i)) rows
        join (select * exclude (i), i as number from admissions) admissions on number = {admission}
    ) order by i"""


IMAGE: Final = Filling(
    METADATA,
    377_110,
    _events(
        group="cast(floor(i * {studies} / {images}) as int)",
        near=0.25,
        close="to_seconds(cast(floor(u(rows.g, 7) * 345600) as int))",
    ),
    {
        "dicom_id": "printf('%08x-%08x-00000000-00000000-00000000', i, (hash(i) >> 32)::bigint)",
        "subject_id": "subject_id",
        "study_id": "50000000 + cast(floor(i * {studies} / {images}) as int)",
        "PerformedProcedureStepDescription": "'CHEST (PORTABLE AP)'",
        "ViewPosition": "case when u(i, 8) < 0.39 then 'AP' when u(i, 8) < 0.65 then 'PA' "
        "when u(i, 8) < 0.95 then 'LATERAL' end",
        "Rows": "3050",
        "Columns": "2539",
        "StudyDate": "strftime(moment, '%Y%m%d')",
        "StudyTime": "cast(strftime(moment, '%H%M%S') as int) + round(u(i, 9), 3)",
        "ViewCodeSequence_CodeMeaning": "'antero-posterior'",
    },
)
STUDY: Final = Filling(
    CHEXPERT,
    227_835,
    "range({lower}, {upper}) rows(i)",
    {
        "subject_id": "10000000",
        "study_id": "50000000 + i",
        **{
            finding: f"case when u(i, {10 + n}) < 0.2 then 1.0 when u(i, {10 + n}) < 0.3 then 0.0 "
            f"when u(i, {10 + n}) < 0.34 then -1.0 end"
            for n, finding in enumerate(FINDINGS)
        },
    },
)
ECG: Final = Filling(
    RECORDS,
    800_035,
    _events(group="i", near=0.45, close="to_seconds(cast(floor((u(rows.g, 7) - 0.4) * 172800) as int))"),
    {
        "subject_id": "subject_id",
        "study_id": "40000000 + i",
        "file_name": "40000000 + i",
        "ecg_time": "moment",
        "path": "printf('files/p%d/p%d/s%d/%d', subject_id // 10000, subject_id, 40000000 + i, 40000000 + i)",
    },
)
LAB: Final = Filling(
    LABEVENTS,
    118_171_367,
    _events(
        group="i // 12",  # a panel
        near=0.75,
        close="minutes(-5000 * ln(1 - u(rows.g, 7)) - 720)",
        admission="cast(floor(rows.i * {admissions} / {labs}) as int)",
    ),
    {
        "labevent_id": "i + 1",
        "subject_id": "subject_id",
        "hadm_id": "if(u(i, 20) < 0.55, hadm_id, null)",
        "specimen_id": "i // 12 + 1",
        "itemid": f"if(u(i, 21) < 0.6, pick([{', '.join(str(item.itemid) for item in SYMILE_ITEMS)}], i), "
        "50800 + cast(floor(u(i, 22) * 1500) as int))",
        "charttime": "moment",
        "storetime": "moment + interval 40 minute",
        "value": "printf('%.1f', u(i, 23) * 100)",
        "valuenum": "if(u(i, 24) < 0.88, round(u(i, 23) * 100, 1), null)",
        "valueuom": "'mg/dL'",
        "ref_range_lower": "0",
        "ref_range_upper": "50",
        "flag": "if(u(i, 23) > 0.5, 'abnormal', null)",
        "priority": "'ROUTINE'",
        "comments": "if(u(i, 25) < 0.15, 'ESTIMATED, see \"___\" for ___.', null)",
    },
)
FILLINGS: Final = (PATIENT, ADMISSION, IMAGE, STUDY, ECG, LAB)


def write_tables(directory: Path, *, scale: float) -> dict[str, int]:
    """Write the tables, unless the directory has them at that scale.

    Returns:
        Rows by table.
    """
    found = files.read_manifest(directory)
    if found is not None and found.get("settings") == [scale, VERSION]:
        known: dict[str, int] = found["rows"]
        return known
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    rows = {filling.spec.name: max(int(filling.rows * scale), 100) for filling in FILLINGS}
    sizes = {
        "patients": rows[PATIENTS.name],
        "admissions": rows[ADMISSIONS.name],
        "studies": rows[CHEXPERT.name],
        "images": rows[METADATA.name],
        "labs": rows[LABEVENTS.name],
    }
    engine = duckdb.connect(config={"temp_directory": str(directory / "spill"), "memory_limit": "2GB"})
    engine.execute(MACROS)
    for filling in FILLINGS:
        _write(filling, directory, engine=engine, total=rows[filling.spec.name], sizes=sizes)
    _write_items(directory)
    engine.close()
    shutil.rmtree(directory / "spill", ignore_errors=True)
    files.write_manifest(directory, stage=STAGE, content={"settings": [scale, VERSION], "rows": rows})
    return rows


def _write(
    filling: Filling, directory: Path, *, engine: duckdb.DuckDBPyConnection, total: int, sizes: dict[str, int]
) -> None:
    spec = filling.spec
    given = {name: sql.format(**sizes) for name, sql in filling.columns.items()}
    select = ", ".join(f'{given.get(column, "null")} as "{column}"' for column in spec.columns)
    part = directory / "part.csv"
    suffix = "" if spec is RECORDS else ".gz"
    with _appending(directory / FOLDERS[spec.source] / f"{spec.path}{suffix}") as append:
        for lower in range(0, total, CHUNK_ROWS):
            source = filling.source.format(lower=lower, upper=min(lower + CHUNK_ROWS, total), **sizes)
            query = f"select {select} from {source}"
            if filling in (PATIENT, ADMISSION):  # later tables are of these
                engine.execute(f"create table {spec.name} as select row_number() over () - 1 as i, * from ({query})")
                query = f"select * exclude (i) from {spec.name} order by i"
            engine.execute(f"copy ({query}) to '{part}' (format csv, header {str(lower == 0).lower()})")
            append(part)
            part.unlink()


@contextmanager
def _appending(path: Path) -> Iterator[Callable[[Path], None]]:
    """Gives a function that appends a plain file to `path`, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with igzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as target:

        def append(part: Path) -> None:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)

        yield append


def _write_items(directory: Path) -> None:
    rows = "".join(f'{item.itemid},"{item.label}",{item.fluid},{item.category}\n' for item in SYMILE_ITEMS)
    path = directory / FOLDERS[D_LABITEMS.source] / D_LABITEMS.path
    files.write_text(path, ",".join(D_LABITEMS.columns) + "\n" + rows)
