"""The gate of Gated Symile: how far to trust each query modality, given one candidate.

Source: Rheude, Hegselmann, Eils, Wild, "Hidden in the Multiplicative Interaction: Uncovering Fragility in Multimodal
Contrastive Learning", arXiv 2604.05834v2, and the constants of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

GateKind = Literal["sigmoid", "softmax"]
NeutralKind = Literal["learned", "random", "ones"]

#: Added to the softplus of the learned temperature, which it keeps away from zero.
SMALLEST_TEMPERATURE = 0.1


@final
class ModalityGate(nn.Module):
    """Attention of a candidate over the query modalities, with NULL as a further choice, and their neutral directions.

    With the candidate c of modality t, q = W_t c and k_m = U_m e_m brought to unit length, and the temperature τ:
    s_m = ⟨q, k_m⟩ / τ, and NULL's s_0 = (h(c) + b_t) / τ with a small network h. As "sigmoid", m's weight is
    σ(s_m) (1 - σ(s_0)); as "softmax", its share among all s and s_0. All of them are small if NULL is chosen.

    Args:
        dim: of the embeddings.
        modalities: their names.
        kind: how weights follow from attention.
        null: whether NULL can be chosen.
        neutral: "learned" directions, or fixed ones: "random", or "ones", which leave a product's direction as it is.
        gate_dim: width of q, k and h.
        temperature: τ is 0.1 + softplus(log temperature) at the start.
        strength: logit of the gate's strength at the start.
    """

    def __init__(
        self,
        *,
        dim: int,
        modalities: Sequence[str],
        kind: GateKind,
        null: bool,
        neutral: NeutralKind,
        gate_dim: int,
        temperature: float,
        strength: float,
    ) -> None:
        super().__init__()
        self.kind: GateKind = kind
        self.queries = nn.ModuleDict({name: nn.Linear(dim, gate_dim, bias=False) for name in modalities})
        self.keys = nn.ModuleDict({name: nn.Linear(dim, gate_dim, bias=False) for name in modalities})
        self.null: nn.Module | None = None
        if null:
            self.null = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, gate_dim), nn.ReLU(), nn.Linear(gate_dim, 1))
            self.null_bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in modalities})
        self.directions = nn.ParameterDict(
            {
                name: nn.Parameter(
                    torch.ones(dim) if neutral == "ones" else torch.randn(dim), requires_grad=neutral == "learned"
                )
                for name in modalities
            }
        )
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.strength_logit = nn.Parameter(torch.tensor(float(strength)))

    @property
    def strength(self) -> Tensor:
        """How far a weight of zero moves a modality towards its neutral direction, 0-d, in (0, 1)."""
        return torch.sigmoid(self.strength_logit)

    def neutral(self, modality: str) -> Tensor:
        """(dim,) the neutral direction, of unit length."""
        return functional.normalize(self.directions[modality], dim=0)

    def forward(
        self, queries: Mapping[str, Tensor], candidates: Tensor, *, target: str, here: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Weight of each query modality for each candidate, (q, c), in [0, 1]; 0 where it is absent.

        Args:
            queries: each (q, dim), finite where absent, too.
            candidates: (c, dim).
            target: modality of the candidates.
            here: which queries have each modality, (q,) bool.
        """
        temperature = functional.softplus(self.log_temperature) + SMALLEST_TEMPERATURE
        asked = functional.normalize(self.queries[target](candidates), dim=1)
        scores = torch.stack(
            [
                functional.normalize(self.keys[name](query), dim=1) @ asked.T / temperature
                for name, query in queries.items()
            ]
        )
        known = torch.stack([here[name] for name in queries]).unsqueeze(2)
        null = None
        if self.null is not None:
            null = (self.null(candidates).squeeze(1) + self.null_bias[target]) / temperature
        if self.kind == "sigmoid":
            weights = torch.sigmoid(scores) * (1 if null is None else torch.sigmoid(-null))
        else:
            scores = scores.masked_fill(~known, torch.finfo(scores.dtype).min)
            if null is not None:
                scores = torch.cat([scores, null.expand(1, *scores.shape[1:])])
            weights = torch.softmax(scores, dim=0)[: len(queries)]
        return dict(zip(queries, weights * known, strict=True))
