"""Which mismatched tuples an anchor is contrasted with, and the cross-entropy of picking the matched one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from symile_clin.errors import ConfigError
from symile_clin.objectives.similarity import mip, product

#: Above this an exhaustive batch is refused instead of running out of memory somewhere inside.
MAX_EXHAUSTIVE_GIB = 32.0


def exhaustive(tensors: Sequence[Tensor], scale: Tensor) -> Tensor:
    """Cross-entropies against all n^(k-1) tuples of the batch.

    The k anchors share one cube T[i, j, ...] = scale · Σ_d x_i y_j ...: the logits of an anchor are the cube's slabs
    along its own axis, and the matched tuples are the cube's diagonal.

    Args:
        tensors: k tensors (n, d).
        scale: 0-d.

    Returns:
        (k, n), in nats.

    Raises:
        ConfigError: the cube, or what it is made of, is too large.
    """
    k, (n, d) = len(tensors), tensors[0].shape
    _refuse_too_large(n=n, d=d, k=k, element_size=tensors[0].element_size())
    tuples = tensors[0] * scale
    for tensor in tensors[1:-1]:
        tuples = (tuples.unsqueeze(1) * tensor).reshape(-1, d)
    cube = (tuples @ tensors[-1].T).reshape([n] * k)
    positive = cube.flatten()[:: sum(n**axis for axis in range(k))]
    return torch.stack(
        [torch.logsumexp(cube, dim=[axis for axis in range(k) if axis != anchor]) - positive for anchor in range(k)]
    )


def permuted(tensors: Sequence[Tensor], scale: Tensor, generator: Generator | None) -> Tensor:
    """Cross-entropies against n - 1 tuples per anchor: the paper's O(n) sampler.

    For each anchor every other modality is shuffled on its own; the n shuffled tuples are contrasted with every
    anchor of the batch, the matched tuple in place of the i-th for anchor i.

    Args:
        tensors: k tensors (n, d).
        scale: 0-d.
        generator: of the CPU, so that the shuffles are the same on every device; None is torch's global one.

    Returns:
        (k, n), in nats.
    """
    n, device = len(tensors[0]), tensors[0].device
    positive = scale * mip(*tensors)
    losses = []
    for anchor, tensor in enumerate(tensors):
        others = [other for index, other in enumerate(tensors) if index != anchor]
        shuffled = product(other[torch.randperm(n, generator=generator).to(device)] for other in others)
        logits = torch.diagonal_scatter((tensor * scale) @ shuffled.T, positive)
        losses.append(torch.logsumexp(logits, dim=1) - positive)
    return torch.stack(losses)


def _refuse_too_large(*, n: int, d: int, k: int, element_size: int) -> None:
    # Twice: values and gradients. The cube is n^k; the tuples it is made from are n^(k-1) vectors.
    needed = 2 * element_size * (n**k + n ** (k - 1) * d) / 2**30
    if needed > MAX_EXHAUSTIVE_GIB:
        raise ConfigError(
            f"exhaustive negatives of {k} modalities at batch {n:,} and dim {d:,} need about {needed:,.0f} GiB",
            expected=f"at most {MAX_EXHAUSTIVE_GIB:.0f} GiB",
            remedy="Use `objective.negatives: permuted`, or a smaller batch_size",
        )
