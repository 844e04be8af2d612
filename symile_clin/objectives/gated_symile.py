"""Gated Symile: Symile whose query modalities a learned gate may replace, for each candidate, by neutral directions.

Source: Rheude, Hegselmann, Eils, Wild, "Hidden in the Multiplicative Interaction: Uncovering Fragility in Multimodal
Contrastive Learning", arXiv 2604.05834v2, and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product as every
from typing import ClassVar, final

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Generator, Tensor

from symile_clin.objectives.base import Embeddings, Memory, Objective, Present
from symile_clin.objectives.gate import GateKind, ModalityGate, NeutralKind
from symile_clin.objectives.similarity import product
from symile_clin.objectives.terms import mean_of, presence, with_company
from symile_clin.strict import Strict


class GatedSymileOptions(Strict):
    """Options of the objective "gated_symile"; see `GatedSymile`."""

    gate: GateKind = "sigmoid"
    null: bool = True
    neutral: NeutralKind = "learned"
    gate_dim: PositiveInt = 256
    temperature: PositiveFloat = 0.7
    strength: float = -3.0


@final
class GatedSymile(Objective):
    """Contrasts each target's candidates by their multilinear inner product with the gated queries; l2-normalised.

    For a candidate, a query modality's embedding e_m with weight w_m becomes the unit vector along
    (1 - β) e_m + β n_m, with n_m its neutral direction and β = α (1 - w_m); α is the gate's strength. As the gate looks
    at the candidate, so do negatives and scores: there is a target in place of an anchor, and only it is replaced.

    Args:
        dim: of the embeddings.
        modalities: their names.
        gate, null, neutral, gate_dim, temperature, strength: see `ModalityGate`; the defaults are the authors'.
    """

    name: ClassVar[str] = "gated_symile"
    Options: ClassVar[type[Strict]] = GatedSymileOptions
    has_parameters: ClassVar[bool] = True

    def __init__(
        self,
        *,
        dim: int,
        modalities: Sequence[str],
        gate: GateKind = "sigmoid",
        null: bool = True,
        neutral: NeutralKind = "learned",
        gate_dim: int = 256,
        temperature: float = 0.7,
        strength: float = -3.0,
    ) -> None:
        super().__init__("l2")
        self.gate = ModalityGate(
            dim=dim,
            modalities=modalities,
            kind=gate,
            null=null,
            neutral=neutral,
            gate_dim=gate_dim,
            temperature=temperature,
            strength=strength,
        )

    def initial_logit_scale(self, dim: int, modalities: int) -> float:
        """The scale at which mismatched logits start with a spread of 1, the authors' choice."""
        return (modalities - 1) / 2 * math.log(dim)

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:  # noqa: ARG002  each process takes all of it
        """Tables of every product of queries and neutral directions, for each target."""
        choices = modalities * 2 ** (modalities - 1)
        width = next(iter(self.gate.keys.parameters())).shape[0]
        return Memory(
            "48 k 2^(k-1) n² + 12 k 2^(k-1) n d + 8 k (d + 3 n) g, g = objective.gate_dim",
            48 * choices * n**2 + 12 * choices * n * dim + 8 * modalities * (dim + 3 * n) * width,
        )

    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,
        generator: Generator | None = None,  # noqa: ARG002  every candidate is used
    ) -> Tensor:
        """Mean over targets and samples, in nats; see `Objective.loss`.

        Candidates are the batch's samples that have the target. An absent query is its neutral direction.
        """
        here = presence(embeddings, present)
        terms = []
        for target, tensor in embeddings.items():
            rows = (here[target] & with_company(here)).nonzero().squeeze(1)
            if not len(rows):
                continue
            listed = here[target].nonzero().squeeze(1)
            others = {name: embedding[rows] for name, embedding in embeddings.items() if name != target}
            there = {name: mask[rows] for name, mask in here.items()}
            logits = scale * self.score(others, tensor[listed], target=target, present=there)
            own = torch.searchsorted(listed, rows).unsqueeze(1)
            terms.append(torch.logsumexp(logits, dim=1) - logits.gather(1, own).squeeze(1))
        return mean_of(terms, embeddings, scale)

    def score(self, queries: Embeddings, candidates: Tensor, *, target: str, present: Present | None = None) -> Tensor:
        """Multilinear inner product of each candidate with the queries as it gates them, (q, c).

        A product of sums a_m e_m + b_m n_m is the sum of 2^(k-1) products of the one or the other, whose coefficients
        alone depend on the candidate: so many matrix products, and no gated vector per query and candidate.
        """
        here = presence(queries, present)
        queries = self._known(queries, here)
        neutral = {name: self.gate.neutral(name) for name in queries}
        weights = self.gate(queries, candidates, target=target, here=here)
        shares = [self._shares(query, neutral[name], weights[name]) for name, query in queries.items()]
        vectors = [(query, neutral[name]) for name, query in queries.items()]
        total = candidates.new_zeros(())
        for choice in every((0, 1), repeat=len(queries)):
            mixed = product(pair[one] for pair, one in zip(vectors, choice, strict=True))
            coefficient = product(pair[one] for pair, one in zip(shares, choice, strict=True))
            total = total + coefficient * (mixed @ candidates.T)
        return total

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> None:
        """None: each candidate sees other queries."""

    def weights(
        self, queries: Embeddings, candidates: Tensor, *, target: str, present: Present | None = None
    ) -> dict[str, Tensor]:
        """How far the gate trusts each query modality for each candidate, (q, c) in [0, 1]; arguments as of `score`."""
        here = presence(queries, present)
        weights: dict[str, Tensor] = self.gate(self._known(queries, here), candidates, target=target, here=here)
        return weights

    def _known(self, queries: Embeddings, here: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Queries with the neutral direction in place of what is absent, which then stays it whatever its weight."""
        return {
            name: torch.where(here[name].unsqueeze(1), query, self.gate.neutral(name))
            for name, query in queries.items()
        }

    def _shares(self, query: Tensor, neutral: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of a query and its neutral direction in their unit mixture, each (q, c)."""
        towards = self.gate.strength * (1 - weight)
        own = query.square().sum(dim=1, keepdim=True)
        inner = (query @ neutral).unsqueeze(1)
        squared = (1 - towards).square() * own + 2 * towards * (1 - towards) * inner + towards.square()
        length = squared.clamp(min=torch.finfo(squared.dtype).eps).sqrt()
        return (1 - towards) / length, towards / length
