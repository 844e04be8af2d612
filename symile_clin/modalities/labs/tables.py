"""Laboratory tables of the hospital module; MIMIC-IV 2.2 and 3.1."""

from __future__ import annotations

from typing import Final

from symile_clin.sources.tables import RemoteTable, TableSpec

LABEVENTS: Final = TableSpec(
    name="labevents",
    source="mimic_iv",
    path="hosp/labevents.csv",
    remote=(RemoteTable("physionet-data.mimiciv_3_1_hosp.labevents"),),
    columns={
        "labevent_id": "int",
        "subject_id": "int",
        "hadm_id": "int",  # often empty or another admission's: events are matched on subject and time
        "specimen_id": "int",
        "itemid": "int",
        "order_provider_id": "text",
        "charttime": "time",
        "storetime": "time",
        "value": "text",
        "valuenum": "float",  # empty where `value` holds text
        "valueuom": "text",
        "ref_range_lower": "float",
        "ref_range_upper": "float",
        "flag": "text",
        "priority": "text",
        "comments": "text",
    },
    key=("labevent_id",),
    optional=frozenset({"order_provider_id"}),  # releases before 2.1
    unused=frozenset(
        {
            "hadm_id", "specimen_id", "order_provider_id", "storetime", "value", "valueuom", "ref_range_lower",
            "ref_range_upper", "flag", "priority", "comments",
        }
    ),
)  # fmt: skip

D_LABITEMS: Final = TableSpec(
    name="d_labitems",
    source="mimic_iv",
    path="hosp/d_labitems.csv",
    remote=(RemoteTable("physionet-data.mimiciv_3_1_hosp.d_labitems"),),
    columns={"itemid": "int", "label": "text", "fluid": "text", "category": "text"},
    key=("itemid",),
    unused=frozenset({"fluid", "category"}),
)
