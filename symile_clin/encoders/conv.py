"""Small convolutional encoders that learn from a few hundred samples and train on a CPU in seconds.

They use group instead of batch statistics, so that training and evaluation see the same network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGE_WIDTH = 16  #: channels of the first convolution; doubled twice
GRID = 4  #: cells along each side of the image
SERIES_WIDTH = 32  #: channels of the first convolution; doubled once
SMOOTH = 5  #: samples averaged into one before the first convolution
GROUPS = 8


class SmallImageEncoder(nn.Module):
    """Three strided 2-D convolutions and a linear layer over a coarse grid.

    The grid stays because in images of one standard view the place says what is seen.

    Args:
        dim: of the embedding.
        channels: of the images.
    """

    def __init__(self, *, dim: int, channels: int) -> None:
        super().__init__()
        width = IMAGE_WIDTH
        self.features = nn.Sequential(
            _conv2d(channels, width, kernel=5),
            _conv2d(width, 2 * width, kernel=3),
            _conv2d(2 * width, 4 * width, kernel=3),
            _GridMean(GRID),
        )
        self.fc = nn.Linear(4 * width * GRID**2, dim)

    @property
    def maps(self) -> nn.Module:
        """The layer whose feature maps say where in the image: a quarter of its sides."""
        return self.features[1]

    def forward(self, image: Tensor) -> Tensor:
        """(b, channels, height, width) -> (b, dim)."""
        embedding: Tensor = self.fc(self.features(image))
        return embedding


class SmallSeriesEncoder(nn.Module):
    """A moving average, three strided 1-D convolutions, and the largest answer of each filter over all time.

    What matters in a recurring signal is whether a shape occurs, not when: the maximum over time says that.

    Args:
        dim: of the embedding.
        channels: of the series.
    """

    def __init__(self, *, dim: int, channels: int) -> None:
        super().__init__()
        width = SERIES_WIDTH
        self.features = nn.Sequential(
            nn.AvgPool1d(SMOOTH),
            _conv1d(channels, width, kernel=11, stride=4),
            _conv1d(width, 2 * width, kernel=7, stride=2),
            _conv1d(2 * width, 2 * width, kernel=5, stride=2),
        )
        self.fc = nn.Linear(2 * width, dim)

    @property
    def maps(self) -> nn.Module:
        """The layer whose feature maps say when: one step for 20 of the series; at the last one it would be 80."""
        return self.features[1]

    def forward(self, series: Tensor) -> Tensor:
        """(b, channels, time) -> (b, dim)."""
        embedding: Tensor = self.fc(self.features(series).amax(dim=2))
        return embedding


def _conv2d(before: int, after: int, *, kernel: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.ReLU())


def _conv1d(before: int, after: int, *, kernel: int, stride: int) -> nn.Module:
    convolution = nn.Conv1d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.ReLU())


class _GridMean(nn.Module):
    """Means over a square grid of equal cells, flattened.

    torch's adaptive pooling would do, had it a deterministic gradient on CUDA.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, features: Tensor) -> Tensor:
        for axis in (2, 3):
            parts = features.tensor_split(self.cells, dim=axis)
            features = torch.stack([part.mean(dim=axis) for part in parts], dim=axis)
        return features.flatten(1)
