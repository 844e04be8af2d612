"""Synthetic patients: who they are, when they are admitted, which factors their admissions carry.

Nothing here depends on a factor: ids, times and demographics tell nothing about what is planted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal

import numpy as np

from symile_clin.modalities.synthetic_ids import scattered_id
from symile_clin.modalities.synthetic_patient import SyntheticAdmission, SyntheticPatient, TableRows
from symile_clin.rng import stream
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS
from symile_clin.sources.icu import ICUSTAYS
from symile_clin.synthetic.truth import Planting, draw_factors

#: Patients with 1, 2, 3, 4 admissions; 1.55 on average.
SHARE_BY_ADMISSIONS: Final = (0.62, 0.25, 0.09, 0.04)
NUISANCE: Final = 8
OLDEST_WRITTEN: Final = 89  #: older patients have anchor_age 91
SHARE_DIED_IN_HOSPITAL: Final = 0.03
SHARE_DIED_LATER: Final = 0.10

ANCHOR_YEAR_GROUPS: Final = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")
ADMISSION_TYPES: Final = (
    ("EW EMER.", 0.40), ("OBSERVATION ADMIT", 0.18), ("EU OBSERVATION", 0.12), ("URGENT", 0.11),
    ("SURGICAL SAME DAY ADMISSION", 0.08), ("DIRECT EMER.", 0.05), ("ELECTIVE", 0.06),
)  # fmt: skip
RACES: Final = (
    ("WHITE", 0.64), ("BLACK/AFRICAN AMERICAN", 0.14), ("HISPANIC/LATINO - PUERTO RICAN", 0.04),
    ("WHITE - OTHER EUROPEAN", 0.04), ("ASIAN - CHINESE", 0.03), ("OTHER", 0.06), ("UNKNOWN", 0.05),
)  # fmt: skip
#: Admissions with 0, 1, 2 intensive care stays.
SHARE_BY_ICU_STAYS: Final = (0.55, 0.38, 0.07)
CARE_UNITS: Final = (
    ("Medical Intensive Care Unit (MICU)", 0.4), ("Surgical Intensive Care Unit (SICU)", 0.25),
    ("Coronary Care Unit (CCU)", 0.2), ("Trauma SICU (TSICU)", 0.15),
)  # fmt: skip
INSURANCES: Final = (("Medicare", 0.45), ("Medicaid", 0.10), ("Other", 0.45))
LANGUAGES: Final = (("ENGLISH", 0.9), ("?", 0.1))
MARITAL_STATUSES: Final = (("MARRIED", 0.44), ("SINGLE", 0.33), ("WIDOWED", 0.12), ("DIVORCED", 0.08), ("", 0.03))
ORIGINS: Final = (("EMERGENCY ROOM", 0.6), ("PHYSICIAN REFERRAL", 0.25), ("TRANSFER FROM HOSPITAL", 0.15))
DESTINATIONS: Final = (("HOME", 0.5), ("HOME HEALTH CARE", 0.25), ("SKILLED NURSING FACILITY", 0.2), ("REHAB", 0.05))


def draw_patient(*, seed: int, index: int, patients: int, planting: Planting) -> SyntheticPatient:
    """Patient number `index` of `patients`, the same whichever others are drawn.

    subject_ids ascend with the index and fill the range that MIMIC uses.
    """
    rng = stream(seed, "patient", index)
    spacing = 9_999_999 // patients
    gender: Literal["F", "M"] = "F" if rng.random() < 0.48 else "M"
    count = 1 + int(rng.choice(len(SHARE_BY_ADMISSIONS), p=SHARE_BY_ADMISSIONS))
    time = datetime(2110, 1, 1) + timedelta(minutes=int(rng.integers(90 * 365 * 1440)))
    admissions = []
    for serial in range(count):
        stay = timedelta(minutes=round(1440 * float(np.clip(rng.lognormal(1.6, 0.6), 3.2, 60))))
        admissions.append(
            SyntheticAdmission(
                hadm_id=scattered_id(20_000_000, index, serial),
                admittime=time,
                dischtime=time + stay,
                factors=draw_factors(planting, rng),
            )
        )
        time += stay + timedelta(minutes=int(rng.integers(20 * 1440, 700 * 1440)))
    return SyntheticPatient(
        index=index,
        subject_id=10_000_000 + index * spacing + int(rng.integers(spacing)),
        gender=gender,
        age=int(np.clip(rng.normal(64, 17), 18, 95)),
        nuisance=tuple(float(value) for value in rng.standard_normal(NUISANCE)),
        admissions=tuple(admissions),
    )


def hospital_rows(patient: SyntheticPatient, rng: np.random.Generator) -> TableRows:
    """The patient's rows of patients and admissions, the latter by hadm_id."""
    first, last = patient.admissions[0], patient.admissions[-1]
    died_here = rng.random() < SHARE_DIED_IN_HOSPITAL
    died = last.dischtime if died_here else None
    if died is None and rng.random() < SHARE_DIED_LATER:
        died = last.dischtime + timedelta(days=int(rng.integers(1, 365)))
    person = {
        "subject_id": patient.subject_id,
        "gender": patient.gender,
        "anchor_age": patient.age if patient.age <= OLDEST_WRITTEN else 91,
        "anchor_year": first.admittime.year - int(rng.integers(0, 3)),
        "anchor_year_group": ANCHOR_YEAR_GROUPS[rng.integers(len(ANCHOR_YEAR_GROUPS))],
        "dod": died,
    }
    same = {
        "race": _pick(rng, RACES),
        "insurance": _pick(rng, INSURANCES),
        "language": _pick(rng, LANGUAGES),
        "marital_status": _pick(rng, MARITAL_STATUSES),
    }
    stays: list[dict[str, Any]] = []
    for admission in patient.admissions:
        dies = died_here and admission is last
        origin = _pick(rng, ORIGINS)
        arrived = admission.admittime - timedelta(minutes=int(rng.integers(120, 720)))
        left = admission.admittime + timedelta(minutes=int(rng.integers(5, 180)))
        emergency = origin == "EMERGENCY ROOM"
        stays.append(
            {
                "subject_id": patient.subject_id,
                "hadm_id": admission.hadm_id,
                "admittime": admission.admittime,
                "dischtime": admission.dischtime,
                "deathtime": admission.dischtime if dies else None,
                "admission_type": _pick(rng, ADMISSION_TYPES),
                "admit_provider_id": f"P{int(rng.integers(10, 100))}{'KLMNPQRS'[rng.integers(8)]}X",
                "admission_location": origin,
                "discharge_location": "DIED" if dies else _pick(rng, DESTINATIONS),
                "edregtime": arrived if emergency else None,
                "edouttime": left if emergency else None,
                "hospital_expire_flag": int(dies),
                **same,
            }
        )
    stays.sort(key=lambda stay: int(stay["hadm_id"]))
    return {PATIENTS.name: [person], ADMISSIONS.name: stays}


def icu_rows(patient: SyntheticPatient, rng: np.random.Generator) -> TableRows:
    """The patient's rows of icustays: of some admissions, some of them with a second stay."""
    stays: list[dict[str, Any]] = []
    for serial, admission in enumerate(patient.admissions):
        entered = admission.admittime + timedelta(minutes=int(rng.integers(30, 900)))
        number = int(rng.choice(3, p=SHARE_BY_ICU_STAYS))
        units = [_pick(rng, CARE_UNITS), _pick(rng, CARE_UNITS)]
        lengths = [timedelta(minutes=round(1440 * float(rng.lognormal(0.3, 0.7)))) for _ in range(2)]
        for stay in range(number):
            left = min(entered + lengths[stay], admission.dischtime)
            if left <= entered:
                break
            stays.append(
                {
                    "subject_id": patient.subject_id,
                    "hadm_id": admission.hadm_id,
                    "stay_id": scattered_id(30_000_000, patient.index, 2 * serial + stay),
                    "first_careunit": units[0],
                    "last_careunit": units[stay],
                    "intime": entered,
                    "outtime": left,
                    "los": round((left - entered) / timedelta(days=1), 4),
                }
            )
            entered = left + timedelta(hours=20)
    return {ICUSTAYS.name: sorted(stays, key=lambda stay: int(stay["stay_id"]))}


def _pick(rng: np.random.Generator, shares: tuple[tuple[str, float], ...]) -> str:
    return shares[int(rng.choice(len(shares), p=[share for _, share in shares]))][0]
