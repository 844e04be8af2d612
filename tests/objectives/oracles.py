"""Objectives written out as loops over anchors, samples and tuples, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, product

import torch
from torch import Generator, Tensor


def embeddings(k: int, *, n: int, d: int, seed: int = 0) -> dict[str, Tensor]:
    """k random float64 tensors (n, d) that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"m{index}": torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True)
        for index in range(k)
    }


def slow_exhaustive(tensors: Sequence[Tensor], scale: float) -> float:
    """Mean over anchors and samples of the cross-entropy against all tuples of the other modalities."""
    k, (n, d) = len(tensors), tensors[0].shape
    values: list[list[list[float]]] = [tensor.tolist() for tensor in tensors]

    def logit(rows: Sequence[int]) -> float:
        return scale * sum(math.prod(values[m][rows[m]][c] for m in range(k)) for c in range(d))

    losses = []
    for anchor in range(k):
        for i in range(n):
            logits = []
            for others in product(range(n), repeat=k - 1):
                rows = list(others)
                rows.insert(anchor, i)
                logits.append(logit(rows))
            losses.append(_log_sum_exp(logits) - logit([i] * k))
    return sum(losses) / len(losses)


def slow_permuted(tensors: Sequence[Tensor], scale: float, generator: Generator) -> float:
    """The same against the i-th of n shuffled tuples each, the matched one in its own place."""
    k, (n, d) = len(tensors), tensors[0].shape
    values: list[list[list[float]]] = [tensor.tolist() for tensor in tensors]
    losses = []
    for anchor in range(k):
        shuffles = {m: torch.randperm(n, generator=generator).tolist() for m in range(k) if m != anchor}
        for i in range(n):
            logits = []
            for j in range(n):
                rows = [i if m == anchor or j == i else shuffles[m][j] for m in range(k)]
                logits.append(scale * sum(math.prod(values[m][rows[m]][c] for m in range(k)) for c in range(d)))
            losses.append(_log_sum_exp(logits) - logits[i])
    return sum(losses) / len(losses)


def slow_pairwise_clip(tensors: Sequence[Tensor], scale: float) -> list[float]:
    """InfoNCE of every pair, both directions averaged."""
    pairs = []
    for one, other in combinations([tensor.tolist() for tensor in tensors], 2):
        n, total = len(one), 0.0
        for i in range(n):
            forward = [scale * sum(a * b for a, b in zip(one[i], other[j], strict=True)) for j in range(n)]
            backward = [scale * sum(a * b for a, b in zip(one[j], other[i], strict=True)) for j in range(n)]
            total += (_log_sum_exp(forward) - forward[i] + _log_sum_exp(backward) - backward[i]) / 2
        pairs.append(total / n)
    return pairs


def _log_sum_exp(logits: Sequence[float]) -> float:
    return math.log(sum(math.exp(logit) for logit in logits))
