"""Synthetic blood work: panels of consistent values with planted clinical pictures, as rows of labevents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from symile_clin.modalities.labs.items import PANELS, SYMILE_ITEMS, LabItem, Panel
from symile_clin.modalities.labs.tables import D_LABITEMS, LABEVENTS
from symile_clin.modalities.synthetic_patient import SyntheticAdmission, SyntheticOptions, SyntheticPatient, TableRows

#: What each factor shifts, itemid -> standard deviations; items worked out from these follow.
PICTURES: Final[tuple[Mapping[int, float], ...]] = (
    # renal failure: creatinine, urea nitrogen, potassium, phosphate, magnesium, bicarbonate, anion gap
    {50912: 2.4, 51006: 2.4, 50971: 1.4, 50970: 1.6, 50960: 1.0, 50882: -1.4, 50868: 1.4},
    # anaemia of iron deficiency: haemoglobin (and so haematocrit and red cells), MCH, MCHC (and so MCV), RDW, platelets
    {51222: -3.2, 51248: -2.6, 51249: -1.6, 51277: 2.6, 52172: 1.0, 51265: 1.2},
    # sepsis: white cells, lymphocytes, eosinophils, monocytes (and so neutrophils), immature granulocytes, INR (and so
    # PT), PTT, glucose, calcium, albumin, lactate
    {51301: 2.6, 51244: -2.6, 51200: -2.0, 51254: -1.4, 52135: 2.0, 51237: 2.2, 51275: 1.8, 50931: 1.8, 50893: -1.8,
     50862: -1.6, 50813: 1.8},
)  # fmt: skip
FACTORS: Final = len(PICTURES)
PANEL_CORRELATION: Final = 0.2  #: of any two items of a panel, before the pictures
DRAW_NOISE: Final = 0.15  #: of repeated draws, in standard deviations of the item

#: Blood draws of an admission: hours after admittime, how often, and the share of its panels that are taken.
DRAWS: Final = (
    (-200.0, -26.0, 0.20, 0.6),  # at the clinic, before the window
    (-5.0, 6.0, 0.975, 1.0),
    (8.0, 23.5, 0.60, 0.6),
    (25.0, 110.0, 0.70, 0.6),  # after the window
)
SHARE_WITHOUT_HADM: Final = 0.35
SHARE_OTHER_HADM: Final = 0.04
SHARE_COMMENTED: Final = 0.04

#: Rows and tubes a patient can have; ids are numbered through.
_ROWS_PER_PATIENT: Final = 4096
_COMMENTS: Final = (
    "___",
    "HEMOLYSIS FALSELY ELEVATES THIS TEST.",
    'VERIFIED BY REPLICATE ANALYSIS. NOTIFIED DR. ___ AT 10:45 PM, "READ BACK".',
    "IF FASTING, 70-100 NORMAL, >125 PROVISIONAL DIABETES.",
    "MODERATELY HEMOLYZED SPECIMEN, RESULT SHOULD BE INTERPRETED WITH CAUTION.",
)
#: What `value` and `comments` hold where there is no number.
_NO_NUMBER: Final = (
    ("___", "UNABLE TO REPORT, SPECIMEN CLOTTED."),
    ("ERROR", 'DISREGARD PREVIOUS RESULT OF ___, "WRONG PATIENT".'),
    ("HEMOLYZED", "___."),
)


def write(
    patient: SyntheticPatient,
    source: Path,  # noqa: ARG001  the room has no files beside its tables
    rng: np.random.Generator,
    options: SyntheticOptions,
    *,
    name: str,
) -> TableRows:
    """The rows of one patient's blood work, in order of time.

    Args:
        patient: whose admissions' `factors[name]` are shown.
    """
    rows: list[dict[str, Any]] = []
    for admission in patient.admissions:
        state = _state(rng, admission.factors[name])
        ordered = [panel for panel, share in PANELS.items() if rng.random() < share]
        for first, last, share, taken in DRAWS:
            if rng.random() < share:
                time = admission.admittime + timedelta(minutes=round(60 * float(rng.uniform(first, last))))
                panels = _panels(rng, ordered, taken)
                values = _values(rng, state, patient.gender)
                drawn = [(item, values[item.itemid]) for item in SYMILE_ITEMS if item.panel in panels]
                rows.extend(_rows(rng, patient, admission, time, drawn, dirt=options.dirt))
    rows.sort(key=lambda row: (row["charttime"], row["itemid"]))
    first_id = patient.index * _ROWS_PER_PATIENT
    tubes: dict[tuple[datetime, str], int] = {}
    for number, row in enumerate(rows, 1):
        tube = tubes.setdefault((row["charttime"], row.pop("tube")), first_id + len(tubes) + 1)
        row |= {"labevent_id": first_id + number, "specimen_id": tube}
    return {LABEVENTS.name: rows}


def static_tables() -> TableRows:
    """The dictionary of items."""
    return {
        D_LABITEMS.name: [
            {"itemid": item.itemid, "label": item.label, "fluid": item.fluid, "category": item.category}
            for item in SYMILE_ITEMS
        ]
    }


def _state(rng: np.random.Generator, factors: tuple[int, ...]) -> dict[int, float]:
    """Standardised value of each item in one admission."""
    common = {panel: rng.standard_normal() for panel in PANELS}
    own = rng.standard_normal(len(SYMILE_ITEMS))
    state = {
        item.itemid: math.sqrt(PANEL_CORRELATION) * common[item.panel] + math.sqrt(1 - PANEL_CORRELATION) * float(z)
        for item, z in zip(SYMILE_ITEMS, own, strict=True)
    }
    for present, picture in zip(factors, PICTURES, strict=True):
        for itemid, shift in picture.items():
            state[itemid] += present * shift
    return state


def _panels(rng: np.random.Generator, ordered: list[Panel], taken: float) -> set[Panel]:
    """Panels of one draw; absolute counts and granulocytes come from the same machine as the differential."""
    panels = {panel for panel in ordered if rng.random() < taken}
    return panels if "differential" in panels else panels - {"absolute", "granulocytes"}


def _values(rng: np.random.Generator, state: Mapping[int, float], gender: str) -> dict[int, float]:
    """Values of one draw in the items' units, consistent with each other."""
    noise = DRAW_NOISE * rng.standard_normal(len(SYMILE_ITEMS))
    values: dict[int, float] = {}
    for item, shake in zip(SYMILE_ITEMS, noise, strict=True):
        z, centre = state[item.itemid] + float(shake), item.male if gender == "M" else item.female
        values[item.itemid] = centre * math.exp(item.sd * z) if item.skewed else centre + item.sd * z
    return values | _derived(values, state)


def _derived(drawn: Mapping[int, float], state: Mapping[int, float]) -> dict[int, float]:
    """Items that laboratories work out from others, or that physiology ties to them."""
    haemoglobin, mch, mchc = max(drawn[51222], 4.5), drawn[51248], drawn[51249]
    red_cells = 10 * haemoglobin / mch
    volume = 100 * mch / mchc
    percent = {itemid: drawn[itemid] for itemid in (51244, 51254, 51200, 51146)}  # lymphocytes ... basophils
    scale = min(1.0, 92 / sum(percent.values()))
    percent = {itemid: value * scale for itemid, value in percent.items()}
    percent[51256] = 100 - sum(percent.values())  # neutrophils
    absolute = {51133: 51244, 52074: 51254, 52073: 51200, 52069: 51146, 52075: 51256}
    bicarbonate, potassium = max(drawn[50882], 8.0), drawn[50971]
    # breathing makes up for part of what the bicarbonate does to the pH (Henderson-Hasselbalch)
    pco2 = 40 * math.exp(0.13 * state[50818] + 0.4 * math.log(bicarbonate / 24.5))
    ph = 6.1 + math.log10(bicarbonate / (0.0307 * pco2))
    return {
        51222: haemoglobin,
        51221: 100 * haemoglobin / mchc,
        51279: red_cells,
        51250: volume,
        52172: 0.0364 * drawn[51277] * volume * (1 + 0.03 * state[52172]),
        **percent,
        **{count: drawn[51301] * percent[share] / 100 for count, share in absolute.items()},
        50882: bicarbonate,
        50902: drawn[50983] + potassium - bicarbonate - drawn[50868],
        50818: pco2,
        50820: ph,
        50804: bicarbonate + 0.0307 * pco2,
        50802: 0.93 * (bicarbonate - 24.4 + 14.8 * (ph - 7.4)),
        51274: 11 * drawn[51237] * (1 + 0.01 * state[51274]),
    }


def _rows(
    rng: np.random.Generator,
    patient: SyntheticPatient,
    admission: SyntheticAdmission,
    time: datetime,
    drawn: list[tuple[LabItem, float]],
    *,
    dirt: float,
) -> list[dict[str, Any]]:
    """Rows of one draw, still without ids."""
    stored = time + timedelta(minutes=int(rng.integers(25, 120)))
    provider = f"P{int(rng.integers(10, 100))}{'ABCDEFGH'[rng.integers(8)]}{int(rng.integers(10, 100))}"
    priority = "STAT" if rng.random() < 0.5 else "ROUTINE"
    others = [other.hadm_id for other in patient.admissions if other is not admission]
    outside = not admission.admittime - timedelta(hours=24) <= time <= admission.dischtime
    rows = []
    for (item, value), chance in zip(drawn, rng.random((len(drawn), 3)), strict=True):
        hadm_id: int | None = admission.hadm_id
        if outside or chance[0] < SHARE_WITHOUT_HADM:
            hadm_id = None
        elif others and chance[0] > 1 - SHARE_OTHER_HADM:
            hadm_id = others[0]
        floor = None if item.itemid == 50802 else 0.0  # only the base excess can be negative
        number = round(value if floor is None else max(value, floor), item.decimals) + 0.0  # no minus zero
        row: dict[str, Any] = {
            "subject_id": patient.subject_id,
            "hadm_id": hadm_id,
            "itemid": item.itemid,
            "order_provider_id": provider,
            "charttime": time,
            "storetime": stored,
            "value": f"{number:.{item.decimals}f}",
            "valuenum": number,
            "valueuom": item.unit,
            "ref_range_lower": item.lower,
            "ref_range_upper": item.upper,
            "flag": "" if item.lower <= number <= item.upper else "abnormal",
            "priority": priority,
            "comments": _COMMENTS[int(chance[1] * 1e6) % len(_COMMENTS)] if chance[1] < SHARE_COMMENTED else "",
            "tube": f"{item.category} {item.panel == 'clotting'}",
        }
        if chance[2] < dirt:
            text, comment = _NO_NUMBER[int(chance[2] * 1e6) % len(_NO_NUMBER)]
            row |= {"value": text, "valuenum": None, "flag": "", "comments": comment}
        rows.append(row)
    return rows
