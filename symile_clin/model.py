"""One encoder per modality into a shared space, and the learned scale of their products."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
        placeholders: modalities that samples may lack; each gets a learned vector in the place of its encoder's output.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        *,
        dim: int,
        normalization: Normalization,
        logit_scale_init: float,
        placeholders: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.dim = dim
        self.encoders = nn.ModuleDict(encoders)
        self.normalizations = nn.ModuleDict(
            {name: nn.LayerNorm(dim) if normalization == "layernorm" else _UnitLength() for name in encoders}
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale_init)))
        self.placeholders = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(dim)) for name in encoders if name in placeholders}
        )

    @property
    def scale(self) -> Tensor:
        """exp of the learned log scale, 0-d."""
        return self.logit_scale.exp()

    def placeholder(self, name: str) -> Tensor | None:
        """(dim,) what stands where a modality is absent, normalised like an embedding; None if it was never absent."""
        absent: Tensor | None = (
            self.normalizations[name](self.placeholders[name]) if name in self.placeholders else None
        )
        return absent

    def encode(self, name: str, tensor: Tensor, here: Tensor | None = None) -> Tensor:
        """Normalised embeddings (b, dim) of one modality.

        Args:
            tensor: (b', ...) input of the b' samples that have it; encoders never see the others, whose zeros would
                pass through batch statistics.
            here: (b,) bool, which samples these are; None: all.

        Returns:
            The learned placeholder, normalised like the rest, where the modality is absent; NaN where it is absent and
            the model has never been trained without it, so that no score can use it unnoticed.
        """
        if here is None or len(here) == len(tensor):
            embedding: Tensor = self.normalizations[name](self.encoders[name](tensor))
            return embedding
        absent = self.placeholder(name)
        if absent is None:
            absent = self.logit_scale.new_full((self.dim,), torch.nan)
        whole = absent.expand(len(here), -1)
        if not len(tensor):
            return whole
        found: Tensor = self.normalizations[name](self.encoders[name](tensor))
        return whole.to(found.dtype).index_put((here,), found)

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Normalised embeddings by modality, each (b, dim), in the order of `inputs`; see `encode`."""
        return {name: self.encode(name, tensor, (present or {}).get(name)) for name, tensor in inputs.items()}


class _UnitLength(nn.Module):
    """Scales vectors to Euclidean length 1."""

    def forward(self, embedding: Tensor) -> Tensor:
        return functional.normalize(embedding, dim=-1)
