"""Tables of MIMIC-CXR-JPG 2.0.0 and 2.1.0; both releases keep `2.0.0` in the file names."""

from __future__ import annotations

from typing import Final

from symile_clin.sources.tables import ColumnType, RemoteTable, TableSpec

METADATA: Final = TableSpec(
    name="cxr_metadata",
    source="mimic_cxr",
    path="mimic-cxr-2.0.0-metadata.csv",
    remote=(
        RemoteTable("physionet-data.mimic_cxr.record_list"),
        # of the DICOM headers, all text; StudyTime has its zeros
        RemoteTable(
            "physionet-data.mimic_cxr.dicom_metadata_string",
            {"dicom_id": "dicom", "ViewPosition": "ViewPosition", "StudyDate": "StudyDate", "StudyTime": "StudyTime"},
            loose=True,
        ),
    ),
    columns={
        "dicom_id": "text",
        "subject_id": "int",
        "study_id": "int",
        "PerformedProcedureStepDescription": "text",
        "ViewPosition": "text",  # AP, PA, LATERAL, LL, ... or empty
        "Rows": "int",
        "Columns": "int",
        "StudyDate": "int",  # 21800506
        "StudyTime": "float",  # HHMMSS.fff, leading zeros lost
        "ProcedureCodeSequence_CodeMeaning": "text",
        "ViewCodeSequence_CodeMeaning": "text",
        "PatientOrientationCodeSequence_CodeMeaning": "text",
    },
    key=("dicom_id",),
    unused=frozenset(
        {
            "PerformedProcedureStepDescription", "Rows", "Columns", "ProcedureCodeSequence_CodeMeaning",
            "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
        }
    ),
)  # fmt: skip

#: The 14 labels of CheXpert in the table's order; each 1.0, 0.0, -1.0 (uncertain) or empty (not mentioned).
FINDINGS: Final = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip

_FINDING_TYPES: dict[str, ColumnType] = dict.fromkeys(FINDINGS, "float")

CHEXPERT: Final = TableSpec(
    name="cxr_chexpert",
    source="mimic_cxr",
    path="mimic-cxr-2.0.0-chexpert.csv",
    remote=(RemoteTable("physionet-data.mimic_cxr.chexpert", {name: name.replace(" ", "_") for name in FINDINGS}),),
    columns={"subject_id": "int", "study_id": "int", **_FINDING_TYPES},
    key=("study_id",),
)

#: Lists of MIMIC-CXR, the same X-rays as DICOM. The synthetic tree writes them; nothing joins them.
DICOM_RECORDS: Final = TableSpec(
    name="cxr_dicom_records",
    source="mimic_cxr_dicom",
    path="cxr-record-list.csv",
    columns={"subject_id": "int", "study_id": "int", "dicom_id": "text", "path": "text"},
    key=("dicom_id",),
)
DICOM_STUDIES: Final = TableSpec(
    name="cxr_dicom_studies",
    source="mimic_cxr_dicom",
    path="cxr-study-list.csv",
    columns={"subject_id": "int", "study_id": "int", "path": "text"},
    key=("study_id",),
)
