"""One synthetic patient for the tests of the rooms' writers."""

from __future__ import annotations

from datetime import datetime, timedelta

from symile_clin.modalities.synthetic_patient import SyntheticAdmission, SyntheticPatient


def make_patient(factors: dict[str, tuple[int, ...]], *, admissions: int = 2, index: int = 3) -> SyntheticPatient:
    """A patient whose admissions, a year apart, all carry the same factors."""
    start = datetime(2150, 3, 31, 0, 5)
    stays = [
        SyntheticAdmission(
            hadm_id=20_000_000 + index * 10 + serial,
            admittime=start + timedelta(days=365 * serial),
            dischtime=start + timedelta(days=365 * serial + 6),
            factors=factors,
        )
        for serial in range(admissions)
    ]
    return SyntheticPatient(
        index=index, subject_id=12_345_678, gender="F", age=64, nuisance=(0.0,) * 8, admissions=tuple(stays)
    )
