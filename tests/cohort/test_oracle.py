"""The builder against loops over rows, on random trees full of ties, border times and faults."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symile_clin.rng import stream
from tests.cohort.paper_oracle import paper_cohort
from tests.cohort.tree import HOUR, Tree, build, waveform

ITEMS = (50912, 50931)
SECOND = timedelta(seconds=1)
#: Offsets from an admission: borders, a second beside them, and a few in common, so that ties are the rule.
XRAY_OFFSETS = [
    24 * HOUR, 24 * HOUR + SECOND / 2, 24 * HOUR + SECOND, 30 * HOUR, 30 * HOUR, 48 * HOUR, 72 * HOUR,
    72 * HOUR + 0.9 * SECOND, 72 * HOUR + SECOND, -HOUR,
]  # fmt: skip
DAY_OFFSETS = [-24 * HOUR - SECOND, -24 * HOUR, -HOUR, 0 * HOUR, 0 * HOUR, HOUR, 24 * HOUR, 24 * HOUR + SECOND]
#: Leap day, the last evening of a year, a summer night in which clocks would be moved, and midnight.
STARTS = [datetime(2152, 2, 27, 23), datetime(2149, 12, 30, 22, 30), datetime(2150, 3, 27, 1, 30), datetime(2150, 6, 1)]


def random_tree(root: Path, seed: int) -> tuple[Tree, set[str], set[int]]:
    """A tree, the images without a file, and the records that are not usable."""
    rng = stream(seed, "test", "oracle")

    def one_of(values: list[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    tree, missing, unusable = Tree(root), set(), set()
    admissions: list[tuple[int, datetime]] = []
    hadms = rng.permutation(60) + 20_000_000
    for subject in rng.permutation(14) + 10_000_000:
        time = one_of(STARTS)
        for _ in range(int(rng.integers(1, 4))):
            tree.admission(
                int(subject), int(hadms[len(admissions)]), time, anchor_year=2147, anchor_age=int(subject % 70)
            )
            admissions.append((int(subject), time))
            time += one_of([30 * HOUR, 47 * HOUR, 900 * HOUR])
    for number, study in enumerate(rng.permutation(100) + 50_000_000):
        subject, time = one_of(admissions)
        when = time + one_of(XRAY_OFFSETS)
        labels = int(rng.choice(3, p=[0.15, 0.75, 0.1]))
        for image in range(int(rng.integers(1, 3))):
            there = rng.random() > 0.1
            dicom_id = tree.xray(
                subject, int(study), when, image=int(rng.integers(1000)) * 1000 + number + image * 500,
                view=one_of(["AP", "PA", "PA", "LATERAL", "LL", ""]), labels=labels if image == 0 else 0, file=there,
                **one_of([{}] * 12 + [{"StudyTime": 246000.0}, {"StudyTime": None}, {"StudyDate": 21500230}]),
            )  # fmt: skip
            if not there:
                missing.add(dicom_id)
    for study in rng.permutation(60) + 40_000_000:
        subject, time = one_of(admissions)
        signal = waveform(int(study))
        if rng.random() < 0.35:
            unusable.add(int(study))
            signal[:] = one_of([0, 7])
        elif rng.random() < 0.15:
            unusable.add(int(study))
            signal[11, 3] = -32768
        tree.ecg(subject, int(study), time + one_of(DAY_OFFSETS), signal=signal)
    for event in rng.permutation(200):
        subject, time = one_of(admissions)
        tree.lab(
            subject, time + one_of(DAY_OFFSETS), one_of([None, float(rng.integers(100)), float(rng.integers(100))]),
            item=one_of([*ITEMS, 51221]), labevent_id=int(event), hadm_id=one_of([None, 29_999_999]),
        )  # fmt: skip
    for rows in tree.rows.values():  # no file's order decides anything
        order = rng.permutation(len(rows))
        rows[:] = [rows[place] for place in order]
    return tree, missing, unusable


@pytest.mark.parametrize("seed", range(4))
def test_the_builder_agrees_with_loops_over_rows(tmp_path: Path, seed: int) -> None:
    tree, missing, unusable = random_tree(tmp_path, seed)
    expected = paper_cohort(tree.rows, items=ITEMS, missing=missing, unusable=unusable)
    assert len(expected) > 3
    samples = build(tree).samples
    assert samples["hadm_id"].tolist() == [one["hadm_id"] for one in expected]
    for column in ("age", "cxr_dicom_id", "cxr_time", "ecg_study_id", "ecg_time"):
        assert samples[column].tolist() == [one[column] for one in expected], column
    for item in ITEMS:
        found = samples[f"lab_{item}"].to_numpy()
        np.testing.assert_array_equal(found, [one["labs"].get(item, np.nan) for one in expected])


def test_the_trees_hold_what_they_are_meant_to(tmp_path: Path) -> None:
    """Over the seeds of the test above: admissions that leave for every reason, ties, and refusals before a choice."""
    reasons: set[tuple[str, str]] = set()
    ties = 0
    for seed in range(4):
        tree, _, unusable = random_tree(tmp_path / str(seed), seed)
        built = build(tree)
        table = built.attrition.table()
        reasons |= set(zip(table["step"], table["reason"], strict=True))
        times = pd.DataFrame(tree.rows["ecg_records"])
        ties += int(times.duplicated(["subject_id", "ecg_time"]).sum())
        assert set(built.attrition.quarantine()["reason"]) & {"all zero", "constant", "missing values"}
        assert not set(built.samples["ecg_study_id"]) & unusable
    assert ties > 10
    assert {("cxr", "no event in the window"), ("cxr", "no label"), ("ecg", "no event in the window")} <= reasons
    assert {"all zero", "constant", "missing values"} & {reason for step, reason in reasons if step == "ecg"}
