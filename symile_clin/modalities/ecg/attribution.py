"""When in an ECG what a score hangs on. Imports torch and matplotlib inside its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.attribution import ByLayer
from symile_clin.modalities.base import Arrays, Modality, Row

if TYPE_CHECKING:
    from torch import nn


@final
class EcgAttribution(ByLayer):
    """Feature maps along time. Encoders mix the leads before, so that the map is of all twelve at once.

    Args:
        modality: whose sheets are drawn.
    """

    reading: ClassVar[str] = (
        "The stronger the band, the more that time raises the score, over all twelve leads at once: the sheet "
        "shows other leads at other times. The curve below says the same."
    )

    def __init__(self, modality: Modality) -> None:
        self._modality = modality

    def layer(self, encoder: nn.Module) -> nn.Module:
        """A ResNet's last feature maps, a step in 64 ms (over the image) or 32 (over the series): QRS and T are apart.

        Of the small encoder those of the first convolution, a step in 40 ms; at its last, in 160, a beat has five.
        """
        from symile_clin.encoders.conv import SmallSeriesEncoder
        from symile_clin.encoders.resnet import last_maps

        network = next((part for part in encoder.children() if isinstance(part, SmallSeriesEncoder)), None)
        if network is not None:
            return network.maps
        return last_maps(encoder if hasattr(encoder, "layer4") else list(encoder.children())[-1])

    def draw(self, arrays: Arrays, row: Row, relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The sheet over bands, and a curve below it."""
        from symile_clin.modalities.ecg.bands import draw_bands

        by_time = relevance.reshape(len(relevance), -1).sum(axis=1)
        return draw_bands(self._modality.render(arrays, row), by_time)
