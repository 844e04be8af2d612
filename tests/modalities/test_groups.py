"""Which groups the rooms tell samples by, and what they say where a cohort does not tell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import modalities_of


def room(name: str) -> Modality:
    return modalities_of({"modalities": {name: {"room": name}}})[name]


def test_the_view_is_the_images_own() -> None:
    samples = pd.DataFrame({"cxr_view": pd.array(["AP", None, "PA"], dtype="string")})
    view = room("cxr").groups(samples)["view"]
    assert view.fillna("none").tolist() == ["AP", "none", "PA"]


def test_items_measured_are_counted_in_tens() -> None:
    labs = room("labs")
    values = [column for column in labs.columns if not column.endswith("_percentile")]
    counts = [0, 1, 10, 11, 20, 49, 50]
    measured = np.where(np.arange(50) < np.array(counts)[:, None], 1.5, np.nan)
    group = labs.groups(pd.DataFrame(measured, columns=pd.Index(values)))["items measured"]
    assert group.isna().tolist() == [True] + [False] * 6
    assert group[1:].tolist() == ["1 to 10", "1 to 10", "11 to 20", "11 to 20", "41 to 50", "41 to 50"]
    assert list(group.cat.categories)[1] == "11 to 20"  # in the order of numbers


def test_what_a_cohort_does_not_tell_is_null() -> None:
    samples = pd.DataFrame({"row": range(3)})
    for name in ("cxr", "labs"):
        (group,) = room(name).groups(samples).values()
        assert len(group) == 3
        assert group.isna().all()
    assert room("ecg").groups(samples) == {}
