"""Symile: one objective for any number of modalities, sensitive to what only all of them together tell.

Source: Saporta, Puli, Goldstein, Ranganath, "Contrasting with Symile: Simple Model-Agnostic Representation Learning
for Unlimited Modalities", NeurIPS 2024, sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, final

import torch
from torch import Generator, Tensor

from symile_clin.objectives import negatives as sampling
from symile_clin.objectives.base import Embeddings, Memory, Normalization, Objective, Present
from symile_clin.objectives.presence import presence_patterns
from symile_clin.objectives.similarity import product
from symile_clin.objectives.slabs import MIB, Budget, cost
from symile_clin.ranks import ALONE, Ranks
from symile_clin.strict import Strict

Negatives = Literal["exhaustive", "permuted"]
Precision = Literal["auto", "fp32", "bf16"]

#: Spread (standard deviation) of the logits of mismatched tuples at the start. The paper's start is 0.08 (e^-7 at
#: d = 8192); on the demo cohort 0.3 to 1 find the synergy within 25 epochs, and 0.1 does not.
INITIAL_SPREAD = 0.5


class SymileOptions(Strict):
    """Options of the objective "symile"; see `Symile`."""

    negatives: Negatives = "exhaustive"
    normalization: Normalization = "layernorm"
    precision: Precision = "auto"


@final
class Symile(Objective):
    """Contrasts matched with mismatched tuples by their multilinear inner product, each modality in turn as anchor.

    The loss is the mean over the k anchors, as in the paper's code.

    Args:
        negatives: "exhaustive" takes all n^(k-1) tuples of a batch, "permuted" n of them per anchor, drawn.
        normalization: of the embeddings; the paper's is "layernorm".
        precision: of the operands of exhaustive negatives' matrix products, for float32 embeddings; sums, logits and
            softmaxes are float32 either way. "auto" is bf16 on a CUDA device that has it, float32 elsewhere.
    """

    name: ClassVar[str] = "symile"
    Options: ClassVar[type[Strict]] = SymileOptions

    def __init__(
        self,
        negatives: Negatives = "exhaustive",
        normalization: Normalization = "layernorm",
        precision: Precision = "auto",
    ) -> None:
        super().__init__(normalization)
        self.negatives: Negatives = negatives
        self.precision: Precision = precision

    def initial_logit_scale(self, dim: int, modalities: int) -> float:
        """The scale at which mismatched logits start with `INITIAL_SPREAD`, whatever the dimension.

        Products of independent embeddings spread by sqrt(dim) under LayerNorm and by dim^(-(k-1)/2) under L2.
        """
        spread = 0.5 if self.normalization == "layernorm" else -(modalities - 1) / 2
        return math.log(INITIAL_SPREAD) - spread * math.log(dim)

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:
        """The cube of all tuples, whole or slab by slab; or a table for each anchor."""
        k = modalities
        if self.negatives == "permuted":
            return Memory("(6 k + 8) n² + 8 k² n d", (6 * k + 8) * n**2 + 8 * k**2 * n * dim)
        budget = Budget.of(device, cube=4 * n**k)
        found = cost([n] * k, dim, element_size=4, budget=budget, processes=processes)
        cube = "4 n^k" if found.kept else f"{budget.slab / MIB:.0f} MiB of slabs instead of the cube's 4 n^k"
        return Memory(
            f"{cube}{' / processes' if processes > 1 else ''} + 12 n^(k-1) + 12 k n d",
            found.bytes + 8 * k * n * dim,
            "objective.negatives: permuted (n negatives instead of n^(k-1))",
        )

    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Mean cross-entropy over anchors and samples, in nats; see `Objective.loss`.

        Raises:
            ConfigError: exhaustive negatives of so large a batch are too much work.
        """
        return self.share_of_loss(embeddings, scale, ranks=ALONE, present=present, generator=generator)

    def share_of_loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        ranks: Ranks,
        present: Present | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """See `Objective.share_of_loss`; exhaustive negatives are split by tuples, permuted ones by anchors."""
        patterns = presence_patterns(embeddings, present)
        total, terms = scale * 0, 0
        if not patterns or any(pattern.placeholders for pattern in patterns):
            # Nothing of each embedding: all of them then have a gradient, whichever are absent throughout.
            total = total + sum(tensor[:0].sum() for tensor in embeddings.values())
        for pattern in patterns:
            first, *others = pattern.tensors
            tensors = [first * product([scale, *pattern.placeholders]), *others]
            if self.negatives == "exhaustive":
                operands = _operand_type(self.precision, first)
                losses = sampling.exhaustive(tensors, pattern.matched, operands=operands, ranks=ranks)
            else:
                losses = sampling.permuted(tensors, pattern.matched, generator=generator, ranks=ranks)
            total = total + losses.sum()
            terms += pattern.matched.numel()
        return total / max(terms, 1)

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


def _operand_type(precision: Precision, tensor: Tensor) -> torch.dtype | None:
    if tensor.dtype != torch.float32 or precision == "fp32":
        return None
    if precision == "auto" and not (tensor.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)):
        return None
    return torch.bfloat16
