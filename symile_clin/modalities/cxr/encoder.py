"""Stored X-rays to network input, and the X-ray encoders. Imports torch: only called through the room's methods."""

from __future__ import annotations

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


#: Random numbers that the place of a crop takes.
DRAWS = 2


def to_input(image: Tensor, *, height: Tensor, width: Tensor, side: int, draws: Tensor | None) -> Tensor:
    """Crop stored X-rays to squares and normalise them for the encoders, on the device they are on.

    Args:
        image: (b, 1, H, W) uint8, b may be 0; each picture in the top left corner.
        height: (b,) valid rows of each picture, at least `side`.
        width: (b,) valid columns, at least `side`.
        side: of the crop, the short side of the stored pictures.
        draws: (b, 2) in [0, 1), place of the crop; None takes the centre.

    Returns:
        (b, 3, side, side) float32.
    """
    room = torch.stack([height, width], dim=1).to(torch.int64) - side
    place = room // 2 if draws is None else (draws * (room + 1)).floor().to(torch.int64)
    squares = image[:, 0].unfold(1, side, 1).unfold(2, side, 1)  # every square of every picture, as a view
    crops = squares[torch.arange(len(image), device=image.device), place[:, 0], place[:, 1]]
    grey = crops.unsqueeze(1).float().div_(255)
    mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey - mean).div_(std)


def released_input(image: NDArray[np.uint8], *, height: int, width: int, side: int) -> NDArray[np.float32]:
    """A stored X-ray (1, H, W) as a release's held-out splits have it: (3, side, side), cropped in the centre."""
    sizes = {"height": torch.tensor([height]), "width": torch.tensor([width])}
    found: NDArray[np.float32] = to_input(torch.from_numpy(image)[None], **sizes, side=side, draws=None)[0].numpy()
    return found


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
