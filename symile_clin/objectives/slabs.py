"""How the cube of all tuples is walked within a budget of memory, and what walking it costs.

The axes but the last span the leading tuples (i, j, ...), numbered in C order; a slab is a range of them with all of
the last axis. Processes that share a cube have one range of leading tuples each.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from symile_clin.ranks import Ranks

MIB = 2**20
#: Logits of a cube no larger than this are kept between forward and backward, which saves a quarter of the arithmetic.
KEPT_BYTES = 256 * MIB
#: What one slab may take: a CPU wants it in its cache, a CUDA device wants few, large kernels.
SLAB_BYTES = 16 * MIB
CUDA_SLAB_BYTES = 128 * MIB
CUDA_LARGE_SLAB_BYTES = 768 * MIB  # beside a cube that is not kept


@dataclass(frozen=True)
class Budget:
    """Bytes that a cube may take beside its vectors and their gradients.

    Attributes:
        kept: of logits between forward and backward; those of a larger cube are computed again, slab by slab.
        slab: of one slab, its operands and temporaries.
    """

    kept: int
    slab: int

    @staticmethod
    def of(device: torch.device, *, cube: int) -> Budget:
        """The budget of a device for a cube of so many bytes."""
        if device.type != "cuda":
            return Budget(kept=KEPT_BYTES, slab=SLAB_BYTES)
        return Budget(kept=KEPT_BYTES, slab=CUDA_SLAB_BYTES if cube <= KEPT_BYTES else CUDA_LARGE_SLAB_BYTES)


@dataclass(frozen=True)
class Cost:
    """What the loss of a cube and its gradient take in one process.

    Attributes:
        flops: floating-point operations of the matrix products.
        kept: bytes of logits that stay until the backward.
        working: bytes of all else at the peak, beside the vectors and their gradients.
    """

    flops: float
    kept: float
    working: float

    @property
    def bytes(self) -> float:
        """Of one cube, at the peak."""
        return self.kept + self.working


@dataclass(frozen=True)
class Slab:
    """Leading tuples that are computed at once: `outer` tuples of all axes but the last two, with `rows` of the next.

    Attributes:
        outer: range of outer tuples.
        rows: range of rows; all of them where there are several outer tuples.
        tuples: range of leading tuples.
        samples: which of the matched tuples, sorted by their place, are inside.
    """

    outer: slice
    rows: slice
    tuples: slice
    samples: slice


@dataclass(frozen=True)
class Grid:
    """The slabs of one process, and where in them the matched tuples are.

    Attributes:
        sizes: number of vectors of each axis.
        matched: (p, k) int64, rows that belong together.
        order: (p,) int64, the matched tuples sorted by place.
        place: (p,) int64, sorted numbers of their leading tuples.
        slabs: in order.
        fits: whether this process's logits may be kept.
    """

    sizes: tuple[int, ...]
    matched: Tensor
    order: Tensor
    place: Tensor
    slabs: tuple[Slab, ...]
    fits: bool

    @staticmethod
    def of(matched: Tensor, *, sizes: Sequence[int], dim: int, element_size: int, budget: Budget, ranks: Ranks) -> Grid:
        """Cut a process's part of the cube.

        Args:
            matched: on the CPU, as is the grid.
        """
        numbers = torch.zeros(len(matched), dtype=torch.int64)
        for axis, size in enumerate(sizes[:-1]):
            numbers = numbers * size + matched[:, axis]
        place, order = numbers.sort()
        places: list[int] = place.tolist()
        tuples = math.prod(sizes[:-1])
        first, end = (rank * tuples // ranks.size for rank in (ranks.rank, ranks.rank + 1))
        slabs = tuple(
            Slab(
                outer=outer,
                rows=rows,
                tuples=tuples,
                samples=slice(bisect_left(places, tuples.start), bisect_left(places, tuples.stop)),
            )
            for outer, rows, tuples in _cut(
                first, end, rows=sizes[-2], capacity=_capacity(sizes[-1], dim, element_size, budget)
            )
        )
        fits = (end - first) * sizes[-1] * element_size <= budget.kept
        return Grid(tuple(sizes), matched, order, place, slabs, fits)

    def to(self, device: torch.device) -> Grid:
        """The same with its tensors on a device."""
        return replace(self, matched=self.matched.to(device), order=self.order.to(device), place=self.place.to(device))

    def inside(self, slab: Slab) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Which matched tuples lie in a slab, and their (row, column) in its logits."""
        samples = self.order[slab.samples]
        return samples, (self.place[slab.samples] - slab.tuples.start, self.matched[samples, -1])


def cost(sizes: Sequence[int], dim: int, *, element_size: int, budget: Budget, processes: int = 1) -> Cost:
    """What `cube_losses` and its backward take in each of so many processes; `sizes` are the numbers of vectors."""
    *leading, last = sorted(sizes)
    tuples = math.prod(leading)
    mine = math.ceil(tuples / processes)
    logits = mine * last * element_size
    kept = logits <= budget.kept
    slab = min(mine, _capacity(last, dim, element_size, budget)) * _bytes_per_tuple(last, dim, element_size)
    # Of every leading tuple its logsumexp and its weight, and one temporary while they are made.
    rows = 3 * tuples * element_size
    rounded = sum(sizes) * dim * element_size
    # One product forward and two backward; if logits are not kept, the first once more.
    return Cost(
        flops=(6.0 if kept else 8.0) * mine * last * dim, kept=logits if kept else 0, working=slab + rows + rounded
    )


def _cut(start: int, end: int, *, rows: int, capacity: int) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks (outer, rows, tuples) of a range of leading tuples: at most `capacity` each, neighbours of equal sizes."""
    while start < end:
        outer, row = divmod(start, rows)
        if row or end - start < rows or capacity < rows:
            within = min(end, (outer + 1) * rows) - start
            length = math.ceil(within / math.ceil(within / capacity))
            yield slice(outer, outer + 1), slice(row, row + length), slice(start, start + length)
        else:
            count = (end - start) // rows
            several = math.ceil(count / math.ceil(count / (capacity // rows)))
            length = several * rows
            yield slice(outer, outer + several), slice(0, rows), slice(start, start + length)
        start += length


def _bytes_per_tuple(last: int, dim: int, element_size: int) -> int:
    # Of a leading tuple in a slab: its product, rounded and not, and the gradient; its logits, theirs and a temporary.
    return element_size * (3 * dim + 4 * last)


def _capacity(last: int, dim: int, element_size: int, budget: Budget) -> int:
    return max(1, budget.slab // _bytes_per_tuple(last, dim, element_size))
