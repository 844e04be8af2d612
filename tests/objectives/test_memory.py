"""What each objective says that its loss takes, beside what it was seen to allocate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional

from symile_clin.objectives.registry import OBJECTIVES, build_objective
from tests.objectives.test_cube import peak_bytes

CPU = torch.device("cpu")
CASES: list[tuple[str, Mapping[str, Any], tuple[int, ...]]] = [
    ("symile", {"negatives": "exhaustive"}, (2, 3)),
    ("symile", {"negatives": "permuted"}, (2, 3, 4)),
    ("clip", {}, (2, 3, 4)),
    ("gram", {}, (2, 3, 4)),
    ("gram", {"anchor": "m0"}, (3,)),
    ("triangle", {}, (3,)),
    ("triangle", {"anchor": "m0"}, (3,)),
    ("gated_symile", {}, (2, 3, 4)),
]


def test_every_objective_is_here() -> None:
    assert {name for name, *_ in CASES} == set(OBJECTIVES)


@pytest.mark.parametrize(("name", "options", "modalities"), CASES)
def test_the_formula_is_an_upper_bound_within_a_factor(
    name: str, options: Mapping[str, Any], modalities: tuple[int, ...]
) -> None:
    for k in modalities:
        for n, dim in ((128, 16), (256, 16), (64, 512), (128, 128)):
            names = [f"m{number}" for number in range(k)]
            objective = build_objective(name, options, dim=dim, modalities=names)
            generator = torch.Generator().manual_seed(0)
            embeddings = {
                one: functional.normalize(torch.randn(n, dim, generator=generator), dim=1).requires_grad_()
                for one in names
            }
            scale = torch.tensor(1.0, requires_grad=True)
            peak = peak_bytes(
                lambda: torch.autograd.backward(objective.loss(embeddings, scale, generator=generator))  # noqa: B023
            )
            said = objective.memory(n, dim, k, device=CPU)
            assert 0.95 < said.bytes / peak < 2.4, (k, n, dim, peak, said)
            assert "n" in said.formula
            assert said.bytes > 0


def test_slabs_and_processes_are_in_it() -> None:
    symile = build_objective("symile", {}, dim=8, modalities=["a", "b", "c"])
    small, large = (symile.memory(n, 1024, 3, device=CPU) for n in (280, 2048))
    assert (small.formula, large.formula[:41]) == (
        "4 n^k + 12 n^(k-1) + 12 k n d",
        "16 MiB of slabs instead of the cube's 4 n",
    )
    assert small.bytes > 4 * 280**3
    assert large.bytes < 4 * 2048**3 / 50
    assert "permuted" in small.remedy
    assert symile.memory(280, 1024, 3, device=CPU, processes=4).bytes < small.bytes / 2
