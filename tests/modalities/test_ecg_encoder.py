"""ECGs to input: one scale for all leads of a record; every architecture from the same tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from symile_clin.modalities.ecg.encoder import build, to_input
from symile_clin.modalities.ecg.encoder_options import Options
from symile_clin.strict import problems


def test_all_leads_of_a_record_share_one_scale() -> None:
    signal = np.zeros((2, 5000, 12), np.int16)
    signal[0, 10, 3], signal[0, 20, 7], signal[0, 30, 0] = 300, -100, 100
    signal[1, :, 5] = np.arange(5000)
    tensor = to_input(torch.from_numpy(signal))
    assert tensor.shape == (2, 1, 5000, 12)
    assert tensor.dtype == torch.float32
    assert tensor[0, 0, 10, 3] == 1
    assert tensor[0, 0, 20, 7] == -1
    assert tensor[0, 0, 30, 0] == 0
    assert tensor[0, 0, 0, 0] == -0.5  # zero lies a quarter of the way from -100 to 300
    assert (float(tensor[1].min()), float(tensor[1].max())) == (-1, 1)


def test_gain_and_baseline_cancel_out() -> None:
    signal = np.random.default_rng(0).integers(-500, 500, (2, 5000, 12), dtype=np.int16)
    louder = (signal * 3 + 70).astype(np.int16)
    torch.testing.assert_close(to_input(torch.from_numpy(signal)), to_input(torch.from_numpy(louder)))


def test_the_whole_range_of_int16_does_not_overflow() -> None:
    signal = np.zeros((1, 5000, 12), np.int16)
    signal[0, 0, 0], signal[0, 1, 0] = -32768, 32767
    tensor = to_input(torch.from_numpy(signal))
    assert (float(tensor.min()), float(tensor.max())) == (-1, 1)


def test_an_absent_record_becomes_a_finite_constant() -> None:
    assert (to_input(torch.zeros(1, 5000, 12, dtype=torch.int16)) == -1).all()


@pytest.mark.parametrize("arch", ["resnet18_image", "resnet18_1d", "small"])
def test_every_architecture_embeds_and_learns(arch: str) -> None:
    encoder = build(16, Options.model_validate({"arch": arch}))
    embedding = encoder(torch.randn(2, 1, 5000, 12))
    assert embedding.shape == (2, 16)
    torch.autograd.backward(embedding.square().sum())
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_one_dimensional_encoders_see_leads_as_channels() -> None:
    # Shuffling time inside a lead must matter; swapping two leads must, too, but a batch stays independent.
    encoder = build(8, Options.model_validate({"arch": "small"})).eval()
    image = torch.randn(2, 1, 5000, 12)
    both, first = encoder(image), encoder(image[:1])
    torch.testing.assert_close(both[:1], first, rtol=1e-4, atol=1e-5)
    swapped = image[..., [1, 0, *range(2, 12)]]
    assert not torch.allclose(encoder(swapped), both)


def test_a_file_starts_the_encoder_behind_the_reshaping(tmp_path: object) -> None:
    path = f"{tmp_path}/weights.pt"
    donor = build(32, Options.model_validate({"arch": "small"}))
    torch.save({name.removeprefix("1."): value for name, value in donor.state_dict().items()}, path)
    encoder = build(8, Options.model_validate({"arch": "small", "weights": path}))
    for name, value in encoder.state_dict().items():
        assert ".fc." in name or torch.equal(value, donor.state_dict()[name])


def test_imagenet_is_for_the_image_network_only() -> None:
    assert "no ImageNet weights" in problems(Options, {"pretrained": "imagenet", "arch": "resnet18_1d"})[0]
    assert "two starts" in problems(Options, {"pretrained": "imagenet", "weights": "x.pt"})[0]
    assert problems(Options, {"pretrained": "imagenet", "arch": "resnet18_image"}) == []
