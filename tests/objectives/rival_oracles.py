"""CLIP, GRAM, TRIANGLE and Gated Symile written out as loops over anchors, samples and alternatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor

from symile_clin.objectives import GatedSymile

Vector = list[float]
Presence = Mapping[str, Sequence[bool]]


def unit_embeddings(k: int, *, n: int, d: int, seed: int = 0) -> dict[str, Tensor]:
    """k random float64 tensors (n, d) of unit rows that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    raw = {f"m{index}": torch.randn(n, d, generator=generator, dtype=torch.float64) for index in range(k)}
    return {name: (tensor / tensor.norm(dim=1, keepdim=True)).requires_grad_() for name, tensor in raw.items()}


def every_pattern(tensors: dict[str, Tensor], *, seed: int = 1) -> dict[str, Tensor]:
    """Presence of which every pattern occurs, in mixed order; the placeholder is put into the absent rows."""
    n, k = len(next(iter(tensors.values()))), len(tensors)
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(n)[torch.randperm(n, generator=generator)] % 2**k
    present = {name: (kind >> axis) % 2 == 1 for axis, name in enumerate(tensors)}
    with torch.no_grad():
        for name, tensor in tensors.items():
            placeholder = torch.randn(tensor.shape[1], generator=generator, dtype=tensor.dtype)
            tensor[~present[name]] = placeholder / placeholder.norm()
    return present


def slow_clip(tensors: Mapping[str, Tensor], present: Presence, scale: float) -> float:
    """Mean over pairs and the samples that have both of InfoNCE within these samples, both directions averaged."""
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    terms = []
    for one, other in combinations(values, 2):
        rows = [row for row in range(len(values[one])) if present[one][row] and present[other][row]]
        for i in rows:
            forward = [scale * _inner(values[one][i], values[other][j]) for j in rows]
            backward = [scale * _inner(values[one][j], values[other][i]) for j in rows]
            own = scale * _inner(values[one][i], values[other][i])
            terms.append((_log_sum_exp(forward) + _log_sum_exp(backward)) / 2 - own)
    return sum(terms) / len(terms)


def slow_volume(vectors: Sequence[Vector]) -> float:
    """Root of the Gram determinant, by Leibniz' formula."""
    gram = [[_inner(one, other) for other in vectors] for one in vectors]
    determinant = 0.0
    for order in permutations(range(len(vectors))):
        inversions = sum(order[i] > order[j] for i, j in combinations(range(len(order)), 2))
        determinant += (-1) ** inversions * math.prod(gram[row][column] for row, column in enumerate(order))
    return math.sqrt(max(determinant, 0.0))


def slow_area(vectors: Sequence[Vector]) -> float:
    """Area between three points, by Heron's formula."""
    a, b, c = (math.dist(one, other) for one, other in combinations(vectors, 2))
    half = (a + b + c) / 2
    return math.sqrt(max(half * (half - a) * (half - b) * (half - c), 0.0))


def slow_anchored(
    tensors: Mapping[str, Tensor],
    present: Presence,
    scale: float,
    *,
    size: Callable[[Sequence[Vector]], float],
    anchors: Sequence[str],
    keep_placeholders: bool,
    label_smoothing: float = 0.0,
) -> float:
    """Mean over anchors and samples of picking the own tuple and the own anchor by the smallest size."""
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    n, terms = len(next(iter(values.values()))), []
    for anchor in anchors:
        for i in range(n):
            others = [name for name in values if name != anchor and present[name][i]]
            if not present[anchor][i] or not others:
                continue

            def logit(of_anchor: int, of_tuple: int, *, i: int = i, anchor: str = anchor) -> float:
                vectors = [values[anchor][of_anchor]]
                for name in values:
                    if name != anchor and present[name][i]:
                        vectors.append(values[name][of_tuple])
                    elif name != anchor and keep_placeholders:
                        vectors.append(values[name][i])
                return -scale * size(vectors)

            tuples = [logit(i, j) for j in range(n) if all(present[name][j] for name in others)]
            whole = [logit(j, i) for j in range(n) if present[anchor][j]]
            term = 0.0
            for alternatives in (tuples, whole):
                evenly = sum(alternatives) / len(alternatives)
                target = (1 - label_smoothing) * logit(i, i) + label_smoothing * evenly
                term += (_log_sum_exp(alternatives) - target) / 2
            terms.append(term)
    return sum(terms) / len(terms)


def slow_gated_score(
    objective: GatedSymile, queries: Mapping[str, Vector], candidate: Vector, *, target: str, here: Mapping[str, bool]
) -> tuple[float, dict[str, float]]:
    """Score of one candidate for one query, and the weights, with each gated vector written out."""
    gate: dict[str, Any] = {name: parameter.detach().tolist() for name, parameter in objective.gate.named_parameters()}
    temperature = math.log1p(math.exp(gate["log_temperature"])) + 0.1
    strength = 1 / (1 + math.exp(-gate["strength_logit"]))
    asked = _unit(_times(gate[f"queries.{target}.weight"], candidate))
    neutral = {name: _unit(gate[f"directions.{name}"]) for name in queries}
    attention = {
        name: _inner(asked, _unit(_times(gate[f"keys.{name}.weight"], query if here[name] else neutral[name])))
        / temperature
        for name, query in queries.items()
    }
    null = None if objective.gate.null is None else (_null(gate, candidate) + gate[f"null_bias.{target}"]) / temperature
    if objective.gate.kind == "sigmoid":
        refused = 0.0 if null is None else 1 / (1 + math.exp(-null))
        weights = {name: (1 - refused) / (1 + math.exp(-score)) for name, score in attention.items()}
    else:
        choices = [math.exp(attention[name]) for name in queries if here[name]]
        choices += [] if null is None else [math.exp(null)]
        weights = {name: math.exp(score) / sum(choices) if choices else 0.0 for name, score in attention.items()}
    weights = {name: weight if here[name] else 0.0 for name, weight in weights.items()}
    total = list(candidate)
    for name, query in queries.items():
        w = weights[name]
        gated = neutral[name]
        if here[name]:
            halfway = [w * e + (1 - w) * n for e, n in zip(query, neutral[name], strict=True)]
            gated = _unit([(1 - strength) * e + strength * h for e, h in zip(query, halfway, strict=True)])
        total = [t * g for t, g in zip(total, gated, strict=True)]
    return sum(total), weights


def _null(gate: Mapping[str, Any], candidate: Vector) -> float:
    """The network of the NULL option: layer norm, a hidden layer, a number."""
    mean = sum(candidate) / len(candidate)
    spread = math.sqrt(sum((x - mean) ** 2 for x in candidate) / len(candidate) + 1e-5)
    gains = zip(candidate, gate["null.0.weight"], gate["null.0.bias"], strict=True)
    hidden = _times(gate["null.1.weight"], [(x - mean) / spread * gain + shift for x, gain, shift in gains])
    positive = [max(x + shift, 0.0) for x, shift in zip(hidden, gate["null.1.bias"], strict=True)]
    return float(_times(gate["null.3.weight"], positive)[0] + gate["null.3.bias"][0])


def slow_gated_symile(objective: GatedSymile, tensors: Mapping[str, Tensor], present: Presence, scale: float) -> float:
    """Mean over targets and samples of picking the own candidate."""
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    n, terms = len(next(iter(values.values()))), []
    for target in values:
        for i in range(n):
            queries = {name: rows[i] for name, rows in values.items() if name != target}
            here = {name: bool(present[name][i]) for name in queries}
            if not present[target][i] or not any(here.values()):
                continue
            logits = {
                j: scale * slow_gated_score(objective, queries, values[target][j], target=target, here=here)[0]
                for j in range(n)
                if present[target][j]
            }
            terms.append(_log_sum_exp(list(logits.values())) - logits[i])
    return sum(terms) / len(terms)


def _inner(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _times(matrix: Sequence[Vector], vector: Vector) -> Vector:
    return [_inner(row, vector) for row in matrix]


def _unit(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [x / length for x in vector]


def _log_sum_exp(logits: Sequence[float]) -> float:
    return math.log(sum(math.exp(logit) for logit in logits))
