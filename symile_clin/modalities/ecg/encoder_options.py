"""Settings of the ECG encoder in a training config. Torch-free, so that configs are checked without it."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from symile_clin.modalities.base import EncoderOptions


class Options(EncoderOptions):
    """Which waveform encoder, and what it starts from.

    Attributes:
        arch: "resnet18_image" is the paper's 2-D ResNet-18 over the (5000, 12) image, "resnet18_1d" one over
            time with leads as channels; "small" trains on a CPU in seconds.
        pretrained: "imagenet" starts "resnet18_image" from torchvision's ImageNet weights.
        weights: a local state_dict (.pt, .pth or .safetensors) to start from; its final layer is left out.
    """

    arch: Literal["resnet18_image", "resnet18_1d", "small"] = "resnet18_image"
    pretrained: Literal["none", "imagenet"] = "none"
    weights: str | None = None

    @model_validator(mode="after")
    def _one_start(self) -> Options:
        if self.pretrained == "imagenet" and self.weights is not None:
            raise ValueError("'pretrained: imagenet' and 'weights' are two starts; give one")
        if self.pretrained == "imagenet" and self.arch != "resnet18_image":
            raise ValueError(f"there are no ImageNet weights for 'arch: {self.arch}'; use resnet18_image")
        return self
