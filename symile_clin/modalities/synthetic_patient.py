"""A synthetic patient, as the rooms are given one to write files of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

#: What a synthetic patient adds to a table: rows as mappings of column to value, absent columns empty.
TableRows = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class SyntheticAdmission:
    """One admission of a synthetic patient.

    Attributes:
        factors: planted factors by modality name, each 0 or 1; a room shows factor j in its own way.
    """

    hadm_id: int
    admittime: datetime
    dischtime: datetime
    factors: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SyntheticPatient:
    """A synthetic patient: ids, times and planted factors; rooms write what they see of it.

    Attributes:
        index: 0, 1, 2, ...; rooms derive unique ids of events from it.
        nuisance: standard normal draws that persist over admissions (body size, heart rate, ...), length 8.
    """

    index: int
    subject_id: int
    gender: Literal["F", "M"]
    age: int
    nuisance: tuple[float, ...]
    admissions: tuple[SyntheticAdmission, ...]


@dataclass(frozen=True)
class SyntheticOptions:
    """How synthetic files are written.

    Attributes:
        full_size: files as large as the real ones, instead of small ones.
        dicom: images also as DICOM.
        dirt: share of events that carry a fault of real data, in [0, 1].
    """

    full_size: bool = False
    dicom: bool = False
    dirt: float = 0.05
