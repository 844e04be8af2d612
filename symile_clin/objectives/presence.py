"""Samples by which modalities they have, and the embeddings that each group's tuples are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symile_clin.objectives.base import Embeddings, Present


@dataclass(frozen=True)
class Pattern:
    """The p samples of a batch that have the same k modalities, two at least.

    Attributes:
        tensors: of each of these modalities the embeddings of all samples that have it, (n_m, d).
        matched: (p, k) int64 on the CPU, which of those rows are the samples' own.
        placeholders: of each modality that they lack, (d,).
    """

    tensors: Sequence[Tensor]
    matched: Tensor
    placeholders: Sequence[Tensor]


def presence_patterns(embeddings: Embeddings, present: Present | None) -> list[Pattern]:
    """A batch's patterns of presence, in a fixed order; samples with fewer than two modalities are in none.

    Args:
        embeddings: k tensors (n, d); all rows that lack a modality hold its placeholder.
        present: which samples have each modality, (n,) bool; a modality that is left out is present throughout.
    """
    tensors = list(embeddings.values())
    n, k = len(tensors[0]), len(tensors)
    everyone = torch.ones(n, dtype=torch.bool)
    table = torch.stack([(present or {}).get(name, everyone).cpu() for name in embeddings], dim=1)
    if bool(table.all()):
        return [Pattern(tensors, torch.arange(n).unsqueeze(1).expand(n, k), [])] if k > 1 and n else []
    having = [
        tensor if bool(here.all()) else tensor[here.nonzero().squeeze(1).to(tensor.device)]
        for tensor, here in zip(tensors, table.unbind(1), strict=True)
    ]
    numbers = table.cumsum(0) - 1
    kinds, kind_of = torch.unique(table, dim=0, return_inverse=True)
    patterns = []
    for kind, here in enumerate(kinds.tolist()):
        if sum(here) < 2:
            continue
        samples = (kind_of == kind).nonzero().squeeze(1)
        axes = [axis for axis in range(k) if here[axis]]
        patterns.append(
            Pattern(
                tensors=[having[axis] for axis in axes],
                matched=numbers[samples][:, axes],
                placeholders=[tensors[axis][int(samples[0])] for axis in range(k) if not here[axis]],
            )
        )
    return patterns
