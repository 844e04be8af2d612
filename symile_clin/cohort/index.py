"""Index events: what makes a sample, and the time its windows are measured from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pandas as pd

from symile_clin.cohort.named_table import read_named
from symile_clin.cohort.spec import IndexSpec
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
from symile_clin.sources.icu import ICUSTAYS
from symile_clin.sources.tables import TableSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir

#: The tables that every cohort needs: who its patients are.
INDEX_TABLES: Final = (ADMISSIONS, PATIENTS)


def index_tables(index: IndexSpec) -> tuple[TableSpec, ...]:
    """The tables of MIMIC that index events are made of; no other one of them has to be there, or is looked into."""
    match index.event:
        case "admission":
            return (replace(ADMISSIONS, unused=ADMISSIONS.unused - {index.time}), PATIENTS)
        case "icu_stay":
            return (*INDEX_TABLES, replace(ICUSTAYS, unused=ICUSTAYS.unused | {"intime", "outtime"} - {index.time}))
        case _:
            return INDEX_TABLES


def index_events(catalog: Catalog, index: IndexSpec) -> pd.DataFrame:
    """Every index event as a possible sample, in the order (subject_id, hadm_id, sample_id), null hadm_ids last.

    Returns:
        sample_id (the event's own id), subject_id, hadm_id, index_time, age, gender, race, admission_type,
        anchor_year_group. Age is that of the index time's year: anchor_age + (year − anchor_year); MIMIC codes ages
        over 89 as 91 in the anchor year. Race and type are those of the patient's admission hadm_id, null without one.

    Raises:
        SourceError: a patient, an admission or an index event is there twice.
    """
    _check_unique(catalog, ADMISSIONS.name, HADM_ID)
    _check_unique(catalog, PATIENTS.name, SUBJECT_ID)
    events = _events(catalog, index)
    admissions = catalog.table(ADMISSIONS.name).select(SUBJECT_ID, HADM_ID, RACE, ADMISSION_TYPE)
    patients = catalog.table(PATIENTS.name)
    joined = events.left_join(admissions, [SUBJECT_ID, HADM_ID]).select(*events.columns, RACE, ADMISSION_TYPE)
    joined = joined.left_join(patients, SUBJECT_ID)
    frame = catalog.frame(
        joined.select(
            **{
                SAMPLE_ID: joined[SAMPLE_ID],
                SUBJECT_ID: joined[SUBJECT_ID],
                HADM_ID: joined[HADM_ID],
                INDEX_TIME: joined[INDEX_TIME],
                AGE: joined.anchor_age + (joined[INDEX_TIME].year().cast("int64") - joined.anchor_year),
                GENDER: joined.gender,
                RACE: joined[RACE],
                ADMISSION_TYPE: joined[ADMISSION_TYPE],
                ANCHOR_YEAR_GROUP: joined.anchor_year_group,
            }
        ).order_by([SUBJECT_ID, HADM_ID, SAMPLE_ID])
    )
    # engines differ in where they put nulls
    return frame.sort_values([SUBJECT_ID, HADM_ID, SAMPLE_ID], na_position="last", kind="stable", ignore_index=True)


def _events(catalog: Catalog, index: IndexSpec) -> ir.Table:
    """sample_id, subject_id, hadm_id, index_time of every index event."""
    if index.event == "table":
        return catalog.rows(read_named(index))
    if index.event == "icu_stay":
        table, key = catalog.table(ICUSTAYS.name), ICUSTAYS.key[0]
        _check_unique(catalog, ICUSTAYS.name, key)
    else:
        table, key = catalog.table(ADMISSIONS.name), HADM_ID
    return table.select(
        **{
            SAMPLE_ID: table[key].cast("string"),
            SUBJECT_ID: table[SUBJECT_ID],
            HADM_ID: table[HADM_ID],
            INDEX_TIME: table[index.time],
        }
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
