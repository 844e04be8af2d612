"""A synthetic cohort of vectors on disk, whose planted factors a model without weights can read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin import files
from symile_clin.data.candidates import draw_candidates, draw_matched, write_candidates
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.data.strata import strata
from symile_clin.modalities.base import ArraySpec, Modality
from symile_clin.rng import stream
from symile_clin.schema import (
    AGE,
    AGE_BAND,
    ARRAYS_DIR,
    CANDIDATES_DIR,
    GENDER,
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
VIEW = "blue_view"


class Bits:
    """The part of a modality that an evaluation uses: its stored array is its planted factors."""

    input_columns: ClassVar[tuple[str, ...]] = ()
    augmentation_draws = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrays = {"bits": ArraySpec("uint8", (PLANTING.factors[name],))}
        self.match_columns = (VIEW,) if name == PLANTING.target else ()

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:
        assert draws is None
        return arrays["bits"].float()

    def groups(self, samples: pd.DataFrame) -> dict[str, pd.Series[Any]]:
        return {"view": samples[VIEW]} if self.match_columns else {}

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        return samples.iloc[:, :0]

    def render(self, arrays: Mapping[str, NDArray[Any]], row: Mapping[str, Any]) -> NDArray[np.uint8]:
        assert row[SPLIT] == "test"
        bits = np.kron(arrays["bits"], np.ones((40, 12), dtype=np.uint8)) * 200 + 30
        return np.repeat(bits[:, :, None], 3, axis=2).astype(np.uint8)


def modalities() -> dict[str, Modality]:
    """The three modalities by name."""
    return {name: cast(Modality, Bits(name)) for name in NAMES}


class Fixed(nn.Module, ABC):
    """A model without weights; where a modality is absent it has a placeholder of ones, or NaN.

    Args:
        placeholders: modalities that it has one for.
    """

    def __init__(self, *, scale: float = 1.0, placeholders: Collection[str] = ()) -> None:
        super().__init__()
        self.scale = torch.tensor(scale)
        self.placeholders = placeholders

    @abstractmethod
    def encode(self, name: str, bits: Tensor) -> Tensor:
        """Embeddings of samples that have the modality."""

    def placeholder(self, name: str) -> Tensor | None:
        """As `MultimodalEncoder.placeholder`."""
        return torch.ones(self.encode(name, torch.zeros(1, 4)).shape[1]) if name in self.placeholders else None

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, bits in inputs.items():
            own, absent = self.encode(name, bits), self.placeholder(name)
            found[name] = torch.full((len(present[name]), own.shape[1]), torch.nan)
            found[name][:] = torch.nan if absent is None else absent
            found[name][present[name]] = own
        return found


class ReadsSynergy(Fixed):
    """Embeds bits as signs so that the product of all three is large where the exclusive or holds."""

    def encode(self, name: str, bits: Tensor) -> Tensor:
        signs = 1 - 2 * bits
        ones = torch.ones(len(bits), 1)
        joint = signs[:, -2:]
        if name == "blue":
            return torch.cat([0.3 * signs[:, :2], joint], dim=1)
        own = [signs[:, :1], ones] if name == "red" else [ones, signs[:, :1]]
        return torch.cat([*own, joint], dim=1)


class Collapsed(Fixed):
    """Gives everything the same embedding."""

    def encode(self, name: str, bits: Tensor) -> Tensor:  # noqa: ARG002
        return torch.full((len(bits), 5), 0.1)


def small_cohort(
    path: Path, *, admissions: int = 120, train: int = 300, lacking: Mapping[str, Sequence[int]] | None = None
) -> Cohort:
    """Write and open a cohort of test samples, two of a patient, which training samples follow.

    Args:
        admissions: test samples.
        lacking: by modality, rows that lack it.
    """
    rng, later = stream(0, "small cohort"), stream(0, "small cohort", "train")
    factors = [draw_factors(PLANTING, rng) for _ in range(admissions)]
    factors += [draw_factors(PLANTING, later) for _ in range(train)]
    admitted = np.arange(admissions + train)
    split = ["test"] * admissions + ["train"] * train
    samples = pd.DataFrame({ROW: admitted, SAMPLE_ID: admitted, SPLIT: split, SUBJECT_ID: admitted // 2})
    people = stream(0, "small cohort", "people")
    samples[GENDER] = people.choice(["F", "M"], (admissions + train + 1) // 2)[admitted // 2]
    samples[AGE] = people.choice([45, 67], (admissions + train + 1) // 2)[admitted // 2]
    samples[VIEW] = people.choice(["front", "side"], len(admitted))
    truth: dict[str, NDArray[Any]] = {SAMPLE_ID: admitted}
    arrays = {}
    for name in NAMES:
        samples[present_column(name)] = ~np.isin(admitted, (lacking or {}).get(name, []))
        bits = np.array([one[name] for one in factors], dtype=np.uint8)
        (path / ARRAYS_DIR / name).mkdir(parents=True)
        np.save(path / ARRAYS_DIR / name / "bits.npy", bits)
        part = {"file": "bits.npy", "rows": len(admitted)}
        arrays[name] = {"bits": {"shape": [bits.shape[1]], "dtype": "uint8", "parts": [part]}}
        truth |= {f"{name}_{j}": bits[:, j] for j in range(bits.shape[1])}
    samples.to_parquet(path / SAMPLES)
    pd.DataFrame(truth).to_parquet(path / TRUTH)
    queries = samples[samples[present_column(PLANTING.target)] & (samples[SPLIT] == "test")]
    rows, subjects = queries[ROW].to_numpy(), queries[SUBJECT_ID].to_numpy()
    for stem, other_subjects in (("test", False), ("test_other_subjects", True)):
        lists = draw_candidates(rows, subjects, n=10, rng=rng, split="test", other_subjects=other_subjects)
        write_candidates(path / CANDIDATES_DIR / f"{stem}.parquet", lists)
    alike = strata(queries, [GENDER, AGE_BAND, VIEW])
    write_candidates(
        path / CANDIDATES_DIR / "test_matched.parquet", draw_matched(rows, subjects, alike, n=10, rng=people)
    )
    content = {"name": "small", "hash": "0", "spec": {}, "synthetic": True, "arrays": arrays}
    files.write_manifest(path, stage="cohort", content={**content, "planted": PLANTING.model_dump(mode="json")})
    return open_cohort(path)
