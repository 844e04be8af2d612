"""Small convolutional encoders that train on a CPU in seconds: early strides, few channels, a coarse grid kept.

They pool to a grid instead of a single mean, because in small data where something is seen is quickly learned, and
use group instead of batch statistics, so that training and evaluation see the same network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROUPS = 8


class SmallImageEncoder(nn.Module):
    """Three strided 2-D convolutions and a linear layer over a 4 × 4 grid.

    Args:
        dim: of the embedding.
        channels: of the images.
        width: channels of the first convolution; doubled twice.
    """

    def __init__(self, *, dim: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv2d(channels, width, kernel=5),
            _conv2d(width, 2 * width, kernel=3),
            _conv2d(2 * width, 4 * width, kernel=3),
            _GridMean(4, axes=(2, 3)),
        )
        self.fc = nn.Linear(4 * width * 16, dim)

    def forward(self, image: Tensor) -> Tensor:
        """(b, channels, height, width) -> (b, dim)."""
        return self.fc(self.features(image))  # type: ignore[no-any-return]  # modules are untyped callables


class SmallSeriesEncoder(nn.Module):
    """Three strided 1-D convolutions and a linear layer over 16 stretches of time.

    Args:
        dim: of the embedding.
        channels: of the series.
        width: channels of the first convolution; doubled twice.
    """

    def __init__(self, *, dim: int, channels: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv1d(channels, width, kernel=15),
            _conv1d(width, 2 * width, kernel=7),
            _conv1d(2 * width, 4 * width, kernel=7),
            _GridMean(16, axes=(2,)),
        )
        self.fc = nn.Linear(4 * width * 16, dim)

    def forward(self, series: Tensor) -> Tensor:
        """(b, channels, time) -> (b, dim)."""
        return self.fc(self.features(series))  # type: ignore[no-any-return]  # modules are untyped callables


def _conv2d(before: int, after: int, *, kernel: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.ReLU())


def _conv1d(before: int, after: int, *, kernel: int) -> nn.Module:
    convolution = nn.Conv1d(before, after, kernel, stride=4, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.ReLU())


class _GridMean(nn.Module):
    """Means over a grid of equal cells, flattened. (torch's adaptive pooling has no deterministic gradient on CUDA.)"""

    def __init__(self, cells: int, *, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.cells, self.axes = cells, axes

    def forward(self, features: Tensor) -> Tensor:
        for axis in self.axes:
            parts = features.tensor_split(self.cells, dim=axis)
            features = torch.stack([part.mean(dim=axis) for part in parts], dim=axis)
        return features.flatten(1)
