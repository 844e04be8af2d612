"""Stored ECGs to network input, and the ECG encoders. Imports torch: only called through the room's methods."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.encoders.conv import SmallSeriesEncoder
from symile_clin.encoders.resnet import resnet, resnet18_1d
from symile_clin.encoders.weights import load_start
from symile_clin.modalities.base import EncoderOptions
from symile_clin.modalities.ecg.encoder_options import Options

LEADS = 12


def to_input(signal: Tensor) -> Tensor:
    """Scale stored ECGs to [-1, 1], over all leads of a record together, so that leads keep their proportions.

    Gain and baseline of a record cancel out. An absent ECG (all zero) becomes a constant.

    Args:
        signal: (b, 5000, 12) int16.

    Returns:
        (b, 1, 5000, 12) float32.
    """
    wave = signal.float()
    low, high = wave.amin(dim=(1, 2), keepdim=True), wave.amax(dim=(1, 2), keepdim=True)
    span = (high - low).clamp_min_(1)
    return wave.sub_(low).mul_(2 / span).sub_(1).unsqueeze(1)


def released_input(signal: NDArray[np.int16]) -> NDArray[np.float32]:
    """A raw record (5000, 12) as a release has it, (1, 5000, 12)."""
    found: NDArray[np.float32] = to_input(torch.from_numpy(np.array(signal))[None])[0].numpy()
    return found


def build(dim: int, options: EncoderOptions) -> nn.Module:
    """An encoder (b, 1, 5000, 12) -> (b, dim).

    ImageNet weights have a first layer of 3 channels; ours is their sum, which answers to a one-channel image as
    theirs would to the same image in grey.

    Raises:
        ConfigError: ImageNet weights that cannot be had.
        NotFoundError: no file at `options.weights`.
        MismatchError: a weights file that does not fit.
    """
    assert isinstance(options, Options)
    if options.arch == "resnet18_image":
        encoder = resnet("resnet18", dim=dim, channels=1, imagenet=options.pretrained == "imagenet")
    elif options.arch == "resnet18_1d":
        encoder = resnet18_1d(dim=dim, channels=LEADS)
    else:
        encoder = SmallSeriesEncoder(dim=dim, channels=LEADS)
    if options.weights is not None:
        load_start(encoder, options.weights)
    return encoder if options.arch == "resnet18_image" else nn.Sequential(_LeadsAsChannels(), encoder)


class _LeadsAsChannels(nn.Module):
    """(b, 1, time, leads) -> (b, leads, time)."""

    def forward(self, image: Tensor) -> Tensor:
        return image.squeeze(1).transpose(1, 2)
