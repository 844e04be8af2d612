"""Symile: one objective for any number of modalities, sensitive to what only all of them together tell.

Source: Saporta, Puli, Goldstein, Ranganath, "Contrasting with Symile: Simple Model-Agnostic Representation Learning
for Unlimited Modalities", NeurIPS 2024, sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, final

from torch import Generator, Tensor

from symile_clin.objectives import negatives as sampling
from symile_clin.objectives.base import Embeddings, Normalization, Objective, Present
from symile_clin.objectives.similarity import product
from symile_clin.strict import Strict

Negatives = Literal["exhaustive", "permuted"]

#: Spread (standard deviation) of the logits of mismatched tuples at the start. The paper's start is 0.08 (e^-7 at
#: d = 8192); on the demo cohort 0.3 to 1 find the synergy within 25 epochs, and 0.1 does not.
INITIAL_SPREAD = 0.5


class SymileOptions(Strict):
    """Options of the objective "symile"; see `Symile`."""

    negatives: Negatives = "exhaustive"
    normalization: Normalization = "layernorm"


@final
class Symile(Objective):
    """Contrasts matched with mismatched tuples by their multilinear inner product, each modality in turn as anchor.

    The loss is the mean over the k anchors, as in the paper's code.

    Args:
        negatives: "exhaustive" takes all n^(k-1) tuples of a batch, "permuted" n of them per anchor, drawn.
        normalization: of the embeddings; the paper's is "layernorm".
    """

    name: ClassVar[str] = "symile"
    Options: ClassVar[type[Strict]] = SymileOptions

    def __init__(self, negatives: Negatives = "exhaustive", normalization: Normalization = "layernorm") -> None:
        super().__init__(normalization)
        self.negatives: Negatives = negatives

    def initial_logit_scale(self, dim: int, modalities: int) -> float:
        """The scale at which mismatched logits start with `INITIAL_SPREAD`, whatever the dimension.

        Products of independent embeddings spread by sqrt(dim) under LayerNorm and by dim^(-(k-1)/2) under L2.
        """
        spread = 0.5 if self.normalization == "layernorm" else -(modalities - 1) / 2
        return math.log(INITIAL_SPREAD) - spread * math.log(dim)

    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,  # noqa: ARG002
        generator: Generator | None = None,
    ) -> Tensor:
        """Mean cross-entropy over anchors and samples, in nats; see `Objective.loss`."""
        tensors = list(embeddings.values())
        if self.negatives == "exhaustive":
            return sampling.exhaustive(tensors, scale).mean()
        return sampling.permuted(tensors, scale, generator).mean()

    def score(
        self,
        queries: Embeddings,
        candidates: Tensor,
        *,
        target: str,
        present: Present | None = None,  # noqa: ARG002  an absent modality's embedding is its placeholder
    ) -> Tensor:
        """Multilinear inner product of each query's embeddings with each candidate, (q, c)."""
        return self.query_vector(queries, target) @ candidates.T

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> Tensor:  # noqa: ARG002  the same for every target
        """Elementwise product of the queries' embeddings, (q, d)."""
        return product(queries.values())
