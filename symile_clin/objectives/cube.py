"""All tuples of k sets of vectors at once: the cross-entropies of their matched tuples, streamed in slabs.

T[i, j, ..., l] = Σ_d x_i y_j ... z_l is one cube, and the logits of an anchor are its cells with the anchor's index
fixed, so that one pass over the cube serves all k anchors. A slab of it is one matrix product: the products x_i y_j ...
of some leading tuples (i, j, ...) with all of z.

Of each leading tuple t the logsumexp r_t over l is kept. It gives the loss of every leading anchor, and in the backward
their softmaxes all at once: weight · exp(T - lse_i) = weight · exp(r_t - lse_i) · exp(T - r_t), neither factor above 1,
so that a cell takes two exponentials whatever k is.

Source: the loss of Saporta et al., "Contrasting with Symile", NeurIPS 2024, section 4; docs/objectives.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from symile_clin.objectives.epilogue import factor_gradients, online_logsumexp, softmax_weights
from symile_clin.objectives.similarity import product
from symile_clin.objectives.slabs import Budget, Grid, Slab
from symile_clin.ranks import ALONE, Ranks


def cube_losses(
    tensors: Sequence[Tensor],
    matched: Tensor,
    *,
    operands: torch.dtype | None = None,
    ranks: Ranks = ALONE,
    budget: Budget | None = None,
) -> Tensor:
    """Cross-entropy of picking each matched tuple among all tuples that share its anchor, for each anchor.

    Differentiable once, in the tensors. Each process walks its own range of leading tuples, forward and backward, so
    gradients add up over processes.

    Args:
        tensors: k >= 2 tensors (n_m, d) on one device, float32 or float64; n_m may differ.
        matched: (p, k) int64 on the CPU, rows of the tensors that belong together; no row twice.
        operands: type that operands of matrix products are rounded to; results and sums keep the tensors' own.
        ranks: the processes that share the work, each with the same arguments.
        budget: None takes the device's.

    Returns:
        (k, p), in nats; with several processes each has an equal share of every loss.
    """
    # The longest axis last makes the matrix products largest; from outside the order is not seen.
    order = sorted(range(len(tensors)), key=lambda axis: len(tensors[axis]))
    ordered = [tensors[axis].contiguous() for axis in order]
    sizes = [len(tensor) for tensor in ordered]
    dim, element_size = ordered[0].shape[1], ordered[0].element_size()
    budget = budget or Budget.of(ordered[0].device, cube=math.prod(sizes) * element_size)
    grid = Grid.of(matched[:, order], sizes=sizes, dim=dim, element_size=element_size, budget=budget, ranks=ranks).to(
        ordered[0].device
    )
    keep = grid.fits and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    losses = cast(Tensor, _Cube.apply(grid, keep, operands or ordered[0].dtype, ranks, *ordered))
    return losses[[order.index(axis) for axis in range(len(order))]]


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: Grid, keep: bool, operands: torch.dtype, ranks: Ranks, *tensors: Tensor) -> Tensor:
        last = tensors[-1]
        # Other processes' tuples stay at minus infinity, which adds nothing to a logsumexp.
        rows = last.new_full((math.prod(grid.sizes[:-1]),), -math.inf)
        maxima, sums = last.new_full((len(last),), -math.inf), last.new_zeros(len(last))
        positive = last.new_zeros(len(grid.matched))
        right = last.to(operands).T
        kept = []
        for slab in grid.slabs:
            logits = _matmul(_products(tensors, slab).to(operands), right, last.dtype)
            rows[slab.tuples], maxima, sums = online_logsumexp(logits, maxima, sums)
            samples, cells = grid.inside(slab)
            positive[samples] = logits[cells]
            if keep:
                kept.append(logits)
        faces = _over_processes([*_leading_faces(rows.view(grid.sizes[:-1])), maxima + sums.log()], ranks)
        ctx.grid, ctx.operands = grid, operands
        ctx.save_for_backward(*tensors, *faces, rows, *kept)
        positive = ranks.sum(positive)
        losses = [face[grid.matched[:, axis]] - positive for axis, face in enumerate(faces)]
        return torch.stack(losses) / ranks.size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grid, operands, k = ctx.grid, ctx.operands, len(ctx.grid.sizes)
        saved = ctx.saved_tensors
        tensors, faces, rows, kept = saved[:k], saved[k : 2 * k], saved[2 * k], saved[2 * k + 1 :]
        last, positive_weights = tensors[-1], gradients[0].sum(0)
        # What the loss of each vector as an anchor weighs: nothing if it is none.
        weights = [
            torch.zeros_like(face).index_add_(0, grid.matched[:, axis], gradients[0][axis])
            for axis, face in enumerate(faces)
        ]
        row_weights = _row_weights(rows.view(grid.sizes[:-1]), faces[:-1], weights[:-1])
        found = [torch.zeros_like(tensor) for tensor in tensors]
        right = last.to(operands)
        for index, slab in enumerate(grid.slabs):
            left = _products(tensors, slab).to(operands)
            logits = kept[index] if kept else _matmul(left, right.T, last.dtype)
            ours = slab.tuples
            change = softmax_weights(logits, rows[ours], row_weights[ours], faces[-1], weights[-1])
            samples, cells = grid.inside(slab)
            change[cells] -= positive_weights[samples]
            change = change.to(operands)
            _add_matmul(found[-1], change.T, left)
            _add_product_gradients(found, tensors, slab, _matmul(change, right, last.dtype))
        return (None, None, None, None, *found)


def _outer(tensors: Sequence[Tensor], slab: Slab) -> list[Tensor]:
    """Row numbers of each outer axis for a slab's outer tuples."""
    numbers = torch.arange(slab.outer.start, slab.outer.stop, device=tensors[0].device)
    indices: list[Tensor] = []
    for tensor in reversed(tensors[:-2]):
        indices.insert(0, numbers % len(tensor))
        numbers = numbers // len(tensor)
    return indices


def _products(tensors: Sequence[Tensor], slab: Slab) -> Tensor:
    """(s, d) elementwise products of a slab's leading tuples."""
    rows = tensors[-2][slab.rows]
    if len(tensors) == 2:
        return rows
    outer = product(tensor[index] for tensor, index in zip(tensors, _outer(tensors, slab), strict=False))
    return (outer.unsqueeze(1) * rows).flatten(0, 1)


def _add_product_gradients(found: Sequence[Tensor], tensors: Sequence[Tensor], slab: Slab, gradient: Tensor) -> None:
    """Takes the gradient of a slab's products (s, d) back to the vectors that they are made of."""
    if len(tensors) == 2:
        found[0][slab.rows] += gradient
        return
    indices = _outer(tensors, slab)
    factors = [tensor[index] for tensor, index in zip(tensors, indices, strict=False)]
    gradient = gradient.view(len(indices[0]), -1, gradient.shape[1])
    to_outer, to_rows = factor_gradients(gradient, product(factors), tensors[-2][slab.rows])
    found[-2][slab.rows] += to_rows
    for axis, index in enumerate(indices):
        others = [factor for other, factor in enumerate(factors) if other != axis]
        found[axis].index_add_(0, index, product([to_outer, *others]))


def _leading_faces(rows: Tensor) -> list[Tensor]:
    """The logsumexp over everything but one leading axis, of each; from (n_1, ..., n_(k-1)) logsumexps of rows."""
    axes = range(rows.ndim)
    return [rows.movedim(axis, 0).flatten(1).logsumexp(1) if rows.ndim > 1 else rows for axis in axes]


def _row_weights(rows: Tensor, faces: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σ over leading anchors of their weight times exp(r_t - lse), for each leading tuple t, flattened."""
    total = torch.zeros_like(rows)
    for axis, (face, weight) in enumerate(zip(faces, weights, strict=True)):
        shape = [-1 if other == axis else 1 for other in range(rows.ndim)]
        total.addcmul_((rows - face.view(shape)).exp_(), weight.view(shape))
    return total.flatten()


def _over_processes(faces: Sequence[Tensor], ranks: Ranks) -> Sequence[Tensor]:
    """Logsumexps over the cells of all processes, from those over each one's."""
    if ranks.size == 1:
        return faces
    mine = torch.cat(list(faces))
    largest = ranks.max(mine)
    total = largest + ranks.sum((mine - largest).exp_()).log()
    return torch.split(total, [len(face) for face in faces])


def _matmul(one: Tensor, other: Tensor, result: torch.dtype) -> Tensor:
    """A product whose sums and result are of type `result`, whatever its operands were rounded to."""
    if one.dtype == result:
        return one @ other
    if one.is_cuda:
        return torch.mm(one, other, out_dtype=result)
    return one.to(result) @ other.to(result)


def _add_matmul(total: Tensor, one: Tensor, other: Tensor) -> None:
    if one.dtype == total.dtype:
        total.addmm_(one, other)
    else:
        total += _matmul(one, other, total.dtype)
