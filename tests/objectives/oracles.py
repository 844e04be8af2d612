"""Objectives written out as loops over anchors, samples and tuples, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def with_absence(k: int, *, n: int, d: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random float64 embeddings, about a third of them absent, where they are one placeholder; and presence."""
    generator = torch.Generator().manual_seed(seed)
    vectors, present = {}, {}
    for index in range(k):
        here = torch.rand(n, generator=generator) < 2 / 3
        drawn = torch.randn(n, d, generator=generator, dtype=torch.float64)
        placeholder = torch.randn(d, generator=generator, dtype=torch.float64)
        vectors[f"m{index}"] = torch.where(here.unsqueeze(1), drawn, placeholder).requires_grad_()
        present[f"m{index}"] = here
    return vectors, present


def slow_exhaustive_with_absence(
    tensors: Mapping[str, Tensor], present: Mapping[str, Tensor], scale: float
) -> float | None:
    """Mean over anchors of samples that have two; their tuples swap what is there for what is there."""
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    n, losses = len(next(iter(values.values()))), []
    for i in range(n):
        mine = [name for name in values if present[name][i]]
        for anchor in mine if len(mine) > 1 else []:
            choices = [range(n) if name in mine and name != anchor else [i] for name in values]
            logits = []
            for rows in product(*choices):
                if all(j == i or present[name][j] for name, j in zip(values, rows, strict=True)):
                    picked = [values[name][j] for name, j in zip(values, rows, strict=True)]
                    logits.append(scale * sum(map(math.prod, zip(*picked, strict=True))))
                    if all(j == i for j in rows):
                        positive = logits[-1]
            losses.append(_log_sum_exp(logits) - positive)
    return sum(losses) / len(losses) if losses else None


def slow_permuted_with_absence(
    tensors: Mapping[str, Tensor], present: Mapping[str, Tensor], scale: float, generator: Generator
) -> float:
    """The same against shuffled tuples: by pattern, sorted, and anchor, every other present modality shuffled."""
    names = list(tensors)
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    having = {name: present[name].nonzero().flatten().tolist() for name in names}
    patterns = [tuple(bool(present[name][i]) for name in names) for i in range(len(values[names[0]]))]
    losses = []
    for pattern in sorted(set(patterns)):
        mine = [name for name, here in zip(names, pattern, strict=True) if here]
        for anchor in mine if len(mine) > 1 else []:
            shuffles = {
                name: [having[name][j] for j in torch.randperm(len(having[name]), generator=generator).tolist()]
                for name in mine
                if name != anchor
            }
            tuples = range(min(map(len, shuffles.values())))
            for place, i in enumerate(i for i, of in enumerate(patterns) if of == pattern):
                logits = []
                for j in tuples:
                    rows = {name: shuffles[name][j] if name in shuffles and j != place else i for name in names}
                    picked = [values[name][row] for name, row in rows.items()]
                    logits.append(scale * sum(map(math.prod, zip(*picked, strict=True))))
                losses.append(_log_sum_exp(logits) - logits[place])
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
