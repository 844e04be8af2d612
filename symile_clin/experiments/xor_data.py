"""Binary vectors of which only all together tell one from the others."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.data.dataset import Batch
from symile_clin.rng import stream

#: Key of a variable's only array in a batch.
BITS = "bits"


@dataclass(frozen=True)
class XorSamples:
    """n samples of some binary vectors.

    Attributes:
        values: by variable, (n, bits) uint8; all samples, also where the variable counts as absent.
        present: by variable, (n,) bool.
    """

    values: Mapping[str, NDArray[np.uint8]]
    present: Mapping[str, NDArray[np.bool_]]

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Samples `rows` as training takes them: stored arrays of what is present."""
        return Batch(
            arrays={
                name: {BITS: torch.from_numpy(values[rows[self.present[name][rows]]])}
                for name, values in self.values.items()
            },
            draws={},
            present={name: torch.from_numpy(present[rows]) for name, present in self.present.items()},
            row=torch.from_numpy(rows),
        )


def inputs(batch: Batch) -> dict[str, Tensor]:
    """Encoder inputs by variable, (b', bits) float32 of zeros and ones, of the b' samples that have it."""
    return {name: arrays[BITS].float() for name, arrays in batch.arrays.items()}


def variable_names(variables: int) -> tuple[str, ...]:
    """a, b, c, ..."""
    return tuple(string.ascii_lowercase[:variables])


def draw_samples(n: int, *, variables: int, bits: int, p: float, missing: float, seed: int, split: str) -> XorSamples:
    """Draw samples; the same seed and split give the same first vectors and the same uniform draws at every p.

    All variables but the last are Bernoulli(1/2) vectors. The last is the XOR of all others with probability p, one
    draw for all coordinates of a sample, and else the first.

    Args:
        missing: probability of each variable of each sample to be absent.

    Source:
        Saporta et al., NeurIPS 2024, section 5.1 (three variables); examples/ of its code (eight, and absent ones).
    """
    names = variable_names(variables)
    free = stream(seed, "xor", split, "bits").integers(2, size=(variables - 1, n, bits), dtype=np.uint8)
    is_xor = stream(seed, "xor", split, "mixture").random(n) < p
    last = np.where(is_xor[:, None], reduce(np.bitwise_xor, free), free[0])
    absent = stream(seed, "xor", split, "missing").random((variables, n)) < missing
    return XorSamples(
        values=dict(zip(names, [*free, last], strict=True)), present=dict(zip(names, ~absent, strict=True))
    )


def all_vectors(bits: int) -> NDArray[np.uint8]:
    """(2^bits, bits): row j holds the binary digits of j, the lowest first."""
    digits: NDArray[Any] = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
    return digits.astype(np.uint8)


def index_of(vectors: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n,) row of `all_vectors` that each of `vectors` (n, bits) is."""
    index: NDArray[np.int64] = vectors.astype(np.int64) @ (1 << np.arange(vectors.shape[1], dtype=np.int64))
    return index
