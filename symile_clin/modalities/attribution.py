"""How a room traces a score back to its input: the contract, and nothing of torch or matplotlib.

Where inputs have places (an image, a signal), gradients weigh the feature maps of a layer that keeps them. Where an
input is a list of things that may be absent, each is taken away in turn and the sample is scored again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from symile_clin.modalities.base import Arrays, Row


class Attribution(ABC):
    """What both ways share: a picture.

    Attributes:
        reading: how to read the picture, for its caption.
    """

    reading: ClassVar[str]

    @abstractmethod
    def draw(self, arrays: Arrays, row: Row, relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of one sample with what was found, that needs no colour to be read.

        Args:
            arrays: the sample's stored arrays.
            row: its columns of samples.parquet.
            relevance: of each place of the layer, or of each thing taken away; positive where it raises the score,
                somewhere other than 0.
        """


class ByLayer(Attribution):
    """Gradients and feature maps, for rooms whose encoders keep places."""

    @abstractmethod
    def layer(self, encoder: nn.Module) -> nn.Module:
        """The layer whose output (b, channels, places...) is weighed, in any encoder that the room builds."""


class ByOcclusion(Attribution):
    """Scoring again, for rooms whose samples are lists of things that may be absent."""

    @abstractmethod
    def without(self, arrays: Arrays, state: Mapping[str, Any]) -> Mapping[str, Arrays]:
        """One sample's arrays with one thing at a time taken away, as if it had never been there: by its name.

        Args:
            arrays: the sample's stored arrays.
            state: what the modality fitted on train.
        """
