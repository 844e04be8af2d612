"""Synthetic ECGs: electrical laws, factors a cardiologist would name, records as wfdb writes them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import wfdb

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.ecg import waveform
from symile_clin.modalities.ecg.preprocess import LEADS, read_ecg
from symile_clin.modalities.ecg.synthetic import _write_record, write
from symile_clin.modalities.ecg.tables import RECORDS
from symile_clin.modalities.ecg.waveform import twelve_leads
from symile_clin.modalities.synthetic_patient import SyntheticOptions
from tests.modalities.synthetic_patient import make_patient

AT_REST = (0.0, 0.0, 0.0)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wander and no noise."""
    monkeypatch.setattr(waveform, "NOISE_MV", 0.0)
    monkeypatch.setattr(waveform, "WANDER_MV", 0.0)


def _leads(factors: tuple[int, ...], seed: int = 0, constitution: tuple[float, ...] = AT_REST) -> dict[str, np.ndarray]:
    return dict(zip(LEADS, twelve_leads(np.random.default_rng(seed), factors, constitution).T, strict=True))


@pytest.mark.usefixtures("quiet")
def test_limb_leads_obey_einthoven_and_goldberger() -> None:
    ecg = _leads((1, 1, 1))
    np.testing.assert_allclose(ecg["III"], ecg["II"] - ecg["I"], atol=1e-12)
    np.testing.assert_allclose(ecg["aVR"], -(ecg["I"] + ecg["II"]) / 2, atol=1e-12)
    np.testing.assert_allclose(ecg["aVL"] + ecg["aVF"] + ecg["aVR"], 0, atol=1e-12)


@pytest.mark.usefixtures("quiet")
def test_the_rate_is_the_patients_own() -> None:
    for rate, expected in ((-2, 54), (0, 76), (2, 98)):
        lead = _leads((0, 0, 0), constitution=(rate, 0, 0))["II"]
        peaks = np.flatnonzero((lead[1:-1] > 0.6) & (lead[1:-1] >= lead[:-2]) & (lead[1:-1] > lead[2:]))
        assert 60 * 500 / np.diff(peaks).mean() == pytest.approx(expected, abs=10)


@pytest.mark.usefixtures("quiet")
def test_factors_are_what_they_are_called() -> None:
    normal, ischaemia, axis, block = (_leads(f) for f in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
    # left axis deviation: lead I up, aVF down
    assert normal["I"].max() > -normal["I"].min()
    assert normal["aVF"].max() > -normal["aVF"].min()
    assert axis["I"].max() > 0.5
    assert -axis["aVF"].min() > axis["aVF"].max()
    # inverted T after a depressed ST: the lateral leads spend their time below the line
    assert ischaemia["V5"].mean() < -0.02
    assert normal["V5"].mean() > 0.05
    # right bundle branch block: a late R in V1, a broad S in I and V6
    assert normal["V1"].max() < 0.3
    assert block["V1"].max() > 0.6
    assert block["V6"].min() < -0.4
    assert block["I"].min() < -0.3


def test_records_are_the_bytes_that_wfdb_writes(tmp_path: Path) -> None:
    when = datetime(2180, 7, 3, 8, 4)
    signal = np.random.default_rng(0).integers(-900, 900, (5000, 12)).astype(np.int16)
    signal[:, 3] = -32768
    _write_record(tmp_path / "ours", "40689238", when, signal)
    wfdb.wrsamp(
        "40689238", fs=500, units=["mV"] * 12, sig_name=list(LEADS), d_signal=signal, fmt=["16"] * 12,
        adc_gain=[200.0] * 12, baseline=[0] * 12, base_time=when.time(), base_date=when.date(), write_dir=str(tmp_path),
    )  # fmt: skip
    for extension in ("hea", "dat"):
        assert (tmp_path / f"ours/40689238.{extension}").read_bytes() == (
            tmp_path / f"40689238.{extension}"
        ).read_bytes()
    header = (tmp_path / "ours/40689238.hea").read_text().splitlines()
    assert header[0] == "40689238 12 500 5000 08:04:00 03/07/2180"
    assert re.fullmatch(r"40689238\.dat 16 200\.0\(0\)/mV 16 0 -?\d+ -?\d+ 0 aVF", header[5])


def test_listed_records_are_there_and_readable(tmp_path: Path) -> None:
    patient = make_patient({"ecg": (1, 0, 1)}, admissions=4)
    rows = write(patient, tmp_path, np.random.default_rng(1), SyntheticOptions(dirt=0.0), name="ecg")[RECORDS.name]
    assert len(rows) >= 4
    for row in rows:
        assert set(row) == set(RECORDS.columns)
        assert row["path"] == f"files/p1234/p12345678/s{row['study_id']}/{row['study_id']}"
        assert not isinstance(read_ecg(tmp_path / row["path"]), Refusal)
        header = wfdb.rdheader(str(tmp_path / row["path"]))
        assert header.base_datetime == row["ecg_time"]
    assert len(list(tmp_path.rglob("*.dat"))) == len(rows)


def test_spoilt_records_come_before_good_ones_or_in_their_place(tmp_path: Path) -> None:
    patient = make_patient({"ecg": (0, 0, 0)}, admissions=4)
    seen: set[str] = set()
    for seed in range(4):
        rng, source = np.random.default_rng(seed), tmp_path / str(seed)
        rows = write(patient, source, rng, SyntheticOptions(dirt=1.0), name="ecg")[RECORDS.name]
        before: Refusal | None = None
        for row in rows:
            ecg = read_ecg(source / row["path"])
            if isinstance(ecg, Refusal):
                seen.add(ecg.reason)
                before = ecg
            else:
                assert before is not None  # every good one repeats a spoilt one
                seen.add("good")
                before = None
    assert seen == {Reason.NAN, Reason.ALL_ZERO, "good"}


def test_nothing_but_the_signal_depends_on_the_factors(tmp_path: Path) -> None:
    listed = []
    for number, factors in enumerate([(0, 0, 0), (1, 1, 1)]):
        patient = make_patient({"ecg": factors}, admissions=4)
        options = SyntheticOptions(dirt=0.3)
        listed.append(write(patient, tmp_path / str(number), np.random.default_rng(2), options, name="ecg"))
    assert listed[0] == listed[1]
