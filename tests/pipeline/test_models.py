"""Choosing a device: what is not there is an error in words."""

from __future__ import annotations

import pytest
import torch

from symile_clin.errors import ConfigError
from symile_clin.pipeline.models import choose_device


def test_auto_is_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "no device is called 'gpu'"),
        ("meta", "'meta' is no kind of device"),
        ("mps", "'mps' is no kind of device"),
        ("cuda", "no CUDA device"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=words):
        choose_device(name)


def test_a_device_number_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="no 'cuda:2' here"):
        choose_device("cuda:2")
