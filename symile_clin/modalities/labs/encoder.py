"""Stored lab values to network input, and the lab encoder. Imports torch: only called through the room's methods."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from symile_clin.encoders.mlp import mlp
from symile_clin.modalities.base import EncoderOptions
from symile_clin.modalities.labs.encoder_options import Options


def to_input(percentile: Tensor, observed: Tensor) -> Tensor:
    """All percentiles, then all indicators (1 = observed), as the paper feeds them.

    Args:
        percentile: (b, items) float32, missing ones already filled.
        observed: (b, items) bool.

    Returns:
        (b, 2 * items) float32.
    """
    return torch.cat([percentile, observed.to(percentile.dtype)], dim=1)


def build(dim: int, options: EncoderOptions, *, items: int) -> nn.Module:
    """An encoder (b, 2 * items) -> (b, dim)."""
    assert isinstance(options, Options)
    network = mlp(2 * items, *options.hidden, dim)
    before: list[nn.Module] = [_Standardize(items)] if options.standardize else []
    before += [nn.Dropout(options.dropout)] if options.dropout else []
    return nn.Sequential(*before, network) if before else network


class _Standardize(nn.Module):
    """Percentiles are uniform on [0, 1] by their making; indicators become 1 and -1."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items

    def forward(self, values: Tensor) -> Tensor:
        percentile, observed = values[:, : self.items], values[:, self.items :]
        return torch.cat([(percentile - 0.5) * math.sqrt(12), observed * 2 - 1], dim=1)
