"""Tables of the hospital module that say who the patients are; MIMIC-IV 2.2 and 3.1."""

from __future__ import annotations

from typing import Final

from symile_clin.sources.tables import RemoteTable, TableSpec

PATIENTS: Final = TableSpec(
    name="patients",
    source="mimic_iv",
    path="hosp/patients.csv",
    remote=(RemoteTable("physionet-data.mimiciv_3_1_hosp.patients"),),
    columns={
        "subject_id": "int",
        "gender": "text",
        "anchor_age": "int",  # capped at 91 for those over 89
        "anchor_year": "int",
        "anchor_year_group": "text",
        "dod": "date",
    },
    key=("subject_id",),
    unused=frozenset({"dod"}),
)

ADMISSIONS: Final = TableSpec(
    name="admissions",
    source="mimic_iv",
    path="hosp/admissions.csv",
    remote=(RemoteTable("physionet-data.mimiciv_3_1_hosp.admissions"),),
    columns={
        "subject_id": "int",
        "hadm_id": "int",
        "admittime": "time",
        "dischtime": "time",
        "deathtime": "time",
        "admission_type": "text",
        "admit_provider_id": "text",
        "admission_location": "text",
        "discharge_location": "text",
        "insurance": "text",
        "language": "text",
        "marital_status": "text",
        "race": "text",
        "edregtime": "time",
        "edouttime": "time",
        "hospital_expire_flag": "int",
    },
    key=("hadm_id",),
    unused=frozenset(
        {
            "dischtime", "deathtime", "admit_provider_id", "admission_location", "discharge_location", "insurance",
            "language", "marital_status", "edregtime", "edouttime", "hospital_expire_flag",
        }
    ),
)  # fmt: skip
