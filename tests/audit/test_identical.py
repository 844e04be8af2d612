"""Values that several patients share, against a comparison of all with all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from symile_clin.audit import identical as module
from symile_clin.audit.identical import identical
from tests.evaluation.small_cohort import modalities, small_cohort


def test_only_equal_values_of_other_patients_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = small_cohort(tmp_path / "cohort", admissions=20, train=30, lacking={"red": [4, 7, 30]})
    monkeypatch.setattr(module, "_ROWS", 7)
    red = modalities()["red"]
    bits = np.load(cohort.path / "arrays" / "red" / "bits.npy")
    patients = cohort.samples["subject_id"].to_numpy()
    expected = {}
    for i in range(50):
        same = [
            j
            for j in range(50)
            if not {i, j} & {4, 7, 30} and patients[i] != patients[j] and (bits[i] == bits[j]).all()
        ]
        if same:
            expected[i] = tuple(same)
    assert expected  # the patients have three bits each, so many agree
    assert identical(cohort, red) == expected


def test_two_samples_of_one_patient_may_be_the_same(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "cohort", admissions=20, train=0)
    values = np.arange(60, dtype=np.uint8).reshape(20, 3)
    values[1] = values[0]  # one patient's
    np.save(cohort.path / "arrays" / "red" / "bits.npy", values)
    assert identical(cohort, modalities()["red"]) == {}
    values[19] = values[0]
    np.save(cohort.path / "arrays" / "red" / "bits.npy", values)
    assert identical(cohort, modalities()["red"]) == {0: (19,), 1: (19,), 19: (0, 1)}
