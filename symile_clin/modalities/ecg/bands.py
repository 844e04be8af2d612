"""A 12-lead sheet over bands of relevance. Imports matplotlib: only called through the room's attribution."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.drawing import HEAT, VERMILION, blank, heat_bar, pixels, share_of_largest
from symile_clin.modalities.ecg.preprocess import RATE_HZ, SAMPLES

DOTS_PER_INCH: Final = 200  #: as the sheet has
STRIP_INCHES: Final = 0.62
BAR_INCHES: Final = 0.42
AXIS_INCHES: Final = 0.32


def draw_bands(sheet: NDArray[np.uint8], relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw a sheet (H, W, 3), whose width is the record's ten seconds, over the relevance (t,) of equal steps of them.

    Returns:
        (H', W', 3) uint8, larger than the sheet by the curve and the scale.
    """
    height, width = sheet.shape[:2]
    places = (np.arange(width) + 0.5) / width
    steps = (np.arange(len(relevance)) + 0.5) / len(relevance)
    share = share_of_largest(np.interp(places, steps, relevance.clip(min=0)))
    colors = HEAT(share)
    tint = 1 - colors[:, 3:] * (1 - colors[:, :3])
    tinted = (sheet * tint[None]).round().astype(np.uint8)  # multiplied, so that traces stay black

    sheet_width, sheet_height = width / DOTS_PER_INCH, height / DOTS_PER_INCH
    across, down = sheet_width + BAR_INCHES, sheet_height + STRIP_INCHES
    figure = blank(across, down, dots_per_inch=DOTS_PER_INCH)
    axes = figure.add_axes((0, STRIP_INCHES / down, sheet_width / across, sheet_height / down))
    axes.imshow(tinted, interpolation="none", aspect="auto")
    axes.set_axis_off()
    curve = figure.add_axes((0, AXIS_INCHES / down, sheet_width / across, (STRIP_INCHES - AXIS_INCHES - 0.03) / down))
    seconds = places * SAMPLES / RATE_HZ
    curve.fill_between(seconds, share, color=VERMILION, alpha=0.75, linewidth=0)
    curve.plot(seconds, share, color="black", linewidth=0.7)
    curve.axhline(0.5, color="black", linewidth=0.6, linestyle=":")
    curve.set_xlim(0, SAMPLES / RATE_HZ)
    curve.set_ylim(0, 1.02)
    curve.set_yticks([])
    curve.set_xticks(range(1, SAMPLES // RATE_HZ))
    curve.tick_params(labelsize=7, length=2, pad=1.5)
    curve.set_xlabel("seconds", fontsize=7, labelpad=0)
    for side in ("top", "left", "right"):
        curve.spines[side].set_visible(False)
    heat_bar(figure, (1 - 0.85 * BAR_INCHES / across, (STRIP_INCHES + 0.2 * sheet_height) / down,
                      0.25 * BAR_INCHES / across, 0.6 * sheet_height / down))  # fmt: skip
    return pixels(figure)
