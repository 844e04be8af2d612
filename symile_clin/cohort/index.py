"""Index events: what makes a sample, and the time its windows are measured from."""

from __future__ import annotations

from typing import Final

import pandas as pd

from symile_clin.errors import SourceError
from symile_clin.schema import (
    ADMISSION_TYPE,
    AGE,
    ANCHOR_YEAR_GROUP,
    GENDER,
    HADM_ID,
    INDEX_TIME,
    RACE,
    SAMPLE_ID,
    SUBJECT_ID,
)
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS

#: The tables they are made of.
INDEX_TABLES: Final = (ADMISSIONS, PATIENTS)


def index_events(catalog: Catalog) -> pd.DataFrame:
    """Every admission as a possible sample, in the order (subject_id, hadm_id).

    Returns:
        sample_id, subject_id, hadm_id, index_time, age, gender, race, admission_type, anchor_year_group. Age is that
        of the year of admission: anchor_age + (year − anchor_year); MIMIC codes ages over 89 as 91 in the anchor year.

    Raises:
        SourceError: a patient or an admission is there twice.
    """
    admissions = catalog.table(ADMISSIONS.name)
    patients = catalog.table(PATIENTS.name)
    _check_unique(catalog, ADMISSIONS.name, HADM_ID)
    _check_unique(catalog, PATIENTS.name, SUBJECT_ID)
    joined = admissions.left_join(patients, SUBJECT_ID)
    return catalog.frame(
        joined.select(
            **{
                SAMPLE_ID: joined.hadm_id.cast("string"),
                SUBJECT_ID: joined.subject_id,
                HADM_ID: joined.hadm_id,
                INDEX_TIME: joined.admittime,
                AGE: joined.anchor_age + (joined.admittime.year().cast("int64") - joined.anchor_year),
                GENDER: joined.gender,
                RACE: joined.race,
                ADMISSION_TYPE: joined.admission_type,
                ANCHOR_YEAR_GROUP: joined.anchor_year_group,
            }
        ).order_by([SUBJECT_ID, HADM_ID])
    )


def _check_unique(catalog: Catalog, name: str, column: str) -> None:
    table = catalog.table(name)
    counts = catalog.frame(table.aggregate(rows=table.count(), distinct=table[column].nunique())).iloc[0]
    if counts["rows"] != counts["distinct"]:
        raise SourceError(
            f"'{name}' has {counts['rows']:,} rows but {counts['distinct']:,} values of {column}",
            expected="one row each",
            remedy="Check the file against the release's SHA256SUMS.txt and download it again",
        )
