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

from symile_clin.objectives.base import Embeddings, Normalization, Objective, Present
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
        reduction: "mean" over pairs, or "sum" as in the Symile paper's code.
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

    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,  # noqa: ARG002
        generator: Generator | None = None,  # noqa: ARG002  every negative is used
    ) -> Tensor:
        """InfoNCE, both directions of a pair averaged, in nats; see `Objective.loss`."""
        pairs = torch.stack([_info_nce(one, other, scale) for one, other in combinations(embeddings.values(), 2)])
        return pairs.mean() if self.reduction == "mean" else pairs.sum()

    def score(
        self,
        queries: Embeddings,
        candidates: Tensor,
        *,
        target: str,
        present: Present | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Sum over the queries of their inner products with each candidate, (q, c).

        The products among the queries, which the Symile paper's code adds, are the same for every candidate.
        """
        return self.query_vector(queries, target) @ candidates.T

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> Tensor:  # noqa: ARG002  the same for every target
        """Sum of the queries' embeddings, (q, d)."""
        return torch.stack(list(queries.values())).sum(dim=0)


def _info_nce(one: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    logits = (one * scale) @ other.T
    both = torch.logsumexp(logits, dim=1) + torch.logsumexp(logits, dim=0)
    return (both / 2 - logits.diagonal()).mean()
