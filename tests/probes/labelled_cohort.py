"""A small cohort whose target carries findings: one that a query shares with it, and one that only all queries tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.base import Modality
from symile_clin.rng import stream
from symile_clin.schema import SAMPLES, SPLIT
from tests.evaluation.small_cohort import NAMES, PLANTING, Bits, small_cohort

#: Finding -> which of the target's planted factors shows it; one is never there.
SHOWN: Mapping[str, int] = {"shared": 0, "synergy": 2}
FINDINGS = (*SHOWN, "rare")


class LabelledBits(Bits):
    """A modality with findings."""

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        """The findings of the target; nothing of the others."""
        own = [f"finding_{name}" for name in FINDINGS] if self.name == PLANTING.target else []
        return samples[own].rename(columns=lambda name: name.removeprefix("finding_"))


def modalities() -> dict[str, Modality]:
    """The three modalities by name."""
    return {name: cast(Modality, LabelledBits(name)) for name in NAMES}


def labelled_cohort(path: Path, *, lacking: Mapping[str, Sequence[int]] | None = None) -> Cohort:
    """Test samples 0 to 199, then 100 of val and 300 of train; two of a patient.

    Findings are there where the factor is, one in ten of these uncertain; where it is not, half are mentioned.
    """
    made = small_cohort(path, admissions=200, train=400, lacking=lacking)
    samples, truth, rng = made.samples.copy(), made.truth, stream(0, "findings")
    assert truth is not None
    samples.loc[200:299, SPLIT] = "val"
    for name, factor in SHOWN.items():
        there = truth[f"{PLANTING.target}_{factor}"].to_numpy() == 1
        draws = rng.random(len(samples))
        samples[f"finding_{name}"] = np.where(
            there, np.where(draws < 0.1, -1.0, 1.0), np.where(draws < 0.5, 0.0, np.nan)
        )
    samples["finding_rare"] = np.where(samples.index % 150 == 0, 1.0, 0.0)
    samples.to_parquet(path / SAMPLES)
    return open_cohort(path)
