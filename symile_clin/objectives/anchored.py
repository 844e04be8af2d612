"""An anchor modality against the tuple of all others, both ways: the contrast that GRAM and TRIANGLE share.

With M[i, j] the similarity of the anchor of sample i and the tuple of sample j, a sample's loss is the mean of picking
its tuple among all tuples (a row of M) and picking its anchor among all anchors (a column).

Source: the symmetric loss of Cicchetti et al., "Gramian Multimodal Representation Learning and Alignment", ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symile_clin.errors import ConfigError
from symile_clin.objectives.base import Embeddings, Present
from symile_clin.objectives.terms import mean_of, presence, with_company
from symile_clin.strict import nearest

#: Anchors (a, d) and one tensor (t, d) per other modality, rows of which make a tuple -> (a, t), larger is more alike.
Similarity = Callable[[Tensor, Sequence[Tensor]], Tensor]

#: Learned temperature at the start, in the authors' code of both objectives.
INITIAL_TEMPERATURE = 0.07


def anchored_loss(
    embeddings: Embeddings,
    scale: Tensor,
    *,
    similarity: Similarity,
    anchor: str | None,
    label_smoothing: float,
    keep_placeholders: bool,
    present: Present | None,
) -> Tensor:
    """Mean over anchors and samples, in nats; see `Objective.loss`.

    Args:
        anchor: the one modality that is an anchor; None: each in turn.
        label_smoothing: share of the target that is spread evenly over all alternatives.
        keep_placeholders: an absent modality's placeholder takes its place in the tuples; otherwise they are shorter.

    Raises:
        ConfigError: no modality is called `anchor`.
    """
    if anchor is not None and anchor not in embeddings:
        raise ConfigError(f"the anchor '{anchor}' is no modality ({nearest(anchor, embeddings)})")
    here, terms = presence(embeddings, present), []
    for name in embeddings if anchor is None else [anchor]:
        for contrast in _contrasts(embeddings, here, name, keep_placeholders=keep_placeholders):
            by_tuple = scale * similarity(contrast.anchors[contrast.own_anchor], contrast.tuples)
            positive = by_tuple.gather(1, contrast.own_tuple.unsqueeze(1)).squeeze(1)
            by_anchor = by_tuple
            if not contrast.is_whole:
                by_anchor = scale * similarity(contrast.anchors, [one[contrast.own_tuple] for one in contrast.tuples])
            picked = (1 - label_smoothing) * positive
            spread = label_smoothing * (by_tuple.mean(dim=1) + by_anchor.mean(dim=0)) / 2
            all_of_them = (torch.logsumexp(by_tuple, dim=1) + torch.logsumexp(by_anchor, dim=0)) / 2
            terms.append(all_of_them - picked - spread)
    return mean_of(terms, embeddings, scale)


@dataclass(frozen=True)
class _Contrast:
    """What the p samples of one pattern of presence are contrasted with.

    Attributes:
        anchors: of all samples that have it, (a, d).
        tuples: the other modalities' embeddings, rows of samples that have all which the p samples have, each (t, d).
        own_anchor: (p,) int64, the samples' own anchors.
        own_tuple: (p,) int64, their own tuples.
    """

    anchors: Tensor
    tuples: Sequence[Tensor]
    own_anchor: Tensor
    own_tuple: Tensor

    @property
    def is_whole(self) -> bool:
        """Whether rows and columns of one matrix are all that is needed: there are no other samples."""
        return len(self.own_anchor) == len(self.anchors) == len(self.tuples[0])


def _contrasts(
    embeddings: Embeddings, here: Mapping[str, Tensor], anchor: str, *, keep_placeholders: bool
) -> Iterator[_Contrast]:
    table = torch.stack(list(here.values()), dim=1)
    has_anchor = here[anchor]
    anchor_rows = has_anchor.nonzero().squeeze(1)
    for pattern in torch.unique(table[has_anchor & with_company(here)], dim=0):
        samples = (table == pattern).all(dim=1).nonzero().squeeze(1)
        others = [name for name, has in zip(here, pattern.tolist(), strict=True) if has and name != anchor]
        rows = torch.stack([here[name] for name in others]).all(dim=0).nonzero().squeeze(1)
        tuples = [
            embeddings[name][rows] if name in others else embeddings[name][samples[:1]].expand(len(rows), -1)
            for name in embeddings
            if name in others or (keep_placeholders and name != anchor)
        ]
        yield _Contrast(
            anchors=embeddings[anchor][anchor_rows],
            tuples=tuples,
            own_anchor=torch.searchsorted(anchor_rows, samples),
            own_tuple=torch.searchsorted(rows, samples),
        )
