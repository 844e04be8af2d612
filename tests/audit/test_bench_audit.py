"""What the benchmark plants is what it says, and its areas are those of counting."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from scripts.bench_audit import _ring, area, pairs
from scripts.planted_faults import FAULTS, Arrays
from symile_clin.data.store import Cohort
from symile_clin.modalities.ecg.preprocess import LEADS, SAMPLES


def faulty(name: str, arrays: Arrays, *, seed: int = 0) -> Arrays:
    _, make = FAULTS[name]
    before = {key: np.copy(value) for key, value in arrays.items()}
    changed = make(cast(Cohort, None))(arrays, np.random.default_rng(seed))
    assert all((before[key] == arrays[key]).all() for key in arrays), "the stored arrays are left alone"
    return changed


@pytest.fixture
def ecg() -> Arrays:
    rng = np.random.default_rng(0)
    one, two = rng.normal(scale=200, size=(2, SAMPLES))
    limbs = {"I": one, "II": two, "III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    leads = [limbs.get(lead, rng.normal(scale=200, size=SAMPLES)) for lead in LEADS]
    return {"signal": np.rint(np.stack(leads, axis=1)).astype(np.int16)}


@pytest.fixture
def xray() -> Arrays:
    image = np.zeros((1, 50, 50), dtype=np.uint8)
    image[0, :50, :40] = np.random.default_rng(0).integers(10, 240, size=(50, 40))
    return {"image": image, "cxr_height": np.array(50), "cxr_width": np.array(40)}


def test_swapped_arms_are_what_an_ecg_with_swapped_arms_shows(ecg: Arrays) -> None:
    leads = faulty("ECG: arms swapped", ecg)["signal"].astype(float)
    at = {lead: leads[:, LEADS.index(lead)] for lead in LEADS}
    level = {lead: one - one.mean() for lead, one in at.items()}
    np.testing.assert_allclose(level["I"] + level["III"], level["II"], atol=4)  # Einthoven
    np.testing.assert_allclose(level["aVR"] + level["aVL"] + level["aVF"], 0, atol=6)  # Goldberger
    own = ecg["signal"].astype(float)
    untouched = [LEADS.index(lead) for lead in ("aVF", "V1", "V6")]
    np.testing.assert_allclose(leads[:, untouched], own[:, untouched], atol=1)
    assert np.corrcoef(at["I"], own[:, LEADS.index("I")])[0, 1] < -0.999


def test_other_faults_of_ecgs(ecg: Arrays) -> None:
    own = ecg["signal"].astype(float)
    flat = faulty("ECG: one lead flat", ecg)["signal"]
    assert (np.ptp(flat, axis=0) == 0).sum() == 1
    cut = faulty("ECG: saturated", ecg)["signal"]
    assert np.mean(np.abs(cut.astype(float)) >= np.abs(own).max() / 4 - 20) > 0.2
    shuffled = faulty("ECG: pieces of 100 ms shuffled", ecg)["signal"]
    assert (np.sort(shuffled, axis=0) == np.sort(ecg["signal"], axis=0)).all()
    assert (shuffled != ecg["signal"]).any()
    hum = np.abs(np.fft.rfft(faulty("ECG: mains noise", ecg)["signal"][:, 7] - own[:, 7]))
    assert hum.argmax() == 60 * SAMPLES // 500


def test_faults_of_xrays_leave_the_padding_alone(xray: Arrays) -> None:
    for name in FAULTS:
        if name.startswith("X-ray"):
            changed = faulty(name, xray)["image"]
            assert (changed[0, :, 40:] == 0).all()
            assert (changed != xray["image"]).any()
    valid = xray["image"][0, :50, :40]
    assert (faulty("X-ray: inverted", xray)["image"][0, :50, :40] == 255 - valid).all()
    square = faulty("X-ray: turned by 90 degrees", xray)["image"][0, 5:45, :40]
    assert any((square == np.rot90(valid[5:45], k)).all() for k in (1, 3))


def test_areas_are_those_of_counting_and_intervals_hold_them() -> None:
    rng = np.random.default_rng(0)
    patient: NDArray[Any] = np.repeat(np.arange(40), 3)
    planted = rng.random(120) < 0.3
    score = np.round(rng.normal(size=120) + planted, 1)  # some are level
    counted = pairs(score[planted], score[~planted], patient[planted], patient[~planted], 40)
    value, interval = area([counted, counted], 300).split(" ", 1)
    assert float(value) == pytest.approx(roc_auc_score(planted, score), abs=6e-4)
    low, high = (float(end) for end in interval.strip("[]").split(","))
    assert low < float(value) < high


def test_exchanged_samples_get_another_patients() -> None:
    patient = np.arange(200) // 2
    source = _ring(patient, np.random.default_rng(0))
    moved = source != np.arange(200)
    assert 8 <= moved.sum() <= 10
    assert (patient[source[moved]] != patient[moved]).all()
    assert len(set(source[moved])) == moved.sum()
