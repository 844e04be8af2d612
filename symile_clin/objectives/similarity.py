"""The multilinear inner product, which scores k vectors at once."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor


def product(tensors: Iterable[Tensor]) -> Tensor:
    """Elementwise product of one or more tensors that broadcast against each other."""
    return math.prod(tensors)  # type: ignore[return-value]  # a product that starts from 1 of at least one tensor


def mip(*tensors: Tensor) -> Tensor:
    """Multilinear inner product: the sum over the last axis of the elementwise product of k tensors.

    Args:
        tensors: each (..., d), broadcast against each other; two of them give the ordinary inner product.

    Returns:
        (...).

    Source: Saporta et al., "Contrasting with Symile", NeurIPS 2024, section 3.
    """
    return product(tensors).sum(dim=-1)
