"""The encoder of vectors. Imports torch: only called through the room's methods."""

from __future__ import annotations

from torch import nn

from symile_clin.encoders.mlp import mlp
from symile_clin.modalities.base import EncoderOptions
from symile_clin.modalities.features.options import EncoderSettings


def build(dim: int, options: EncoderOptions, *, width: int) -> nn.Module:
    """An encoder (b, width) -> (b, dim)."""
    assert isinstance(options, EncoderSettings)
    hidden = options.hidden if options.arch == "mlp" else ()
    network = mlp(width, *hidden, dim)
    return nn.Sequential(nn.Dropout(options.dropout), network) if options.dropout else network
