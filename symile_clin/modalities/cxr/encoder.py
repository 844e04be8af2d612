"""Stored X-rays to network input, and the X-ray encoders. Imports torch: only called through the room's methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.encoders.conv import SmallImageEncoder
from symile_clin.encoders.resnet import resnet
from symile_clin.encoders.weights import load_start
from symile_clin.modalities.base import EncoderOptions
from symile_clin.modalities.cxr.encoder_options import Options

#: Per channel, of pixel values in [0, 1]: what ImageNet weights expect, and what the paper uses without them too.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_input(
    image: NDArray[np.uint8],
    *,
    height: NDArray[Any],
    width: NDArray[Any],
    side: int,
    rng: np.random.Generator | None,
) -> Tensor:
    """Crop stored X-rays to squares and normalise them for the encoders.

    Args:
        image: (b, 1, H, W) uint8, b may be 0; each picture in the top left corner.
        height: (b,) valid rows of each picture, at least `side`.
        width: (b,) valid columns, at least `side`.
        side: of the crop, the short side of the stored pictures.
        rng: draws the crop's place, afresh in every epoch; None takes the centre.

    Returns:
        (b, 3, side, side) float32.
    """
    room = np.stack([height, width], axis=1).astype(np.int64) - side
    place = room // 2 if rng is None else np.floor(rng.random(room.shape) * (room + 1)).astype(np.int64)
    crops = np.empty((len(image), side, side), dtype=np.uint8)
    for crop, picture, (y, x) in zip(crops, image, place.tolist(), strict=True):
        crop[:] = picture[0, y : y + side, x : x + side]
    grey = torch.from_numpy(crops).unsqueeze(1).float().div_(255)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (grey - mean).div_(std)


def as_released(image: NDArray[np.float32]) -> Tensor:
    """X-rays of an imported release, which are cropped and normalised already, as they are."""
    return torch.from_numpy(image)


def undo_normalisation(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A normalised picture (3, side, side) as the pixels (side, side, 3) it was made of."""
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels: NDArray[np.uint8] = np.rint((image * std + mean) * 255).clip(0, 255).astype(np.uint8)
    return np.moveaxis(pixels, 0, -1)


def build(dim: int, options: EncoderOptions) -> nn.Module:
    """An encoder (b, 3, side, side) -> (b, dim).

    Raises:
        ConfigError: ImageNet weights that cannot be had.
        NotFoundError: no file at `options.weights`.
        MismatchError: a weights file that does not fit.
    """
    assert isinstance(options, Options)
    if options.arch == "small":
        encoder: nn.Module = SmallImageEncoder(dim=dim, channels=3)
    else:
        encoder = resnet(options.arch, dim=dim, channels=3, imagenet=options.pretrained == "imagenet")
    if options.weights is not None:
        load_start(encoder, options.weights)
    return encoder
