"""The logical hash of the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.prepare import hash_samples


@pytest.fixture
def samples() -> pd.DataFrame:
    times = np.array(["2150-01-01T00:00:01", "NaT"], dtype="datetime64[us]")
    return pd.DataFrame(
        {"a": [1.5, np.nan], "b": pd.array([1, None], "Int64"), "c": ["x", None], "d": times, "e": [True, False]}
    )


def test_the_hash_is_of_values_not_of_how_they_are_stored(samples: pd.DataFrame, tmp_path: Path) -> None:
    same = samples.assign(
        a=samples["a"].astype("Float64"), c=samples["c"].astype("string"), d=samples["d"].astype("datetime64[ns]")
    )[["e", "d", "c", "b", "a"]]
    assert hash_samples(same) == hash_samples(samples)
    samples.to_parquet(tmp_path / "samples.parquet")
    assert hash_samples(pd.read_parquet(tmp_path / "samples.parquet")) == hash_samples(samples)


@pytest.mark.parametrize(
    "change",
    [
        {"a": [1.5000000000000002, np.nan]}, {"a": [1.5, 0.0]}, {"b": [1, 2]}, {"c": ["x", ""]}, {"c": ["x", "None"]},
        {"d": np.array(["2150-01-01T00:00:01.000001", "NaT"], dtype="datetime64[us]")},
        {"e": [True, True]}, {"f": [0, 0]},
    ],
)  # fmt: skip
def test_any_change_of_a_value_changes_the_hash(samples: pd.DataFrame, change: dict[str, Any]) -> None:
    assert hash_samples(samples.assign(**change)) != hash_samples(samples)
    assert hash_samples(samples[::-1]) != hash_samples(samples)
