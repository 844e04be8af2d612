"""Residual networks: torchvision's in two dimensions, MONAI's in one, each ending in a linear layer `fc`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Literal, cast

from torch import nn

from symile_clin.encoders.weights import start
from symile_clin.errors import ConfigError


def resnet(arch: Literal["resnet18", "resnet50"], *, dim: int, channels: int, imagenet: bool) -> nn.Module:
    """torchvision's ResNet over (b, channels, height, width), its last layer replaced by one to `dim`.

    Args:
        arch: which one.
        dim: of the embedding.
        channels: of the images; another number than 3 replaces the first convolution.
        imagenet: start from the ImageNet weights (V2 of ResNet-50, V1 of ResNet-18) that the paper's code names.

    Raises:
        ConfigError: weights neither in torch's cache nor to be downloaded.
    """
    from torchvision import models

    make, weights = {
        "resnet18": (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
        "resnet50": (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V2),
    }[arch]
    network = cast(nn.Module, make())
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    network.fc = nn.Linear(cast(nn.Linear, network.fc).in_features, dim)
    if imagenet:
        try:
            with redirect_stdout(sys.stderr):  # torch says there what it downloads; stdout is the result's
                state = weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise ConfigError(
                f"the ImageNet weights of {arch} are not in torch's cache, and {weights.url} gave: {error}",
                remedy="Download that file on a connected machine and give its place as `weights: PATH`",
            ) from None
        start(network, state, source=weights.url)
    return network


def resnet18_1d(*, dim: int, channels: int) -> nn.Module:
    """MONAI's ResNet-18 over (b, channels, time)."""
    from monai.networks.nets import resnet18

    return cast(nn.Module, resnet18(spatial_dims=1, n_input_channels=channels, num_classes=dim))


def last_maps(network: nn.Module) -> nn.Module:
    """The layer whose feature maps are averaged: a step for 32 of an image's rows and columns, for 16 of a series."""
    return cast(nn.Module, network.layer4)
