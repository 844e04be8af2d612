"""An X-ray beside itself under a map. Imports matplotlib: only called through the room's attribution."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from symile_clin.modalities.drawing import HEAT, blank, heat_bar, pixels, share_of_largest

HEIGHT_INCHES: Final = 3.2
BAR_INCHES: Final = 0.6
GAP_INCHES: Final = 0.05


def draw_overlay(picture: NDArray[np.uint8], relevance: NDArray[np.float64], *, side: int) -> NDArray[np.uint8]:
    """Draw a picture (H, W, 3) and, to its right, the same under the relevance (h, w) of its centre square.

    Returns:
        (320, W', 3) uint8.
    """
    height, width = picture.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    smooth = Image.fromarray(relevance.clip(min=0).astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    share = share_of_largest(np.asarray(smooth, dtype=np.float64))
    across = HEIGHT_INCHES * width / height
    total = 2 * across + GAP_INCHES + BAR_INCHES
    figure = blank(total, HEIGHT_INCHES)
    for place in range(2):
        axes = figure.add_axes((place * (across + GAP_INCHES) / total, 0, across / total, 1))
        axes.imshow(picture, interpolation="bilinear")
        axes.set_axis_off()
    extent = (left - 0.5, left + side - 0.5, top + side - 0.5, top - 0.5)
    axes.imshow(share, cmap=HEAT, vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    # light under dark: seen on any grey
    axes.contour(share, levels=[0.5], colors="white", linewidths=2.6, extent=extent, origin="upper")
    axes.contour(share, levels=[0.5], colors="black", linewidths=1.2, extent=extent, origin="upper")
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="white", linewidth=0.8))
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    heat_bar(figure, (1 - 0.85 * BAR_INCHES / total, 0.1, 0.25 * BAR_INCHES / total, 0.8))
    return pixels(figure)
