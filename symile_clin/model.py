"""One encoder per modality into a shared space, and the learned scale of their products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from symile_clin.objectives.base import Normalization


@final
class MultimodalEncoder(nn.Module):
    """Encoders by modality name, each followed by the normalisation that the objective asks for.

    Args:
        encoders: by modality name, from the room's input to (b, dim).
        dim: of the shared space.
        normalization: "layernorm" (with its own gain and bias per modality) or "l2".
        logit_scale_init: start of the learned log scale.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        *,
        dim: int,
        normalization: Normalization,
        logit_scale_init: float,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.normalizations = nn.ModuleDict(
            {name: nn.LayerNorm(dim) if normalization == "layernorm" else _UnitLength() for name in encoders}
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale_init)))

    @property
    def scale(self) -> Tensor:
        """exp of the learned log scale, 0-d."""
        return self.logit_scale.exp()

    def encode(self, name: str, tensor: Tensor) -> Tensor:
        """Normalised embeddings (b, dim) of one modality's input (b, ...)."""
        embedding: Tensor = self.normalizations[name](self.encoders[name](tensor))
        return embedding

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Normalised embeddings by modality, each (b, dim), in the order of `inputs`."""
        return {name: self.encode(name, tensor) for name, tensor in inputs.items()}


class _UnitLength(nn.Module):
    """Scales vectors to Euclidean length 1."""

    def forward(self, embedding: Tensor) -> Tensor:
        return functional.normalize(embedding, dim=-1)
