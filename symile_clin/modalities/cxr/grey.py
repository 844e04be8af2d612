"""From a DICOM's stored values to 8-bit grey, as MIMIC-CXR-JPG was made. numpy only.

Source: Johnson et al., MIMIC-CXR-JPG (arXiv 1901.07042): least value to 0 and greatest to 255, the fraction cut off;
inverted for MONOCHROME1; histogram equalisation by OpenCV.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
ROWS: Final = 64


def published_grey(stored: NDArray[np.integer[Any]], *, inverted: bool) -> Picture:
    """The published recipe but for the JPEG at its end.

    Args:
        stored: (rows, columns), at least two different values; neither rescaled nor windowed.
        inverted: the least value is the brightest (MONOCHROME1).
    """
    low, high = int(stored.min()), int(stored.max())
    grey = (np.arange(high - low + 1) / (high - low) * 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    # every step maps values to values, so it is done on a table of them, and each pixel is looked up once;
    # without a sign, differences of signed values wrap to what they are
    unsigned = np.dtype(f"u{stored.itemsize}")
    places = stored.astype(unsigned) - np.int64(low).astype(unsigned)
    occurring = _count(places, high - low + 1)
    counts = np.bincount(grey, weights=occurring, minlength=256).astype(np.int64)
    levels: Picture = _equalising(counts)[grey]
    picture: Picture = levels[places]
    return picture


def equalise(grey: Picture) -> Picture:
    """OpenCV's `equalizeHist`, to the bit: its float32 arithmetic and its rounding of halves to the even number."""
    return np.take(_equalising(_count(grey, 256)), grey)


def _equalising(counts: NDArray[np.int64]) -> Picture:
    """The new level of each level, given how many pixels have it."""
    darkest = int(counts.nonzero()[0][0])
    rest = int(counts.sum() - counts[darkest])
    if rest == 0:
        return np.arange(256, dtype=np.uint8)
    above = counts.copy()
    above[: darkest + 1] = 0
    levels: Picture = np.rint(above.cumsum().astype(np.float32) * (np.float32(255) / np.float32(rest))).astype(np.uint8)
    return levels


def _count(places: NDArray[np.integer[Any]], size: int) -> NDArray[np.int64]:
    """How often each of 0 ... size - 1 occurs. By rows: counting takes 8 bytes for each value it is given at once."""
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, len(places), ROWS):
        counts += np.bincount(places[start : start + ROWS].ravel(), minlength=size)
    return counts
