"""From a DICOM's stored values to 8-bit grey, as MIMIC-CXR-JPG was made. numpy only.

Source: Johnson et al., MIMIC-CXR-JPG (arXiv 1901.07042): least value to 0 and greatest to 255, the fraction cut off;
inverted for MONOCHROME1; histogram equalisation by OpenCV.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def published_grey(stored: NDArray[np.integer[Any]], *, inverted: bool) -> Picture:
    """The published recipe but for the JPEG at its end.

    Args:
        stored: (rows, columns), at least two different values; neither rescaled nor windowed.
        inverted: the least value is the brightest (MONOCHROME1).
    """
    low, high = int(stored.min()), int(stored.max())
    grey = (np.arange(high - low + 1) / (high - low) * 255).astype(np.uint8)[stored.astype(np.int32) - low]
    return equalise(255 - grey if inverted else grey)


def equalise(grey: Picture) -> Picture:
    """OpenCV's `equalizeHist`, to the bit: its float32 arithmetic and its rounding of halves to the even number."""
    counts = np.bincount(grey.ravel(), minlength=256)
    darkest = int(counts.nonzero()[0][0])
    rest = grey.size - int(counts[darkest])
    if rest == 0:
        return grey
    counts[: darkest + 1] = 0
    scale = np.float32(255) / np.float32(rest)
    levels: Picture = np.rint(counts.cumsum().astype(np.float32) * scale).clip(0, 255).astype(np.uint8)
    return np.take(levels, grey)
