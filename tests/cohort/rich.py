"""Frames of source rows with every quirk that an engine could take its own way."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import pandas as pd

from symile_clin.modalities.cxr.tables import CHEXPERT, FINDINGS, METADATA
from symile_clin.modalities.ecg.tables import RECORDS
from symile_clin.modalities.labs.tables import LABEVENTS
from symile_clin.schema import INDEX_TIME, SAMPLE_ID, SUBJECT_ID
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS
from symile_clin.sources.tables import ColumnType, TableSpec

SPECS: Final = (PATIENTS, ADMISSIONS, METADATA, CHEXPERT, RECORDS, LABEVENTS)
_DTYPES: Final[dict[ColumnType, str]] = {
    "int": "Int64", "float": "Float64", "text": "string", "time": "datetime64[us]",
}  # fmt: skip
NOON: Final = datetime(2150, 3, 1, 12)
DAY: Final = timedelta(days=1)
SUBJECTS: Final = (10_000_001, 10_000_002, 10_000_003)
#: Clocks with lost zeros, fractions, times of day that are none, and numbers that are none.
CLOCKS: Final = (
    0.0, 5.0, 59.0, 60.0, 405.0, 3600.0, 100_000.0, 120_000.0, 120_000.999, 213_014.531, 126_000.0,
    235_959.999, 235_960.0, 240_000.0, 246_000.0, -1.0, -0.5, 1e30, float("nan"), float("inf"), float("-inf"), None,
)  # fmt: skip
DATES: Final = (
    21500301,
    21500302,
    21500228,
    21500229,
    21500230,
    21501301,
    21500100,
    9991231,
    10000101,
    99991231,
    0,
    -5,
    None,
)
NUMBERS: Final = (1.0, -0.0, 0.1, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"), None)


def typed(spec: TableSpec, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as the table's used columns."""
    used = {name: kind for name, kind in spec.columns.items() if name not in spec.unused}
    columns = {}
    for name, kind in used.items():
        values = [row.get(name) for row in rows]
        if kind == "float":  # a float that is NaN is not null, which pandas' constructors would make of it
            array = pd.arrays.FloatingArray(
                pd.Series([0.0 if value is None else value for value in values], dtype="float64").to_numpy(copy=True),
                pd.Series([value is None for value in values], dtype=bool).to_numpy(copy=True),
            )
            columns[name] = pd.Series(array)
        else:
            columns[name] = pd.Series(values, dtype=_DTYPES[kind])
    return pd.DataFrame(columns)


def rich_tables() -> dict[str, pd.DataFrame]:
    """Typed rows by table name."""
    patients = [
        {"subject_id": subject, "gender": gender, "anchor_age": 60, "anchor_year": 2148, "anchor_year_group": group}
        for subject, gender, group in zip(SUBJECTS, ("F", "M", None), ("2011 - 2013", None, "é"), strict=True)
    ]
    admissions = [
        {"subject_id": subject, "hadm_id": 20_000_000 + 10 * number + one, "admittime": time, "race": "WHITE"}
        for number, subject in enumerate(SUBJECTS)
        for one, time in enumerate((NOON, NOON + DAY, NOON + timedelta(microseconds=1), None))
    ]
    images: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    study = 0
    for date in DATES:
        for clock in CLOCKS if date == DATES[0] else (0.0, 120_000.5):
            study += 1
            images.append({"dicom_id": _dicom(study), "subject_id": SUBJECTS[study % 3], "study_id": study,
                           "ViewPosition": "AP", "StudyDate": date, "StudyTime": clock})  # fmt: skip
    odd = ("PA", "LATERAL", "ap", "PA ", "", None)
    for number, view in enumerate(odd):
        images.append({**images[6], "dicom_id": _dicom(900 + number), "ViewPosition": view})
    for bad in (None, "", "x", _dicom(1).upper(), _dicom(1) + "\n", "../" + _dicom(1), _dicom(1) + "0"):
        images.append({**images[6], "dicom_id": bad})
    images += [{**images[6], "subject_id": None}, {**images[6], "study_id": None}, {**images[6], "study_id": 10**13}]
    for number in range(1, study, 2):
        findings = {FINDINGS[0]: (1.0, 0.0, -1.0, None)[number % 4], FINDINGS[3]: float(number % 3)}
        labels += [{"subject_id": SUBJECTS[number % 3], "study_id": number, **findings}] * (1 + number % 2)
    labels += [{**labels[0], FINDINGS[0]: None}, {**labels[0], "subject_id": None}, {**labels[0], FINDINGS[1]: -1.0}]
    times = (NOON, NOON - DAY, NOON + DAY, NOON + DAY + timedelta(microseconds=1), NOON - timedelta(microseconds=1),
             NOON + timedelta(microseconds=500_000), NOON - timedelta(days=7), NOON - timedelta(days=7, microseconds=1),
             datetime(1000, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999), datetime(1582, 10, 10),
             None)  # fmt: skip
    records = [
        {"subject_id": subject, "study_id": 400 + 20 * number + place, "ecg_time": time, "path": f"files/é{place}"}
        for number, subject in enumerate((*SUBJECTS, None))
        for place, time in enumerate((*times, NOON, NOON))
    ]
    records += [{**records[0], "study_id": None}, {**records[0], "path": None, "study_id": 999}]
    labs = [
        {"labevent_id": 1000 * number + 100 * place + item, "subject_id": subject, "itemid": 50_900 + item,
         "charttime": time, "valuenum": NUMBERS[(number + place + item) % len(NUMBERS)]}
        for number, subject in enumerate(SUBJECTS)
        for place, time in enumerate(times)
        for item in range(4)
    ]  # fmt: skip
    labs += [{**labs[0], "itemid": None}, {**labs[0], "labevent_id": None}, {**labs[0], "subject_id": None}]
    rows: tuple[list[dict[str, Any]], ...] = (patients, admissions, images, labels, records, labs)
    return {spec.name: typed(spec, some) for spec, some in zip(SPECS, rows, strict=True)}


def rich_index() -> pd.DataFrame:
    """Index events around the rows' times."""
    times = (NOON, NOON + DAY, NOON + timedelta(microseconds=1), None)
    rows = [(f"{subject}/{place}", subject, time) for subject in SUBJECTS for place, time in enumerate(times)]
    frame = pd.DataFrame(rows, columns=[SAMPLE_ID, SUBJECT_ID, INDEX_TIME])
    return frame.astype({SAMPLE_ID: "string", SUBJECT_ID: "Int64", INDEX_TIME: "datetime64[us]"})


def _dicom(number: int) -> str:
    return f"{number:08x}-00000000-00000000-00000000-0000abcd"
