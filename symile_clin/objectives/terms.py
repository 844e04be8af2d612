"""The terms of a contrastive loss: which samples have one, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from symile_clin.objectives.base import Embeddings, Present


def presence(tensors: Mapping[str, Tensor], present: Present | None) -> dict[str, Tensor]:
    """Which rows have each modality, (n,) bool on the rows' device; all have one that is left out."""
    given = present or {}
    return {
        name: given[name].to(tensor.device)
        if name in given
        else torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)
        for name, tensor in tensors.items()
    }


def with_company(here: Mapping[str, Tensor]) -> Tensor:
    """Samples with at least two modalities, (n,) bool: one alone has nothing that it could be matched with."""
    return torch.stack(list(here.values())).sum(dim=0) >= 2


def mean_of(terms: Sequence[Tensor], embeddings: Embeddings, scale: Tensor) -> Tensor:
    """Mean of all terms, 0-d; zero, with zero gradients, if there are none."""
    # Nothing of each embedding: all of them then have a gradient, whichever are absent throughout.
    nothing = torch.stack([tensor[:0].sum() for tensor in embeddings.values()]).sum() + 0 * scale
    return nothing + torch.cat(list(terms)).mean() if terms else nothing
