"""The contract of an objective: loss and score live together, for a model must be scored as it was trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, Tensor, device, nn

from symile_clin.ranks import Ranks
from symile_clin.strict import Strict

#: Embeddings by modality name, each (n, d), normalised as the objective asks.
Embeddings = Mapping[str, Tensor]
#: Which samples have a modality, by name, each (n,) bool.
Present = Mapping[str, Tensor]
Normalization = Literal["layernorm", "l2"]


@dataclass(frozen=True)
class Memory:
    """What a loss and its gradient take at the peak, beside the embeddings themselves.

    Attributes:
        formula: bytes, in n (samples of a batch), d (their dimension) and k (modalities).
        bytes: its value.
        remedy: what takes less of this objective; empty where there is nothing.
    """

    formula: str
    bytes: float
    remedy: str = ""


class Objective(nn.Module, ABC):
    """A contrastive objective over k >= 2 modalities.

    Attributes:
        name: key in the registry and in configs.
        Options: the constructor's arguments as a config gives them.
        defined_for: the number of modalities that it is defined for; None: any from two on.
        has_parameters: it is trained and saved with the model, and its constructor takes `dim` and `modalities`, too.
        normalization: what the model applies to every encoder's output; the scale's start belongs to it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Strict]]
    defined_for: ClassVar[int | None] = None
    has_parameters: ClassVar[bool] = False

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization: Normalization = normalization

    @abstractmethod
    def initial_logit_scale(self, dim: int, modalities: int) -> float:
        """Start of the learned log scale for `dim`-dimensional embeddings of `modalities` modalities."""

    @abstractmethod
    def memory(self, n: int, dim: int, modalities: int, *, device: device, processes: int = 1) -> Memory:
        """What the loss of a batch of n samples that have everything, and its gradient, take in float32.

        It is reckoned, and tested against allocations on a CPU: within a factor of 2.4, on the large side.

        Args:
            device: whose kernels are reckoned with.
            processes: that share the work.
        """

    @abstractmethod
    def loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        present: Present | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Mean loss of a batch of matched rows.

        An absent modality is never an anchor. It stays absent in the negatives of its sample, too: they take another
        sample's embedding only in place of a modality that the sample has, from samples that have it. So there is
        nothing to learn from the pattern of what is absent, and no negative equals the positive.

        Args:
            embeddings: k tensors (n, d); row i of each belongs to sample i, the learned placeholder where it is absent.
            scale: exp of the learned log scale, 0-d.
            present: which samples have each modality; None: every sample has all.
            generator: CPU generator of drawn negatives, where the objective draws any.

        Returns:
            0-d tensor, in nats; zero, with zero gradients, if there is nothing to contrast.
        """

    def share_of_loss(
        self,
        embeddings: Embeddings,
        scale: Tensor,
        *,
        ranks: Ranks,
        present: Present | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """What this process adds to the loss of a batch that all processes have gathered; the shares add up to `loss`.

        An equal share of what each computes whole, unless an objective splits the work.

        Args:
            embeddings: of the whole batch, as all other arguments; the generator is in the same state everywhere.
        """
        return self.loss(embeddings, scale, present=present, generator=generator) / ranks.size

    @abstractmethod
    def score(self, queries: Embeddings, candidates: Tensor, *, target: str, present: Present | None = None) -> Tensor:
        """Score of every candidate of modality `target` for every query; larger is better.

        Args:
            queries: the other modalities, each (q, d), the learned placeholder where absent.
            candidates: (c, d).
            present: which queries have each modality; None: every query has all.

        Returns:
            (q, c). The scale is left out: it does not change an order.
        """

    @abstractmethod
    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> Tensor | None:
        """(q, d) whose inner product with a candidate is its score; None if the score is no inner product."""
