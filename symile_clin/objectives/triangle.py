"""TRIANGLE: the tips of three matched vectors make a small triangle, those of mismatched ones a large one.

Source: Cicchetti, Grassucci, Comminiello, "A TRIANGLE Enables Multimodal Alignment Beyond Cosine Similarity", NeurIPS
2025 (arXiv 2509.24734), and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Generator, Tensor

from symile_clin.errors import ConfigError
from symile_clin.objectives.anchored import INITIAL_TEMPERATURE, anchored_loss
from symile_clin.objectives.base import Embeddings, Memory, Objective, Present
from symile_clin.strict import Strict

#: Rounding errors of a squared area between unit vectors, in units of the type's epsilon.
ROUNDING = 8


class TriangleOptions(Strict):
    """Options of the objective "triangle"; see `Triangle`."""

    anchor: str | None = None
    squared: bool = False
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


@final
class Triangle(Objective):
    """Contrasts an anchor with the pair of the two other modalities by the area between the three; l2-normalised.

    Defined for three modalities. The paper's second loss, a matching head on a fusion encoder, is no function of
    embeddings and left out.

    Args:
        anchor: the modality that is the anchor; the paper has one (text). None takes each in turn and the mean of them.
        squared: twice the squared area instead of the area, as the authors' training code does: it drops the root.
        label_smoothing: of both cross-entropies; the authors' code has 0.1.
    """

    name: ClassVar[str] = "triangle"
    Options: ClassVar[type[Strict]] = TriangleOptions
    defined_for: ClassVar[int | None] = 3

    def __init__(self, anchor: str | None = None, squared: bool = False, label_smoothing: float = 0.0) -> None:
        super().__init__("l2")
        self.anchor = anchor
        self.squared = squared
        self.label_smoothing = label_smoothing

    def initial_logit_scale(self, dim: int, modalities: int) -> float:  # noqa: ARG002  areas between unit vectors
        """The code's log(1 / 0.07)."""
        return math.log(1 / INITIAL_TEMPERATURE)

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:  # noqa: ARG002  each process takes all of it
        """Tables of areas and of what they are made of, for each anchor."""
        anchors = modalities if self.anchor is None else 1
        return Memory(
            "4 (8 a + 3) n² + 16 (2 a + 1) n d, a anchors",
            4 * (8 * anchors + 3) * n**2 + 16 * (2 * anchors + 1) * n * dim,
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

        Where a modality is absent, its placeholder is the third tip.

        Raises:
            ConfigError: other than three modalities, or none is called `anchor`.
        """
        _refuse_unless_three(embeddings)
        return anchored_loss(
            embeddings,
            scale,
            similarity=lambda anchors, tuples: -self._area(anchors, tuples),
            anchor=self.anchor,
            label_smoothing=self.label_smoothing,
            keep_placeholders=True,
            present=present,
        )

    def score(
        self,
        queries: Embeddings,
        candidates: Tensor,
        *,
        target: str,
        present: Present | None = None,  # noqa: ARG002  an absent modality's embedding is its placeholder
    ) -> Tensor:
        """Minus the area between each candidate and the two queries, (q, c).

        Raises:
            ConfigError: other than two queries.
        """
        _refuse_unless_three([*queries, target])
        return -self._area(candidates, list(queries.values())).T

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> None:
        """None: an area is no inner product."""

    def _area(self, anchors: Tensor, tuples: Sequence[Tensor]) -> Tensor:
        return 2 * squared_area(anchors, *tuples) if self.squared else area(anchors, *tuples)


def area(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Area of the triangle between each x_i and each pair (y_j, z_j).

    Args:
        x: (a, d).
        y: (t, d).
        z: (t, d).

    Returns:
        (a, t). Squares below their rounding error count as that error, with zero gradient: the root has none at 0.
    """
    squared = squared_area(x, y, z)
    return squared.clamp(min=ROUNDING * torch.finfo(squared.dtype).eps).sqrt()


def squared_area(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """(|w|² |x - y|² - ⟨x - y, w⟩²) / 4 with the side w = z - y, which both corners of a pair share, (a, t)."""
    side = z - y
    to_corner = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1) - 2 * x @ y.T
    along = x @ side.T - (y * side).sum(dim=1)
    return (side.square().sum(dim=1) * to_corner - along.square()) / 4


def _refuse_unless_three(modalities: Collection[str]) -> None:
    if len(modalities) != 3:
        raise ConfigError(
            f"TRIANGLE is an area between three modalities, and here are {len(modalities)}",
            remedy="Use `objective.name: gram`, which is defined for any number",
        )
