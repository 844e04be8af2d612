"""Groups of alike samples: what splits are stratified by, and what a matched negative has in common with its query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.schema import AGE, AGE_BAND

BAND_YEARS: Final = 10


def age_band(samples: pd.DataFrame) -> pd.Series:
    """First year of each sample's ten-year age band: 60 for 60 to 69. MIMIC writes 91 for everybody over 89."""
    return samples[AGE] // BAND_YEARS * BAND_YEARS


def strata(samples: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number per sample, equal for samples that are equal in all of `columns`; two nulls are equal.

    Args:
        columns: of `samples`, or "age_band".

    Returns:
        (n,) numbers from 0, in the order of the values and so not of the rows.
    """
    values = pd.DataFrame({name: age_band(samples) if name == AGE_BAND else samples[name] for name in columns})
    number: NDArray[np.int64] = np.asarray(values.groupby(list(columns), sort=True, dropna=False).ngroup(), np.int64)
    return number


def complete(samples: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) Whether a sample has a value in all of `columns`."""
    known = [(age_band(samples) if name == AGE_BAND else samples[name]).notna() for name in columns]
    whole: NDArray[np.bool_] = np.logical_and.reduce([one.to_numpy(dtype=np.bool_) for one in known])
    return whole
