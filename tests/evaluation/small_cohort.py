"""A synthetic cohort of vectors on disk, whose planted factors a model without weights can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin import files
from symile_clin.data.candidates import draw_candidates, write_candidates
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.base import ArraySpec, Modality
from symile_clin.rng import stream
from symile_clin.schema import (
    ARRAYS_DIR,
    CANDIDATES_DIR,
    ROW,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    SUBJECT_ID,
    TRUTH,
    present_column,
)
from symile_clin.synthetic.truth import Planting, draw_factors

PLANTING = Planting(target="blue", queries=("red", "green"))
NAMES = ("blue", "red", "green")


class Bits:
    """The part of a modality that an evaluation uses: its stored array is its planted factors."""

    input_columns: ClassVar[tuple[str, ...]] = ()
    augmentation_draws = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrays = {"bits": ArraySpec("uint8", (PLANTING.factors[name],))}

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:
        assert draws is None
        return arrays["bits"].float()

    def render(self, arrays: Mapping[str, NDArray[Any]], row: Mapping[str, Any]) -> NDArray[np.uint8]:
        assert row[SPLIT] == "test"
        bits = np.kron(arrays["bits"], np.ones((40, 12), dtype=np.uint8)) * 200 + 30
        return np.repeat(bits[:, :, None], 3, axis=2).astype(np.uint8)


def modalities() -> dict[str, Modality]:
    """The three modalities by name."""
    return {name: cast(Modality, Bits(name)) for name in NAMES}


class ReadsSynergy(nn.Module):
    """Embeds bits as signs so that the product of all three is large where the exclusive or holds."""

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002  all are
        signs = {name: 1 - 2 * tensor for name, tensor in inputs.items()}
        joint = {name: tensor[:, -2:] for name, tensor in signs.items()}
        ones = torch.ones(len(signs["red"]), 1)
        return {
            "blue": torch.cat([0.3 * signs["blue"][:, :2], joint["blue"]], dim=1),
            "red": torch.cat([signs["red"][:, :1], ones, joint["red"]], dim=1),
            "green": torch.cat([ones, signs["green"][:, :1], joint["green"]], dim=1),
        }


class Collapsed(nn.Module):
    """Gives everything the same embedding."""

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002  all are
        return {name: torch.full((len(tensor), 5), 0.1) for name, tensor in inputs.items()}


def small_cohort(path: Path, *, admissions: int = 120) -> Cohort:
    """Write and open a cohort whose samples are all in the test split; every patient has two."""
    rng = stream(0, "small cohort")
    factors = [draw_factors(PLANTING, rng) for _ in range(admissions)]
    rows = np.arange(admissions)
    subjects = rows // 2
    samples = pd.DataFrame({ROW: rows, SAMPLE_ID: rows, SPLIT: "test", SUBJECT_ID: subjects})
    truth: dict[str, NDArray[Any]] = {SAMPLE_ID: rows}
    arrays = {}
    for name in NAMES:
        samples[present_column(name)] = True
        bits = np.array([one[name] for one in factors], dtype=np.uint8)
        (path / ARRAYS_DIR / name).mkdir(parents=True)
        np.save(path / ARRAYS_DIR / name / "bits.npy", bits)
        part = {"file": "bits.npy", "rows": admissions}
        arrays[name] = {"bits": {"shape": [bits.shape[1]], "dtype": "uint8", "parts": [part]}}
        truth |= {f"{name}_{j}": bits[:, j] for j in range(bits.shape[1])}
    samples.to_parquet(path / SAMPLES)
    pd.DataFrame(truth).to_parquet(path / TRUTH)
    for stem, other_subjects in (("test", False), ("test_other_subjects", True)):
        lists = draw_candidates(rows, subjects, n=10, rng=rng, split="test", other_subjects=other_subjects)
        write_candidates(path / CANDIDATES_DIR / f"{stem}.parquet", lists)
    content = {"name": "small", "hash": "0", "spec": {}, "synthetic": True, "arrays": arrays}
    files.write_manifest(path, stage="cohort", content={**content, "planted": PLANTING.model_dump(mode="json")})
    return open_cohort(path)
