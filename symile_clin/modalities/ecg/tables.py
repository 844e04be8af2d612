"""The record list of MIMIC-IV-ECG 1.0."""

from __future__ import annotations

from typing import Final

from symile_clin.sources.tables import RemoteTable, TableSpec

RECORDS: Final = TableSpec(
    name="ecg_records",
    source="mimic_ecg",
    path="record_list.csv",
    remote=(RemoteTable("physionet-data.mimiciv_ecg.record_list"),),
    columns={
        "subject_id": "int",
        "study_id": "int",
        "file_name": "text",
        "ecg_time": "time",
        "path": "text",  # of the WFDB record, without extension
    },
    key=("study_id",),
    unused=frozenset({"file_name"}),
)
