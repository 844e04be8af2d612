"""Ids of synthetic rows: inside the range the real ones have, unique, and without any order to learn from."""

from __future__ import annotations

from typing import Final

PER_PATIENT: Final = 64  #: ids of one kind that a patient can have
_RANGE: Final = 10_000_000
_STRIDE: Final = 6_700_417  # shares no factor with the range, so different numbers stay different
MAX_PATIENTS: Final = 100_000


def scattered_id(block: int, patient: int, serial: int) -> int:
    """Id number `serial` (below 64) of patient number `patient` in [block, block + 10 million)."""
    if not (0 <= serial < PER_PATIENT and 0 <= patient < MAX_PATIENTS):
        raise ValueError(f"no id for event {serial} of patient {patient}")
    return block + (patient * PER_PATIENT + serial) * _STRIDE % _RANGE
