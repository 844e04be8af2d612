"""Settings of the lab encoder in a training config. Torch-free, so that configs are checked without it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from symile_clin.modalities.base import EncoderOptions


class Options(EncoderOptions):
    """Size of the multilayer perceptron over percentiles and indicators, and what is done to its input.

    Attributes:
        hidden: widths of the hidden layers; the default is the paper's.
        standardize: bring percentiles and indicators to zero mean and unit spread first. As stored, indicators
            spread wider than percentiles, and a small training set learns who was measured before what was found.
        dropout: share of the inputs left out in training, as if more items were missing.
    """

    arch: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field(default=(256, 1024), min_length=1)
    standardize: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
