"""The contract of an objective: loss and score live together, for a model must be scored as it was trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Generator, Tensor, nn

from symile_clin.strict import Strict

#: Embeddings by modality name, each (n, d), normalised as the objective asks.
Embeddings = Mapping[str, Tensor]
Normalization = Literal["layernorm", "l2"]


class Objective(nn.Module, ABC):
    """A contrastive objective over k >= 2 modalities.

    Attributes:
        name: key in the registry and in configs.
        Options: the constructor's arguments as a config gives them.
        normalization: what the model applies to every encoder's output; the scale's start belongs to it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Strict]]

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization: Normalization = normalization

    @abstractmethod
    def initial_logit_scale(self, dim: int, modalities: int) -> float:
        """Start of the learned log scale for `dim`-dimensional embeddings of `modalities` modalities."""

    @abstractmethod
    def loss(self, embeddings: Embeddings, scale: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Mean loss of a batch of matched rows.

        Args:
            embeddings: k tensors (n, d); row i of each belongs to sample i.
            scale: exp of the learned log scale, 0-d.
            generator: CPU generator of drawn negatives, where the objective draws any.

        Returns:
            0-d tensor, in nats.
        """

    @abstractmethod
    def score(self, queries: Embeddings, candidates: Tensor, *, target: str) -> Tensor:
        """Score of every candidate of modality `target` for every query; larger is better.

        Args:
            queries: the other modalities, each (q, d).
            candidates: (c, d).

        Returns:
            (q, c). The scale is left out: it does not change an order.
        """

    @abstractmethod
    def query_vector(self, queries: Embeddings, target: str) -> Tensor | None:
        """(q, d) whose inner product with a candidate is its score; None if the score is no inner product."""
