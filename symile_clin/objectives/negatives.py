"""Which mismatched tuples an anchor is contrasted with, and the cross-entropy of picking the matched one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from symile_clin.errors import ConfigError
from symile_clin.objectives.cube import cube_losses
from symile_clin.objectives.similarity import mip, product
from symile_clin.objectives.slabs import Budget, cost
from symile_clin.ranks import ALONE, Ranks

#: Work of a process, for one loss and its gradient, above which an exhaustive batch is refused: some hours on a CPU,
#: some minutes on a CUDA device.
MAX_FLOPS = {"cpu": 1e15, "cuda": 1e17}
#: What the refusal reckons with, per second: two cores, and bf16 on a data-centre device.
FLOPS_PER_SECOND = {"cpu": 1e11, "cuda": 4e14}
MAX_BYTES = 32 * 2**30


def exhaustive(
    tensors: Sequence[Tensor],
    matched: Tensor,
    *,
    operands: torch.dtype | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Cross-entropies against all tuples of the others' rows, n^(k-1) of them where each has n; see `cube_losses`.

    Args:
        tensors: k tensors (n_m, d), the scale multiplied into one of them.
        matched: (p, k) int64 on the CPU, rows of the tensors that belong together.

    Returns:
        (k, p), in nats; this process's equal share of each.

    Raises:
        ConfigError: too much work, or too much memory.
    """
    sizes, p = [len(tensor) for tensor in tensors], len(matched)
    # If few rows are anchors, a cube for each anchor, with those rows of it alone, holds less than one of all rows.
    anchored = [[p if axis == anchor else size for axis, size in enumerate(sizes)] for anchor in range(len(sizes))]
    if math.prod(sizes) <= sum(map(math.prod, anchored)):
        _refuse_too_large([sizes], tensors[0], ranks)
        return cube_losses(tensors, matched, operands=operands, ranks=ranks)
    _refuse_too_large(anchored, tensors[0], ranks)
    losses = []
    for anchor, rows in enumerate(matched.unbind(1)):
        cube = list(tensors)
        cube[anchor] = cube[anchor][rows.to(cube[anchor].device)]
        places = matched.clone()
        places[:, anchor] = torch.arange(p)
        losses.append(cube_losses(cube, places, operands=operands, ranks=ranks)[anchor])
    return torch.stack(losses)


def permuted(
    tensors: Sequence[Tensor], matched: Tensor, *, generator: Generator | None, ranks: Ranks = ALONE
) -> Tensor:
    """Cross-entropies against n - 1 tuples per anchor: the paper's O(n) sampler.

    For each anchor every other modality is shuffled on its own, and the longer ones are cut to the shortest; these
    shuffled tuples are contrasted with every anchor, the matched tuple in place of the i-th for anchor i.

    Args:
        tensors: k tensors (n_m, d), the scale multiplied into one of them.
        matched: (p, k) int64 on the CPU, rows of the tensors that belong together.
        generator: of the CPU, so that the shuffles are the same on every device; None is torch's global one.

    Returns:
        (k, p'), in nats; of p anchors those that are this process's.
    """
    device, mine = tensors[0].device, ranks.mine(len(matched))
    anchors = [tensor[rows] for tensor, rows in zip(tensors, matched[mine].to(device).unbind(1), strict=True)]
    positive = mip(*anchors)
    losses = []
    for anchor, rows in enumerate(anchors):
        others = [other for index, other in enumerate(tensors) if index != anchor]
        shuffles = [torch.randperm(len(other), generator=generator) for other in others]
        shortest = min(len(other) for other in others)
        shuffled = product(
            other[shuffle[:shortest].to(device)] for other, shuffle in zip(others, shuffles, strict=True)
        )
        logits = torch.diagonal_scatter(rows @ shuffled.T, positive, offset=mine.start)
        losses.append(torch.logsumexp(logits, dim=1) - positive)
    return torch.stack(losses)


def _refuse_too_large(cubes: Sequence[Sequence[int]], like: Tensor, ranks: Ranks) -> None:
    """Raise if cubes of these sizes, one after the other, are beyond what a process can do."""
    dim, element_size = like.shape[1], like.element_size()
    kind = "cuda" if like.is_cuda else "cpu"
    costs = []
    for sizes in cubes:
        budget = Budget.of(like.device, cube=math.prod(sizes) * element_size)
        costs.append(cost(sizes, dim, element_size=element_size, budget=budget, processes=ranks.size))
    flops = sum(one.flops for one in costs)
    needed = sum(one.kept for one in costs) + max(one.working for one in costs)  # what is kept stays side by side
    if flops <= MAX_FLOPS[kind] and needed <= MAX_BYTES:
        return
    hours, gib = flops / FLOPS_PER_SECOND[kind] / 3600, needed / 2**30
    raise ConfigError(
        f"exhaustive negatives of {len(cubes[0])} modalities at batch {max(map(max, cubes)):,} and dim {dim:,} take "
        f"{flops:.1e} floating-point operations a step and process (about {hours:,.1f} hours), and {gib:,.1f} GiB",
        expected=f"at most {MAX_FLOPS[kind]:.0e} operations and {MAX_BYTES / 2**30:.0f} GiB",
        remedy="Use `objective.negatives: permuted`, a smaller batch_size, or more devices (docs/scaling.md)",
    )
