"""The learning rate over a run, and which parameters are decayed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from torch import nn

Schedule = Literal["cosine", "constant"]


def learning_rate(step: int, *, lr: float, steps: int, warmup: int, schedule: Schedule) -> float:
    """Learning rate of one step: a linear rise over `warmup` steps to `lr`, then constant or a cosine down to zero.

    Args:
        step: 0-based.
        lr: highest learning rate.
        steps: of the whole run.
        warmup: steps of the rise; the first step takes lr / warmup.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def parameter_groups(modules: Iterable[nn.Module], *, weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    """Parameters in two groups for AdamW: decayed weights, and vectors and scalars that are not.

    Norms, biases and the logit scale have fewer than two axes. Pulling them to zero only shrinks what the network
    says, and a logit scale of zero is no neutral value.

    Args:
        decay_all: decay everything, as the paper's code does.
    """
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if decay_all or parameter.dim() >= 2]
    kept = [parameter for parameter in parameters if not decay_all and parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
