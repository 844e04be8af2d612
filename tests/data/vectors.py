"""A tiny cohort of vectors on disk, without any room: what training and its data reader need, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from symile_clin import files
from symile_clin.data.candidates import CandidateLists
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.base import ArraySpec, Modality
from symile_clin.schema import ARRAYS_DIR, ROW, SAMPLE_ID, SAMPLES, SPLIT, present_column

WIDTH = 6
NAMES = ("blue", "red", "green")


class Vector:
    """The part of a modality that batches are made with; augmentation adds a draw to every value of a sample."""

    augmentation_draws = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrays = {"vector": ArraySpec("float32", (WIDTH,))}
        self.input_columns = (f"{name}_gain",)

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:
        scaled = (arrays["vector"] * arrays[f"{self.name}_gain"][:, None]).float()
        return scaled if draws is None else scaled + 0.02 * (draws.float() - 0.5)


def modalities() -> dict[str, Modality]:
    """By name."""
    return {name: cast(Modality, Vector(name)) for name in NAMES}


def vector_cohort(path: Path, *, train: int = 96, val: int = 40, parts: int = 1) -> Cohort:
    """Write and open a cohort whose "blue" signs are the products of the "red" and "green" ones.

    Args:
        parts: files that each array is stored in.
    """
    rng = np.random.default_rng(0)
    n = train + val
    signs = {name: rng.choice([-1.0, 1.0], (n, WIDTH)) for name in ("red", "green")}
    signs["blue"] = signs["red"] * signs["green"]
    samples = pd.DataFrame({ROW: np.arange(n), SAMPLE_ID: np.arange(n), SPLIT: ["train"] * train + ["val"] * val})
    arrays = {}
    for name in NAMES:
        samples[present_column(name)] = np.arange(n) != 3
        samples[f"{name}_gain"] = 1.0
        vectors = (signs[name] + 0.1 * rng.standard_normal((n, WIDTH))).astype(np.float32)
        folder = path / ARRAYS_DIR / name
        folder.mkdir(parents=True)
        entries = []
        for number, rows in enumerate(np.array_split(np.arange(n), parts)):
            np.save(folder / f"vector-{number}.npy", vectors[rows])
            entries.append({"file": f"vector-{number}.npy", "rows": len(rows)})
        arrays[name] = {"vector": {"shape": [WIDTH], "dtype": "float32", "parts": entries}}
    samples.to_parquet(path / SAMPLES)
    content = {"name": "vectors", "hash": "0", "spec": {}, "synthetic": False, "arrays": arrays}
    files.write_manifest(path, stage="cohort", content=content)
    return open_cohort(path)


def candidate_lists(rows: NDArray[np.int64], *, n: int = 10) -> CandidateLists:
    """For each row itself and n - 1 others."""
    rng = np.random.default_rng(1)
    lists = np.array([[row, *rng.choice(rows[rows != row], n - 1, replace=False)] for row in rows])
    return CandidateLists(query_row=rows, candidate_rows=lists, same_subject=np.zeros(lists.shape, dtype=np.bool_))
