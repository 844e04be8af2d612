"""Pairwise CLIP: the contrastive loss of every pair of modalities, blind to what no pair tells.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; over all
pairs as the baseline of Saporta et al., NeurIPS 2024, section 5.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import ClassVar, Literal, final

import torch
from torch import Generator, Tensor

from symile_clin.objectives.base import Embeddings, Memory, Normalization, Objective, Present
from symile_clin.objectives.terms import mean_of, presence
from symile_clin.strict import Strict

Reduction = Literal["mean", "sum"]

#: CLIP's temperature at the start, of cosines.
INITIAL_TEMPERATURE = 0.07


class PairwiseClipOptions(Strict):
    """Options of the objective "clip"; see `PairwiseClip`."""

    reduction: Reduction = "mean"
    normalization: Normalization = "l2"


@final
class PairwiseClip(Objective):
    """Symmetric InfoNCE over all k(k-1)/2 pairs of modalities.

    Args:
        reduction: "mean" over pairs, or "sum" as in the Symile paper's code: the mean times the number of pairs.
        normalization: of the embeddings; CLIP's is "l2", the Symile paper's "layernorm".
    """

    name: ClassVar[str] = "clip"
    Options: ClassVar[type[Strict]] = PairwiseClipOptions

    def __init__(self, reduction: Reduction = "mean", normalization: Normalization = "l2") -> None:
        super().__init__(normalization)
        self.reduction: Reduction = reduction

    def initial_logit_scale(self, dim: int, modalities: int) -> float:  # noqa: ARG002  pairs, however many
        """CLIP's log(1 / 0.07) for cosines; LayerNorm's inner products are `dim` times a cosine."""
        start = math.log(1 / INITIAL_TEMPERATURE)
        return start if self.normalization == "l2" else start - math.log(dim)

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:  # noqa: ARG002  each process takes all of it
        """Two tables of each pair, and copies of its embeddings."""
        pairs = modalities * (modalities - 1) / 2
        return Memory(
            "4 (p + 5) n² + 8 k² n d, p = k (k - 1) / 2 pairs",
            4 * (pairs + 5) * n**2 + 8 * modalities**2 * n * dim,
        )

    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,
        generator: Generator | None = None,  # noqa: ARG002  every negative is used
    ) -> Tensor:
        """InfoNCE, both directions of a pair averaged, in nats; see `Objective.loss`.

        A pair is contrasted within the samples that have both, and the mean is over all such samples of all pairs.
        """
        here = presence(embeddings, present)
        pairs = list(combinations(embeddings, 2))
        terms = []
        for one, other in pairs:
            both = (here[one] & here[other]).nonzero().squeeze(1)
            if len(both):
                terms.append(_info_nce(embeddings[one][both], embeddings[other][both], scale))
        mean = mean_of(terms, embeddings, scale)
        return mean if self.reduction == "mean" else len(pairs) * mean

    def score(self, queries: Embeddings, candidates: Tensor, *, target: str, present: Present | None = None) -> Tensor:
        """Sum over the queries that are present of their inner products with each candidate, (q, c).

        The products among the queries, which the Symile paper's code adds, are the same for every candidate.
        """
        return self.query_vector(queries, target, present=present) @ candidates.T

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> Tensor:  # noqa: ARG002  the same for every target
        """Sum of the embeddings of the queries that are present, (q, d)."""
        here = presence(queries, present)
        known = [torch.where(here[name].unsqueeze(1), query, 0) for name, query in queries.items()]
        return torch.stack(known).sum(dim=0)


def _info_nce(one: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """(n,), both directions averaged."""
    logits = (one * scale) @ other.T
    both = torch.logsumexp(logits, dim=1) + torch.logsumexp(logits, dim=0)
    return both / 2 - logits.diagonal()
