"""Lab percentiles against a loop, and the room's state."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from symile_clin.errors import CohortError
from symile_clin.modalities.labs import LABELS, LabOptions, Labs
from symile_clin.modalities.labs.preprocess import Ecdf
from symile_clin.rng import stream

PAPER_FIRST = (50802, 50804, 50813)


def share_at_most(train: list[float], x: float) -> float:
    """The right-continuous ECDF, by definition."""
    if np.isnan(x):
        return float("nan")
    seen = [value for value in train if not np.isnan(value)]
    return sum(value <= x for value in seen) / len(seen)


def test_the_distribution_is_the_loops() -> None:
    rng = stream(0, "test", "ecdf")
    train = rng.integers(0, 20, 300) / 4  # many ties
    train[rng.random(300) < 0.3] = np.nan
    asked = np.concatenate([train, [-1.0, 0.1, 99.0, np.nan]])
    ecdf = Ecdf.fit(train)
    np.testing.assert_array_equal(ecdf(asked), [share_at_most(train.tolist(), x) for x in asked])
    seen = train[~np.isnan(train)]
    assert ecdf.mean == pytest.approx(np.mean([share_at_most(train.tolist(), x) for x in seen]), abs=1e-15)


def test_a_hand_worked_distribution() -> None:
    ecdf = Ecdf.fit(np.array([3.0, 1.0, np.nan, 3.0, 8.0]))
    assert ecdf(np.array([0.9, 1.0, 2.9, 3.0, 7.0, 8.0, 9.0])).tolist() == [0, 0.25, 0.25, 0.75, 0.75, 1, 1]
    assert ecdf.mean == (0.25 + 0.75 + 0.75 + 1) / 4


def test_the_state_survives_json_to_the_bit() -> None:
    train = stream(1, "test", "ecdf").normal(size=500)
    ecdf = Ecdf.fit(train)
    again = Ecdf.from_plain(json.loads(json.dumps(ecdf.plain())))
    asked = np.concatenate([train, train + 1e-12])
    np.testing.assert_array_equal(ecdf(asked), again(asked))


def samples(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(values).astype("float64")


def test_missing_values_take_the_mean_percentile_of_train_and_are_marked() -> None:
    labs = Labs("labs", LabOptions(items=(50912, 50931)))
    train = samples({"lab_50912": [1, 2, np.nan, 4], "lab_50931": [5, 5, 5, 5]})
    filled, arrays = labs.transform(
        samples({"lab_50912": [np.nan, 2, 9], "lab_50931": [4, 5, np.nan]}), labs.fit(train)
    )
    mean = np.float32((1 / 3 + 2 / 3 + 1) / 3)
    np.testing.assert_array_equal(arrays["percentile"], np.array([[mean, 0], [2 / 3, 1], [1, 1]], dtype=np.float32))
    assert arrays["observed"].tolist() == [[False, True], [True, True], [True, False]]
    assert arrays["percentile"].dtype == np.float32
    assert arrays["observed"].dtype == np.bool_
    assert filled["lab_50912_percentile"].isna().tolist() == [True, False, False]


def test_a_lab_never_seen_in_train_is_named() -> None:
    labs = Labs("labs", LabOptions(items=(50912, 50931)))
    with pytest.raises(CohortError, match=r"lab 50931 \(Glucose\)"):
        labs.fit(samples({"lab_50912": [1.0], "lab_50931": [np.nan]}))


def test_items_are_in_the_order_of_the_strings() -> None:
    paper = Labs("labs", LabOptions()).items
    assert len(paper) == 50 == len(LABELS)
    assert paper[:3] == PAPER_FIRST
    # as strings "100_percentile" < "99_percentile", and the digit 9 comes before the underscore
    assert Labs("labs", LabOptions(items=(99, 100, 9, 1009))).items == (1009, 100, 99, 9)
    columns = list(Labs("labs", LabOptions(items=(99, 100))).columns)
    assert columns == ["lab_100", "lab_99", "lab_100_percentile", "lab_99_percentile"]
