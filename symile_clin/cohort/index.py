"""Index events: what makes a sample, and the time its windows are measured from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from symile_clin.cohort.named_table import read_named
from symile_clin.cohort.spec import IndexSpec
from symile_clin.errors import SourceError
from symile_clin.modalities.linked import INDEX_ROW
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
#: Before the names of an index table's further columns, while samples are assembled.
FURTHER_COLUMN: Final = "index."
_OWN: Final = [SAMPLE_ID, SUBJECT_ID, HADM_ID, INDEX_TIME]
#: What is known of patients and admissions, with the types that engines answer in.
_KNOWN: Final[Mapping[str, str]] = {
    AGE: "Int64", GENDER: "string", RACE: "string", ADMISSION_TYPE: "string", ANCHOR_YEAR_GROUP: "string",
}  # fmt: skip


def index_tables(index: IndexSpec) -> tuple[TableSpec, ...]:
    """The tables of MIMIC that index events are made of; no other one of them has to be there, or is looked into."""
    match index.event:
        case "table" if index.time is None:
            return ()
        case "admission":
            assert index.time is not None
            return (replace(ADMISSIONS, unused=ADMISSIONS.unused - {index.time}), PATIENTS)
        case "icu_stay":
            assert index.time is not None
            return (*INDEX_TABLES, replace(ICUSTAYS, unused=ICUSTAYS.unused | {"intime", "outtime"} - {index.time}))
        case _:
            return INDEX_TABLES


def index_events(catalog: Catalog, index: IndexSpec, *, further: Sequence[str] = ()) -> pd.DataFrame:
    """Every index event as a possible sample, in the order (subject_id, hadm_id, sample_id), null hadm_ids last.

    Args:
        further: keys of a named table by which modalities are linked: its columns, or "index_row".

    Returns:
        sample_id (the event's own id), subject_id, hadm_id, index_time, age, gender, race, admission_type,
        anchor_year_group. Age is that of the index time's year: anchor_age + (year − anchor_year); MIMIC codes ages
        over 89 as 91 in the anchor year. Race and type are those of the patient's admission hadm_id, null without one.
        All these are null for a named table that stands alone (`IndexSpec.time`).
        Further keys come under `FURTHER_COLUMN` and their name.

    Raises:
        SourceError: a patient, an admission or an index event is there twice.
    """
    own = _read_own(index, further) if index.event == "table" else None
    keys = pd.DataFrame() if own is None else own.set_index(SAMPLE_ID)[[FURTHER_COLUMN + name for name in further]]
    if own is not None and index.time is None:
        nothing = pd.DataFrame(None, index=own.index, columns=list(_KNOWN)).astype(dict(_KNOWN))
        frame = own[_OWN].astype({SAMPLE_ID: "string", SUBJECT_ID: "Int64"}).join(nothing)
        return _sorted(frame).join(keys, on=SAMPLE_ID)
    _check_unique(catalog, ADMISSIONS.name, HADM_ID)
    _check_unique(catalog, PATIENTS.name, SUBJECT_ID)
    events = _events(catalog, index, own)
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
    frame = _sorted(frame)  # engines differ in where they put nulls
    return frame.join(keys, on=SAMPLE_ID) if further else frame


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values([SUBJECT_ID, HADM_ID, SAMPLE_ID], na_position="last", kind="stable", ignore_index=True)


def _read_own(index: IndexSpec, further: Sequence[str]) -> pd.DataFrame:
    """The named table, its further keys under names that no other column has."""
    columns = [name for name in further if name != INDEX_ROW]
    own = read_named(index, further=columns)
    own[INDEX_ROW] = np.arange(len(own), dtype=np.int64)
    return own[_OWN].assign(**{FURTHER_COLUMN + name: own[name] for name in further})


def _events(catalog: Catalog, index: IndexSpec, own: pd.DataFrame | None) -> ir.Table:
    """sample_id, subject_id, hadm_id, index_time of every index event; `own` are those of a named table."""
    if own is not None:
        return catalog.rows(own[_OWN])
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
            INDEX_TIME: table[str(index.time)],
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
