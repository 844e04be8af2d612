"""Starting encoders from files: what fits is loaded to the bit, what does not is named, nothing else is unpickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from symile_clin.encoders.resnet import resnet
from symile_clin.encoders.weights import load_exactly, load_start, read_state
from symile_clin.errors import MismatchError, NotFoundError


class Small(nn.Module):
    def __init__(self, *, channels: int = 3, dim: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2, 3)
        self.fc = nn.Linear(2, dim)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_everything_but_the_last_layer_is_loaded(tmp_path: Path, suffix: str) -> None:
    path, donor, encoder = tmp_path / f"weights{suffix}", Small(dim=1000), Small()
    head = encoder.fc.weight.clone()
    if suffix == ".pt":
        torch.save(donor.state_dict(), path)
    else:
        save_file(donor.state_dict(), path)
    load_start(encoder, str(path))
    assert torch.equal(encoder.conv1.weight, donor.conv1.weight)
    assert torch.equal(encoder.conv1.bias, donor.conv1.bias)  # type: ignore[arg-type]  # this layer has one
    assert torch.equal(encoder.fc.weight, head)


def test_colour_channels_are_summed_for_a_grey_encoder(tmp_path: Path) -> None:
    colour, grey = Small(channels=3), Small(channels=1)
    torch.save(colour.state_dict(), tmp_path / "colour.pth")
    load_start(grey, str(tmp_path / "colour.pth"))
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(grey.conv1(image), colour.conv1(image.expand(-1, 3, -1, -1)))


def test_a_torchvision_file_starts_a_resnet_of_another_head(tmp_path: Path) -> None:
    donor = resnet("resnet18", dim=1000, channels=3, imagenet=False)
    torch.save(donor.state_dict(), tmp_path / "resnet18.pth")
    encoder = resnet("resnet18", dim=8, channels=3, imagenet=False)
    load_start(encoder, str(tmp_path / "resnet18.pth"))
    for name, value in encoder.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, donor.state_dict()[name])


def test_what_does_not_fit_is_named() -> None:
    state = dict(Small().state_dict())
    del state["conv1.bias"]
    state |= {f"extra{number}": torch.zeros(1) for number in range(5)}
    state["conv1.weight"] = torch.zeros(2, 3, 5, 5)
    with pytest.raises(MismatchError) as caught:
        load_exactly(Small(), state, source="weights.pt")
    text = str(caught.value)
    assert "weights.pt does not fit the network" in text
    assert "missing: conv1.bias;" in text
    assert "unknown: extra0, extra1, extra2 and 2 more" in text
    assert "of another shape: conv1.weight [2, 3, 5, 5] instead of [2, 3, 3, 3]" in text


def test_a_failed_load_changes_nothing() -> None:
    module = Small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(MismatchError):
        load_exactly(module, {"conv1.weight": torch.zeros(2, 3, 3, 3)}, source="part")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_code_in_a_weights_file_never_runs(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(MismatchError, match=r"evil\.pt cannot be read as weights"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["broken.pt", "broken.safetensors", "empty.pt", "empty.safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"these are no weights at all" * 10)
    with pytest.raises(MismatchError, match="cannot be read as weights"):
        read_state(tmp_path / name)


def test_plain_values_are_no_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "state.pt")
    with pytest.raises(MismatchError, match="something else than tensors"):
        read_state(tmp_path / "state.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no weights file .*gone\.pt"):
        load_start(Small(), str(tmp_path / "gone.pt"))
