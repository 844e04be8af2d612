"""Synthetic patients: ids in MIMIC's ranges, times that leave windows apart, nothing that tells a factor."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from symile_clin.modalities.synthetic_ids import MAX_PATIENTS, PER_PATIENT, scattered_id
from symile_clin.modalities.synthetic_patient import SyntheticPatient
from symile_clin.rng import stream
from symile_clin.sources.hosp import ADMISSIONS, PATIENTS
from symile_clin.sources.icu import ICUSTAYS
from symile_clin.synthetic.patients import draw_patient, hospital_rows, icu_rows
from symile_clin.synthetic.truth import Planting

PLANTING = Planting(target="t", queries=("a", "b"))


def _draw(index: int, *, patients: int = 600, seed: int = 0) -> SyntheticPatient:
    return draw_patient(seed=seed, index=index, patients=patients, planting=PLANTING)


@pytest.fixture(scope="module")
def patients() -> list[SyntheticPatient]:
    return [_draw(index) for index in range(600)]


def test_a_patient_does_not_depend_on_which_others_are_drawn(patients: list[SyntheticPatient]) -> None:
    assert _draw(431) == patients[431]
    assert _draw(431, seed=1) != patients[431]


def test_ids_are_unique_and_in_range(patients: list[SyntheticPatient]) -> None:
    subjects = [patient.subject_id for patient in patients]
    stays = [admission.hadm_id for patient in patients for admission in patient.admissions]
    assert subjects == sorted(set(subjects))
    assert len(set(stays)) == len(stays)
    assert all(10_000_000 <= subject < 20_000_000 for subject in subjects)
    assert all(20_000_000 <= stay < 30_000_000 for stay in stays)
    assert len({subject // 1_000_000 for subject in subjects}) == 10  # folders p10 to p19 all occur


def test_scattered_ids_never_collide_for_as_many_patients_as_are_allowed() -> None:
    numbers = np.arange(MAX_PATIENTS * PER_PATIENT, dtype=np.int64)
    ids = numbers * (scattered_id(0, 0, 1)) % 10_000_000
    assert ids[3 * PER_PATIENT + 5] == scattered_id(0, 3, 5)
    taken = np.zeros(10_000_000, dtype=bool)
    taken[ids] = True
    assert taken.sum() == len(ids)
    for patient, serial in ((MAX_PATIENTS, 0), (0, PER_PATIENT), (-1, 0)):
        with pytest.raises(ValueError, match="no id"):
            scattered_id(0, patient, serial)


def test_the_last_allowed_patient_stays_in_range() -> None:
    patient = draw_patient(seed=0, index=MAX_PATIENTS - 1, patients=MAX_PATIENTS, planting=PLANTING)
    assert patient.subject_id < 20_000_000


def test_admissions_are_apart_so_that_no_window_reaches_into_the_next(patients: list[SyntheticPatient]) -> None:
    counts = [len(patient.admissions) for patient in patients]
    assert 1.4 < np.mean(counts) < 1.7
    assert max(counts) == 4
    for patient in patients:
        for one, following in zip(patient.admissions, patient.admissions[1:], strict=False):
            assert one.admittime + timedelta(hours=72) < one.dischtime
            assert following.admittime - one.dischtime >= timedelta(days=20)


def test_factors_are_drawn_anew_for_each_admission(patients: list[SyntheticPatient]) -> None:
    several = [patient.admissions for patient in patients if len(patient.admissions) > 1]
    first = np.array([stays[0].factors["a"] for stays in several])
    second = np.array([stays[1].factors["a"] for stays in several])
    assert 0.4 < (first == second).mean() < 0.6


def test_hospital_rows_fill_the_tables_and_cap_the_age(patients: list[SyntheticPatient]) -> None:
    seen = set()
    for patient in patients[:200]:
        tables = hospital_rows(patient, stream(0, "hospital", patient.index))
        (person,) = tables[PATIENTS.name]
        stays = tables[ADMISSIONS.name]
        assert set(person) == set(PATIENTS.columns)
        assert all(set(stay) == set(ADMISSIONS.columns) for stay in stays)
        assert [stay["hadm_id"] for stay in stays] == sorted(a.hadm_id for a in patient.admissions)
        assert person["anchor_age"] == (patient.age if patient.age <= 89 else 91)
        assert person["anchor_year"] <= patient.admissions[0].admittime.year
        seen.add(person["anchor_age"])
    assert 91 in seen


def test_intensive_care_stays_lie_within_their_admissions_one_after_the_other(patients: list[SyntheticPatient]) -> None:
    stays = [row for patient in patients for row in icu_rows(patient, stream(0, "icu", patient.index))[ICUSTAYS.name]]
    admissions = {one.hadm_id: one for patient in patients for one in patient.admissions}
    assert len({stay["stay_id"] for stay in stays}) == len(stays) > 100
    assert all(set(stay) == set(ICUSTAYS.columns) for stay in stays)
    last: dict[int, datetime] = {}
    for stay in sorted(stays, key=lambda stay: (stay["hadm_id"], stay["intime"])):
        admission = admissions[stay["hadm_id"]]
        assert max(admission.admittime, last.get(stay["hadm_id"], admission.admittime)) < stay["intime"]
        assert stay["intime"] < stay["outtime"] <= admission.dischtime
        last[stay["hadm_id"]] = stay["outtime"]
    assert len(last) < len(stays)


def test_hospital_rows_cannot_tell_a_factor(patients: list[SyntheticPatient]) -> None:
    patient = next(patient for patient in patients if len(patient.admissions) > 1)
    blank = {name: (0,) * count for name, count in PLANTING.factors.items()}
    other = replace(patient, admissions=tuple(replace(stay, factors=blank) for stay in patient.admissions))
    assert hospital_rows(patient, stream(0, "x")) == hospital_rows(other, stream(0, "x"))
    assert icu_rows(patient, stream(0, "x")) == icu_rows(other, stream(0, "x"))
