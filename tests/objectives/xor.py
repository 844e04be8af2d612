"""The smallest synergy: c = a XOR b, of which neither a nor b alone tells anything."""

from __future__ import annotations

from itertools import product

import torch
from torch import nn
from torch.nn.functional import normalize

from symile_clin.objectives.base import Objective


def xor_accuracy(objective: Objective, *, steps: int = 100, dim: int = 16, seed: int = 0) -> float:
    """Share of the four (a, b) for which the right c scores higher, after learning one embedding per value of each."""
    torch.manual_seed(seed)
    tables = nn.ModuleDict({name: nn.Embedding(2, dim) for name in ("a", "b", "c")})
    logit_scale = torch.tensor(objective.initial_logit_scale(dim, 3)).requires_grad_()
    optimizer = torch.optim.Adam([*tables.parameters(), *objective.parameters(), logit_scale], lr=0.05)

    def embedded(name: str, bits: torch.Tensor) -> torch.Tensor:
        return normalize(tables[name](bits), dim=1)

    for _ in range(steps):
        a, b = torch.randint(0, 2, (2, 64))
        batch = {"a": embedded("a", a), "b": embedded("b", b), "c": embedded("c", a ^ b)}
        optimizer.zero_grad()
        torch.autograd.backward(objective.loss(batch, logit_scale.exp()))
        optimizer.step()
    with torch.inference_mode():
        a, b = torch.tensor(list(product([0, 1], repeat=2))).T
        scores = objective.score(
            {"a": embedded("a", a), "b": embedded("b", b)}, embedded("c", torch.arange(2)), target="c"
        )
    right = scores[torch.arange(4), a ^ b] > scores[torch.arange(4), 1 - (a ^ b)]
    return float(right.float().mean())
