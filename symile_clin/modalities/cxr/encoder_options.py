"""Settings of the X-ray encoder in a training config. Torch-free, so that configs are checked without it."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from symile_clin.modalities.base import EncoderOptions


class Options(EncoderOptions):
    """Which image encoder, and what it starts from.

    Attributes:
        arch: "resnet50" is the paper's; "small" trains on a CPU in seconds.
        pretrained: "imagenet" starts a ResNet from torchvision's ImageNet weights.
        weights: a local state_dict (.pt, .pth or .safetensors) to start from; its final layer is left out.
    """

    arch: Literal["resnet50", "resnet18", "small"] = "resnet50"
    pretrained: Literal["none", "imagenet"] = "none"
    weights: str | None = None

    @model_validator(mode="after")
    def _one_start(self) -> Options:
        if self.pretrained == "imagenet" and self.weights is not None:
            raise ValueError("'pretrained: imagenet' and 'weights' are two starts; give one")
        if self.pretrained == "imagenet" and self.arch == "small":
            raise ValueError("there are no ImageNet weights for 'arch: small'; use resnet18 or resnet50")
        return self
