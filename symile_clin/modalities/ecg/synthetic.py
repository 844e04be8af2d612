"""Synthetic ECGs: records with planted factors and the list and files of MIMIC-IV-ECG."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.ecg.preprocess import LEADS, NOT_MEASURED, RATE_HZ, SAMPLES
from symile_clin.modalities.ecg.tables import RECORDS
from symile_clin.modalities.ecg.waveform import twelve_leads
from symile_clin.modalities.synthetic_ids import scattered_id
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows

FACTORS: Final = 3  #: ST depression with inverted T, left axis deviation, right bundle branch block

# Records of an admission: hours after admittime, and how often there is one.
RECORDINGS: Final = (
    (-160.0, -26.0, 0.10),  # before the window
    (-8.0, 14.0, 0.93),
    (14.5, 23.5, 0.15),  # a second one in the window
    (25.0, 120.0, 0.12),
)
UNITS_PER_MV: Final = 200.0
#: Of the faulty records, how many come before a good one of the same hour; the others take its place.
SHARE_REPEATED: Final = 0.6


def write(
    patient: SyntheticPatient, source: Path, rng: np.random.Generator, options: SyntheticOptions, *, name: str
) -> TableRows:
    """Write one patient's records below `source`; the rows of their list.

    Args:
        patient: whose admissions' `factors[name]` are shown.
        source: root of MIMIC-IV-ECG.
    """
    rows: list[dict[str, Any]] = []

    def record(time: datetime, signal: NDArray[np.int16]) -> None:
        study_id = scattered_id(40_000_000, patient.index, len(rows))
        folder = f"files/p{patient.subject_id // 10_000}/p{patient.subject_id}/s{study_id}"
        _write_record(source / folder, str(study_id), time, signal)
        rows.append(
            {
                "subject_id": patient.subject_id,
                "study_id": study_id,
                "file_name": study_id,
                "ecg_time": time,
                "path": f"{folder}/{study_id}",
            }
        )

    for admission in patient.admissions:
        factors = admission.factors[name]
        for time in _times(rng, admission.admittime):
            leads = twelve_leads(rng, factors, patient.nuisance[4:7])
            signal = np.clip(np.round(leads * UNITS_PER_MV), -32767, 32767).astype(np.int16)
            if rng.random() < options.dirt:
                record(time, _spoil(rng, signal))
                if rng.random() < SHARE_REPEATED:
                    record(time + timedelta(minutes=int(rng.integers(1, 20))), signal)
            else:
                record(time, signal)
    return {RECORDS.name: rows}


def static_tables() -> TableRows:
    """No rows without a patient."""
    return {}


def _times(rng: np.random.Generator, admittime: datetime) -> list[datetime]:
    hours = [rng.uniform(first, last) for first, last, share in RECORDINGS if rng.random() < share]
    return [admittime + timedelta(minutes=round(float(hour) * 60)) for hour in hours]


def _spoil(rng: np.random.Generator, signal: NDArray[np.int16]) -> NDArray[np.int16]:
    """A record that must not be used: nothing measured in some lead, for some time or throughout; or all zero."""
    spoilt = signal.copy()
    fault = rng.integers(3)
    if fault == 0:
        spoilt[:] = 0
    elif fault == 1:
        spoilt[:, rng.integers(len(LEADS))] = NOT_MEASURED
    else:
        start = int(rng.integers(SAMPLES - 500))
        spoilt[start : start + 500] = NOT_MEASURED
    return spoilt


_RECORD_FIELDS: Final = ["record_name", "n_sig", "fs", "sig_len", "base_time", "base_date"]
_SIGNAL_FIELDS: Final = (
    "file_name", "fmt", "adc_gain", "baseline", "units", "adc_res", "adc_zero", "init_value", "checksum", "block_size",
    "sig_name",
)  # fmt: skip


def _write_record(folder: Path, study: str, time: datetime, signal: NDArray[np.int16]) -> None:
    """Write <study>.hea and <study>.dat by the wfdb library.

    `wfdb.wrsamp` would write the same bytes, but works out at every record again which header fields there are,
    which takes four times as long as writing them.
    """
    import wfdb  # slow to import, and only needed here

    folder.mkdir(parents=True, exist_ok=True)
    leads = len(LEADS)
    record = wfdb.Record(
        record_name=study,
        n_sig=leads,
        fs=RATE_HZ,
        sig_len=SAMPLES,
        base_time=time.time(),
        base_date=time.date(),
        file_name=[f"{study}.dat"] * leads,
        fmt=["16"] * leads,
        adc_gain=[UNITS_PER_MV] * leads,
        baseline=[0] * leads,
        units=["mV"] * leads,
        adc_res=[16] * leads,
        adc_zero=[0] * leads,
        init_value=[int(value) for value in signal[0]],
        checksum=[int(total) % 65536 for total in signal.sum(axis=0, dtype=np.int64)],
        block_size=[0] * leads,
        sig_name=list(LEADS),
        d_signal=signal,
    )
    every = list(range(leads))
    record.wr_header_file(_RECORD_FIELDS, dict.fromkeys(_SIGNAL_FIELDS, every), str(folder))
    record.wr_dat_files(write_dir=str(folder))
