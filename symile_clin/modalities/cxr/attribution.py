"""What a score hangs on in an X-ray. Imports torch and matplotlib inside its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.attribution import ByLayer
from symile_clin.modalities.base import Arrays, Modality, Row

if TYPE_CHECKING:
    from torch import nn


@final
class XrayAttribution(ByLayer):
    """The last feature maps of an image encoder, laid over the square that it sees.

    Args:
        modality: whose pictures are drawn.
        side: of that square, in the centre of the picture.
    """

    reading: ClassVar[str] = (
        "The stronger the colour, the more the place raises the score; the line runs at half of the largest. "
        "Outside the frame nothing is seen by the encoder."
    )

    def __init__(self, modality: Modality, side: int) -> None:
        self._modality = modality
        self._side = side

    def layer(self, encoder: nn.Module) -> nn.Module:
        """The last feature maps of a ResNet, those of the second convolution of the small encoder."""
        from symile_clin.encoders.conv import SmallImageEncoder
        from symile_clin.encoders.resnet import last_maps

        return encoder.maps if isinstance(encoder, SmallImageEncoder) else last_maps(encoder)

    def draw(self, arrays: Arrays, row: Row, relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The picture, and again with its map."""
        from symile_clin.modalities.cxr.overlay import draw_overlay

        return draw_overlay(self._modality.render(arrays, row), relevance, side=self._side)
