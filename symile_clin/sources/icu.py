"""The table of intensive care stays; MIMIC-IV 2.2 and 3.1."""

from __future__ import annotations

from typing import Final

from symile_clin.sources.tables import RemoteTable, TableSpec

ICUSTAYS: Final = TableSpec(
    name="icustays",
    source="mimic_iv",
    path="icu/icustays.csv",
    remote=(RemoteTable("physionet-data.mimiciv_3_1_icu.icustays"),),
    columns={
        "subject_id": "int",
        "hadm_id": "int",
        "stay_id": "int",
        "first_careunit": "text",
        "last_careunit": "text",
        "intime": "time",
        "outtime": "time",
        "los": "float",
    },
    key=("stay_id",),
    unused=frozenset({"first_careunit", "last_careunit", "los"}),
)
