"""GRAM: matched vectors span a small volume, mismatched ones a large one.

Source: Cicchetti, Grassucci, Sigillo, Comminiello, "Gramian Multimodal Representation Learning and Alignment", ICLR
2025 (arXiv 2412.11959), and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Generator, Tensor

from symile_clin.objectives.anchored import INITIAL_TEMPERATURE, anchored_loss
from symile_clin.objectives.base import Embeddings, Memory, Objective, Present
from symile_clin.objectives.terms import presence
from symile_clin.strict import Strict

#: Rounding errors of a determinant of unit vectors, in units of the type's epsilon: below, its root says nothing.
ROUNDING = 8


class GramOptions(Strict):
    """Options of the objective "gram"; see `Gram`."""

    anchor: str | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


@final
class Gram(Objective):
    """Contrasts an anchor with the tuple of all other modalities by the volume of what they span; l2-normalised.

    The paper's second loss, a data-anchor matching head on a fusion encoder, is no function of embeddings and left out.

    Args:
        anchor: the modality that is the anchor; the paper has one (text). None takes each in turn and the mean of them.
        label_smoothing: of both cross-entropies; the authors' code has 0.1.
    """

    name: ClassVar[str] = "gram"
    Options: ClassVar[type[Strict]] = GramOptions

    def __init__(self, anchor: str | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__("l2")
        self.anchor = anchor
        self.label_smoothing = label_smoothing

    def initial_logit_scale(self, dim: int, modalities: int) -> float:  # noqa: ARG002  volumes of unit vectors
        """The code's log(1 / 0.07)."""
        return math.log(1 / INITIAL_TEMPERATURE)

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:  # noqa: ARG002  each process takes all of it
        """Tables of products with each of a tuple's members, and of their determinants, for each anchor."""
        anchors = modalities if self.anchor is None else 1
        return Memory(
            "4 (a (2 k + 5) + 2) n² + 4 (3 a + 2) k n d, a anchors",
            4 * (anchors * (2 * modalities + 5) + 2) * n**2 + 4 * (3 * anchors + 2) * modalities * n * dim,
            "objective.anchor (one instead of each in turn)" if anchors > 1 else "",
        )

    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,
        generator: Generator | None = None,  # noqa: ARG002  every negative is used
    ) -> Tensor:
        """Mean over anchors, samples and both directions, in nats; see `Objective.loss`.

        The volume is that of the vectors which a sample has.

        Raises:
            ConfigError: no modality is called `anchor`.
        """
        return anchored_loss(
            embeddings,
            scale,
            similarity=lambda anchors, tuples: -volume(anchors, tuples),
            anchor=self.anchor,
            label_smoothing=self.label_smoothing,
            keep_placeholders=False,
            present=present,
        )

    def score(
        self,
        queries: Embeddings,
        candidates: Tensor,
        *,
        target: str,  # noqa: ARG002  the same for every target
        present: Present | None = None,
    ) -> Tensor:
        """Minus the volume of each candidate with the queries that are present, (q, c); zero where none is."""
        here = torch.stack(list(presence(queries, present).values()), dim=1)
        scores = candidates.new_zeros(len(here), len(candidates))
        for pattern in torch.unique(here[here.any(dim=1)], dim=0):
            rows = (here == pattern).all(dim=1).nonzero().squeeze(1)
            known = [query[rows] for query, has in zip(queries.values(), pattern.tolist(), strict=True) if has]
            scores = scores.index_put((rows,), -volume(candidates, known).T)
        return scores

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> None:
        """None: a volume is no inner product."""


def volume(anchors: Tensor, tuples: Sequence[Tensor]) -> Tensor:
    """Volume of the parallelotope that each anchor spans with each tuple: the root of their Gram determinant.

    With G the tuple's own Gram matrix and v its inner products with the anchor a, the determinant is
    |a|² det G - vᵀ adj(G) v: one adjugate per tuple, polynomials per pair, and no division that parallel vectors break.

    Args:
        anchors: (a, d).
        tuples: k - 1 tensors (t, d).

    Returns:
        (a, t). Determinants below their rounding error count as that error, with zero gradient: the root has none at 0.
    """
    others = torch.stack(list(tuples), dim=1)
    determinant, adjugate = _determinant_and_adjugate(others @ others.mT)
    own = torch.stack([anchors @ other.T for other in tuples], dim=-1)
    squared = anchors.square().sum(dim=1, keepdim=True) * determinant
    squared = squared - torch.einsum("atm,tml,atl->at", own, adjugate, own)
    return squared.clamp(min=ROUNDING * torch.finfo(squared.dtype).eps).sqrt()


def _determinant_and_adjugate(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """(t,) and (t, m, m) of (t, m, m) by the Faddeev-LeVerrier recursion, all polynomials: gradients are finite."""
    m = matrices.shape[-1]
    identity = torch.eye(m, dtype=matrices.dtype, device=matrices.device)
    term = identity.expand_as(matrices)
    for step in range(1, m):
        product = matrices @ term
        term = product - (_trace(product) / step)[:, None, None] * identity
    sign = (-1) ** (m - 1)
    return sign * _trace(matrices @ term) / m, sign * term


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
