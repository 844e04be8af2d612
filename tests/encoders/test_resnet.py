"""Residual networks: the paper's layers, and ImageNet weights with and without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from symile_clin.encoders.resnet import resnet, resnet18_1d
from symile_clin.errors import ConfigError


def test_resnet50_is_torchvisions_with_another_head() -> None:
    ours = resnet("resnet50", dim=16, channels=3, imagenet=False).state_dict()
    theirs = models.resnet50().state_dict()
    assert list(ours) == list(theirs)
    assert {name for name in ours if ours[name].shape != theirs[name].shape} == {"fc.weight", "fc.bias"}
    assert ours["fc.weight"].shape == (16, 2048)


def test_resnet18_over_a_one_channel_image_is_the_papers() -> None:
    encoder = resnet("resnet18", dim=16, channels=1, imagenet=False)
    first = encoder.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    assert (first.in_channels, first.out_channels, first.kernel_size, first.stride) == (1, 64, (7, 7), (2, 2))
    assert first.bias is None
    assert encoder(torch.rand(2, 1, 320, 12)).shape == (2, 16)


def test_resnet18_1d_takes_channels_and_time() -> None:
    assert resnet18_1d(dim=16, channels=12)(torch.rand(2, 12, 640)).shape == (2, 16)


def _cached_weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A file that torch takes for the ImageNet weights of ResNet-18."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    state: dict[str, torch.Tensor] = models.resnet18().state_dict()
    path = home / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return state


def test_torchs_words_about_a_download_stay_off_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(*_: object, **__: object) -> dict[str, torch.Tensor]:
        sys.stdout.write("Downloading ...")
        raise URLError("no network")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", download)
    with pytest.raises(ConfigError, match="not in torch's cache"):
        resnet("resnet18", dim=8, channels=3, imagenet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("channels", [1, 3])
def test_imagenet_weights_in_torchs_cache_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    state = _cached_weights(tmp_path, monkeypatch)
    encoder = resnet("resnet18", dim=8, channels=channels, imagenet=True).eval()
    assert torch.equal(encoder.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    grey = torch.rand(2, 1, 64, 64)
    donor = models.resnet18()
    donor.load_state_dict(state)
    expected = donor.conv1(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder.get_submodule("conv1")(grey.expand(-1, channels, -1, -1)), expected)


def test_without_a_network_the_error_says_where_the_file_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(ConfigError) as caught:
        resnet("resnet50", dim=8, channels=3, imagenet=True)
    text = str(caught.value)
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in text
    assert "Name or service not known" in text
    assert "weights: PATH" in text
