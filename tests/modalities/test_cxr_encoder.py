"""X-rays to input: crops that stay inside the picture, ImageNet's normalisation; every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from symile_clin.modalities.cxr.encoder import IMAGENET_MEAN, IMAGENET_STD, build, to_input
from symile_clin.modalities.cxr.encoder_options import Options
from symile_clin.strict import problems

SIDE = 8
HEIGHT, WIDTH = np.array([12, 8, 8]), np.array([8, 12, 8])


def _stored() -> NDArray[np.uint8]:
    """Pictures (3, 1, 12, 12) of distinct pixels, 0 where padded."""
    image = np.arange(3 * 144, dtype=np.uint64).reshape(3, 1, 12, 12) * 37 % 251 + 1
    for picture, height, width in zip(image, HEIGHT, WIDTH, strict=True):
        picture[:, height:], picture[:, :, width:] = 0, 0
    return image.astype(np.uint8)


def _pixels(tensor: torch.Tensor) -> NDArray[np.int64]:
    """Back to grey levels, (b, 3, side, side)."""
    mean, std = np.array(IMAGENET_MEAN)[:, None, None], np.array(IMAGENET_STD)[:, None, None]
    grey: NDArray[np.int64] = np.rint((tensor.double().numpy() * std + mean) * 255).astype(np.int64)
    return grey


def test_evaluation_takes_the_centre_in_three_equal_channels() -> None:
    image = _stored()
    tensor = to_input(image, height=HEIGHT, width=WIDTH, side=SIDE, rng=None)
    assert tensor.shape == (3, 3, SIDE, SIDE)
    assert tensor.dtype == torch.float32
    pixels = _pixels(tensor)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[0, channel], image[0, 0, 2:10, :8])
        np.testing.assert_array_equal(pixels[1, channel], image[1, 0, :8, 2:10])
        np.testing.assert_array_equal(pixels[2, channel], image[2, 0, :8, :8])


def test_training_crops_reach_both_ends_and_never_the_padding() -> None:
    image = _stored()
    seen = set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        pixels = _pixels(to_input(image, height=HEIGHT, width=WIDTH, side=SIDE, rng=rng))
        assert pixels.min() >= 1
        starts = [start for start in range(5) if np.array_equal(pixels[0, 0], image[0, 0, start : start + 8, :8])]
        assert len(starts) == 1
        seen.update(starts)
        np.testing.assert_array_equal(pixels[2, 0], image[2, 0, :8, :8])
    assert seen == {0, 1, 2, 3, 4}


def test_crops_follow_the_rng_alone() -> None:
    one, same, other = (
        to_input(_stored(), height=HEIGHT, width=WIDTH, side=SIDE, rng=np.random.default_rng(seed))
        for seed in (1, 1, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("arch", ["resnet50", "resnet18", "small"])
def test_every_architecture_embeds_and_learns(arch: str) -> None:
    encoder = build(16, Options.model_validate({"arch": arch}))
    embedding = encoder(torch.randn(2, 3, 64, 64))
    assert embedding.shape == (2, 16)
    torch.autograd.backward(embedding.square().sum())
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_contradictory_starts_are_refused() -> None:
    assert "two starts" in problems(Options, {"pretrained": "imagenet", "weights": "x.pt"})[0]
    assert "no ImageNet weights" in problems(Options, {"pretrained": "imagenet", "arch": "small"})[0]
    assert problems(Options, {"pretrained": "imagenet"}) == []
