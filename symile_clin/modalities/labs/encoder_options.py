"""Settings of the lab encoder in a training config. Torch-free, so that configs are checked without it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from symile_clin.modalities.base import EncoderOptions


class Options(EncoderOptions):
    """Size of the multilayer perceptron over percentiles and indicators.

    Attributes:
        hidden: widths of the hidden layers; the default is the paper's.
        dropout: share of hidden units left out in training; 0 is the paper's.
    """

    arch: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field(default=(256, 1024), min_length=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
