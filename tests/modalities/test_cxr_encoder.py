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
HEIGHT, WIDTH = torch.tensor([12, 8, 8]), torch.tensor([8, 12, 8])


def _stored() -> torch.Tensor:
    """Pictures (3, 1, 12, 12) of distinct pixels, 0 where padded."""
    image = np.arange(3 * 144, dtype=np.uint64).reshape(3, 1, 12, 12) * 37 % 251 + 1
    for picture, height, width in zip(image, HEIGHT.tolist(), WIDTH.tolist(), strict=True):
        picture[:, height:], picture[:, :, width:] = 0, 0
    return torch.from_numpy(image.astype(np.uint8))


def _pixels(tensor: torch.Tensor) -> NDArray[np.int64]:
    """Back to grey levels, (b, 3, side, side)."""
    mean, std = np.array(IMAGENET_MEAN)[:, None, None], np.array(IMAGENET_STD)[:, None, None]
    grey: NDArray[np.int64] = np.rint((tensor.double().numpy() * std + mean) * 255).astype(np.int64)
    return grey


def test_evaluation_takes_the_centre_in_three_equal_channels() -> None:
    image = _stored()
    tensor = to_input(image, height=HEIGHT, width=WIDTH, side=SIDE, draws=None)
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
        draws = torch.from_numpy(rng.random((3, 2)))
        pixels = _pixels(to_input(image, height=HEIGHT, width=WIDTH, side=SIDE, draws=draws))
        assert pixels.min() >= 1
        starts = [start for start in range(5) if np.array_equal(pixels[0, 0], image[0, 0, start : start + 8, :8])]
        assert len(starts) == 1
        seen.update(starts)
        np.testing.assert_array_equal(pixels[2, 0], image[2, 0, :8, :8])
    assert seen == {0, 1, 2, 3, 4}


def test_draws_from_zero_to_one_reach_from_the_first_place_to_the_last() -> None:
    image, nearly_one = _stored(), np.nextafter(1.0, 0.0)
    for draw, start in ((0.0, 0), (0.199, 0), (0.2, 1), (nearly_one, 4)):
        draws = torch.full((3, 2), draw, dtype=torch.float64)
        pixels = _pixels(to_input(image, height=HEIGHT, width=WIDTH, side=SIDE, draws=draws))
        np.testing.assert_array_equal(pixels[0, 0], image[0, 0, start : start + 8, :8])
        np.testing.assert_array_equal(pixels[1, 0], image[1, 0, :8, start : start + 8])


def test_an_empty_batch_stays_empty() -> None:
    none = to_input(_stored()[:0], height=HEIGHT[:0], width=WIDTH[:0], side=SIDE, draws=None)
    assert none.shape == (0, 3, SIDE, SIDE)


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
