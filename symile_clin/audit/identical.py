"""The same stored values under several patients: a mix-up or a copy that needs no model to be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from symile_clin.data.store import Cohort
from symile_clin.modalities.base import Modality
from symile_clin.progress import Progress, Quiet
from symile_clin.schema import SUBJECT_ID, present_column

#: Samples read at once.
_ROWS = 64


def identical(cohort: Cohort, modality: Modality, *, progress: Progress | None = None) -> dict[int, tuple[int, ...]]:
    """Samples whose arrays of a modality are, byte for byte, those of another patient's sample.

    Samples of all splits are compared: between train and test a copy is a leak, too.

    Returns:
        Row of each such sample -> rows of the other patients' samples that are the same, ascending.
    """
    rows = np.flatnonzero(cohort.samples[present_column(modality.name)].to_numpy(dtype=np.bool_))
    patients = cohort.samples[SUBJECT_ID].to_numpy()
    alike: dict[bytes, list[int]] = {}
    for row, digest in zip(rows.tolist(), _digests(cohort, modality, rows, progress or Quiet()), strict=True):
        alike.setdefault(digest, []).append(row)
    found: Mapping[int, tuple[int, ...]] = {
        row: tuple(other for other in group if patients[other] != patients[row])
        for group in alike.values()
        if len(group) > 1
        for row in group
    }
    return {row: others for row, others in sorted(found.items()) if others}


def _digests(cohort: Cohort, modality: Modality, rows: NDArray[np.int64], progress: Progress) -> list[bytes]:
    stored = [cohort.array(modality.name, key) for key in modality.arrays]
    digests = []
    with progress.track(f"comparing {modality.name}", len(rows)) as advance:
        for start in range(0, len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            parts = [array.take(chunk) for array in stored]
            digests += [
                hashlib.blake2b(b"".join(one.tobytes() for one in sample), digest_size=16).digest()
                for sample in zip(*parts, strict=True)
            ]
            advance(len(chunk))
    return digests
