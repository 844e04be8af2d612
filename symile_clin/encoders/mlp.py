"""Multilayer perceptron."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def mlp(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers between `widths`, GELU (and dropout) after each but the last.

    Args:
        widths: of input, hidden layers and output.
        dropout: share of hidden units left out in training.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        if layers:
            layers += [nn.GELU(), nn.Dropout(dropout)] if dropout else [nn.GELU()]
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)
