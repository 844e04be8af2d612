"""The multilinear inner product against a loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from symile_clin.objectives.similarity import mip


def slow_mip(*vectors: Tensor) -> float:
    total = 0.0
    for coordinates in zip(*(vector.tolist() for vector in vectors), strict=True):
        term = 1.0
        for coordinate in coordinates:
            term *= coordinate
        total += term
    return total


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_mip_equals_the_loop(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    vectors = [torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(k)]
    assert float(mip(*vectors)) == pytest.approx(slow_mip(*vectors), abs=1e-12)


def test_mip_by_hand() -> None:
    assert float(mip(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0]), torch.tensor([2.0, 5.0]))) == -4.0


def test_mip_broadcasts_its_leading_axes() -> None:
    queries, candidates = torch.randn(4, 1, 3), torch.randn(5, 3)
    scores = mip(queries, candidates)
    assert scores.shape == (4, 5)
    torch.testing.assert_close(scores[2, 3], queries[2, 0] @ candidates[3])
