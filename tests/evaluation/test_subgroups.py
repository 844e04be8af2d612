"""Metrics by group: against loops, with planted failures, and against readers who work out what is withheld."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from symile_clin.evaluation.groupings import groupings, race_group
from symile_clin.evaluation.measures import MEANS, patient_stream
from symile_clin.evaluation.ranked import Ranked
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.evaluation.subgroup_figure import subgroup_figure
from symile_clin.evaluation.subgroups import (
    SHOWN,
    SubgroupReport,
    gap_interval,
    is_shown,
    shuffled_gaps,
    subgroup_lines,
    subgroup_report,
)
from symile_clin.modalities.base import Modality

COLUMNS = ["age", "gender", "race", "admission_type", "anchor_year_group"]


class Told:
    """A room that tells a group and findings."""

    def groups(self, samples: pd.DataFrame) -> dict[str, pd.Series[Any]]:
        return {"side": samples["side"], "colour": samples["side"].where(samples["side"].isna())}

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        return samples[["big_spot", "never"]]


ROOMS = {"red": cast(Modality, Told())}


def people(patients: int, *, seed: int = 0) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Samples and whose they are: 1, 2 or 3 of each patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1], size=patients))
    n = len(patient)
    races, sides = (
        np.array(["WHITE", "BLACK/AFRICAN", None], dtype=object),
        np.array(["left", "right", None], dtype=object),
    )
    samples = pd.DataFrame(
        {
            "age": rng.choice([25, 44, 67, 91], p=[0.02, 0.38, 0.5, 0.1], size=patients)[patient],
            "gender": rng.choice(["F", "M"], size=patients)[patient],
            "race": rng.choice(races, size=patients)[patient],
            "admission_type": rng.choice(["URGENT", "ELECTIVE"], size=n),
            "anchor_year_group": rng.choice(["2008 - 2010", "2011 - 2013"], size=n),
            "side": rng.choice(sides, size=n),
            "big_spot": rng.choice([1.0, 0.0, -1.0, np.nan], size=n),
            "never": rng.choice([0.0, np.nan], size=n),
        }
    )
    texts = ["gender", "race", "admission_type", "anchor_year_group", "side"]
    samples = samples.astype({"age": "Int64", **dict.fromkeys(texts, "string")})
    return samples, patient


def ranked(patient: NDArray[np.int64], n_greater: NDArray[np.int64]) -> Ranked:
    n = len(patient)
    return Ranked(
        target="red",
        protocol="candidates",
        query=("green",),
        query_row=np.arange(n),
        patient=patient,
        ranks=Ranks(n_greater=n_greater, n_tied=np.zeros(n, dtype=np.int64)),
        n_candidates=np.full(n, 10),
    )


def report(
    patients: int = 150, *, worse: str | None = None, min_group: int = 10, drop: str | None = None
) -> tuple[SubgroupReport, pd.DataFrame, Ranked]:
    samples, patient = people(patients)
    rng = np.random.default_rng(1)
    n_greater = rng.integers(0, 3, size=len(patient))
    if worse is not None:
        n_greater[(samples["gender"] == worse).to_numpy(dtype=bool)] += 2
    found = ranked(patient, n_greater)
    if drop is not None:
        samples = samples.drop(columns=drop)
    made = subgroup_report(found, samples=samples, modalities=ROOMS, split="test", seed=5, min_group=min_group)
    return made, samples, found


def test_every_group_is_as_a_loop_over_its_queries_finds_it() -> None:
    made, samples, found = report()
    lines = made.table[made.table["grouping"] == "sex"]
    assert list(lines["metric"]) == [*SHOWN] * 2
    for line in lines.to_dict("records"):
        sex = {"female": "F", "male": "M"}[line["group"]]
        here = [place for place in range(len(samples)) if samples["gender"][place] == sex]
        values = MEANS[line["metric"]](found.ranks)
        assert line["value"] == pytest.approx(sum(values[place] for place in here) / len(here))
        assert (line["n"], line["n_subjects"]) == (len(here), len({found.patient[place] for place in here}))
        assert line["chance"] == pytest.approx(
            {"recall_at_1": 0.1, "recall_at_5": 0.5, "mrr": 0.2928968, "mean_rank": 5.5}[line["metric"]]
        )


def test_intervals_are_over_the_resamples_of_all_metrics() -> None:
    """All patients are drawn, not only a group's own: the same draws as of the metrics of the whole split."""
    made, samples, found = report()
    rng, patients = patient_stream(5), len(np.unique(found.patient))
    here, hits = (samples["gender"] == "F").to_numpy(dtype=bool), found.ranks.recall_at(1)
    means = []
    for _ in range(10_000):
        counts = np.bincount(rng.integers(patients, size=patients), minlength=patients)[found.patient]
        means.append((counts * hits)[here].sum() / counts[here].sum())
    line = made.table[(made.table["group"] == "female") & (made.table["metric"] == "recall_at_1")].iloc[0]
    assert (line["ci_low"], line["ci_high"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_groupings_are_named_and_what_is_not_told_is_said() -> None:
    made, _, _ = report()
    assert list(dict.fromkeys(made.table["grouping"])) == [
        "sex", "age band", "race", "admission type", "years of care", "red: side", "red: finding present",
    ]  # fmt: skip
    assert made.left_out == ["red: colour"]
    groups = made.table.groupby("grouping")["group"].unique()
    assert list(groups["red: finding present"]) == ["big spot"]  # a finding that nobody has is no group
    assert list(groups["race"]) == ["Black", "White", "unknown"]
    assert list(groups["age band"]) == ["20 to 29", "40 to 49", "60 to 69", "90 and over"]
    assert "not told by this cohort: red: colour" in subgroup_lines(made)[-1]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_leaves_its_grouping_out(column: str) -> None:
    made, _, _ = report(60, drop=column)
    assert len(made.left_out) == 2
    assert made.table["grouping"].nunique() == 6


def test_without_anything_told_there_is_a_table_without_lines(tmp_path: Path) -> None:
    _, patient = people(20)
    bare = pd.DataFrame(index=range(len(patient)))
    made = subgroup_report(ranked(patient, np.zeros_like(patient)), samples=bare, modalities={}, split="val", seed=0)
    assert len(made.table) == 0
    assert made.metrics == {}
    assert len(made.left_out) == 5
    subgroup_figure(tmp_path / "none.png", made)


def test_small_groups_are_withheld_with_all_that_would_give_them_away() -> None:
    made, samples, found = report()
    ages = made.table[(made.table["grouping"] == "age band") & (made.table["metric"] == "recall_at_1")]
    sizes = pd.Series(found.patient).groupby(np.asarray(samples["age"])).nunique()
    assert 0 < sizes[25] < 10 < sizes[91] < sizes[44]  # one small band: the next smallest goes, too
    hidden = ages[ages["value"].isna()]
    assert list(hidden["group"]) == ["20 to 29", "90 and over"]
    assert hidden.drop(columns=["grouping", "group", "metric"]).isna().all(axis=None)
    assert "2 groups are withheld: fewer than 10 patients" in "\n".join(subgroup_lines(made))
    gap = next(gap for gap in made.gaps if gap.key == "age_band")
    assert {gap.lowest, gap.highest} == {"40 to 49", "60 to 69"}


@pytest.mark.parametrize(
    ("sizes", "partition", "shown"),
    [
        ((3, 12, 30), True, (False, False, True)),
        ((3, 12, 30), False, (False, True, True)),
        ((3, 4, 30), True, (False, False, False)),  # together 7
        ((3, 7, 30), True, (False, False, True)),
        ((10, 10, 10), True, (True, True, True)),
        ((9, 20, 20), True, (False, False, True)),  # the first of equal ones
        ((9, 20), True, (False, False)),
        ((9,), True, (False,)),
        ((10,), True, (True,)),
    ],
)
def test_what_is_shown(sizes: tuple[int, ...], partition: bool, shown: tuple[bool, ...]) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes)
    patient = np.arange(len(group))
    twice = np.concatenate([group, group])[:, None] == np.arange(len(sizes))  # two queries each: patients count
    found = is_shown(twice, np.concatenate([patient, patient]), min_group=10, partition=partition)
    assert tuple(found) == shown


def test_queries_in_no_group_are_not_worked_out_from_the_total() -> None:
    patient = np.arange(43)
    members = patient[:, None] // 20 == np.arange(2)  # the last 3 are in neither
    assert is_shown(members, patient, min_group=10, partition=True).tolist() == [False, True]
    assert is_shown(members, patient, min_group=3, partition=True).tolist() == [True, True]
    assert is_shown(members, patient, min_group=10, partition=False).tolist() == [True, True]


def test_the_user_sets_the_threshold() -> None:
    everything, _, _ = report(min_group=1)
    assert not everything.table["value"].isna().any()
    nothing, _, _ = report(min_group=1_000)
    assert nothing.table["value"].isna().all()
    assert nothing.gaps == []
    assert nothing.metrics == {}


def test_a_planted_failure_is_found_and_nothing_else() -> None:
    made, _, _ = report(worse="F")
    gaps = {gap.key: gap for gap in made.gaps}
    assert (gaps["gender"].lowest, gaps["gender"].highest) == ("female", "male")
    assert gaps["gender"].interval.low > 0.1
    assert gaps["gender"].p < 0.001
    assert gaps["gender"].null < 0.1
    assert all(gap.interval.low == 0 and gap.p > 0.01 for key, gap in gaps.items() if key != "gender")
    name = "test/red/gap/gender/recall_at_1"
    values = made.table[(made.table["grouping"] == "sex") & (made.table["metric"] == "recall_at_1")]["value"]
    assert made.metrics[name] == pytest.approx(values.max() - values.min())
    assert made.metrics[f"{name}_ci_low"] < made.metrics[name] < made.metrics[f"{name}_ci_high"]
    assert (made.metrics[f"{name}_null"], made.metrics[f"{name}_p"]) == (gaps["gender"].null, gaps["gender"].p)
    assert any(line.split()[0] == "sex" and line.endswith("female, male") for line in subgroup_lines(made))


def test_the_gap_reaches_as_far_as_any_two_groups_drift_apart() -> None:
    """By hand: 20 resamples, of which the 19th largest drift of any pair is 0.3."""
    means = np.array([0.2, 0.5, 0.9])
    drawn = np.tile(means, (20, 1))
    drawn[0] += [0.0, 0.1, -0.4]  # group 1 against 2: 0.5
    drawn[1] += [0.3, 0.3, 0.0]  # 0.3
    drawn[2] += 0.2  # all alike: nothing drifts
    drawn[3] = [np.nan, 0.6, np.nan]  # a single group drifts from none
    found = gap_interval(means, drawn)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.7, 0.7 - 0.31, 0.7 + 0.31))


def test_shuffling_keeps_patients_whole_and_groups_their_size() -> None:
    """Two patients of two queries and three of one: the gaps that shuffling can give, listed by hand."""
    patient = np.array([0, 0, 1, 1, 2, 3, 4])
    values = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    first = np.array([True, True, False, False, True, False, False])
    members = np.stack([first, ~first], axis=1)
    gaps = shuffled_gaps(values, members, patient, shuffles=4_000, rng=np.random.default_rng(0))
    # The pair of patient 0 or 1 (2 or 0 hits) with one of three single queries (1, 0 or 0 hits), against the rest.
    listed = [abs((pair + single) / 3 - (3 - pair - single) / 4) for pair in (2, 0) for single in (1, 0, 0)]
    possible, counts = np.unique(np.round(gaps, 9), return_counts=True)
    expected, times = np.unique(np.round(listed, 9), return_counts=True)
    np.testing.assert_allclose(possible, expected)
    assert counts / 4_000 == pytest.approx(times / 6, abs=0.03)


def test_p_values_of_gaps_are_uniform_where_groups_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    small = []
    for _ in range(300):
        patient = np.repeat(np.arange(60), rng.integers(1, 3, size=60))
        values = np.repeat(rng.random(60), np.bincount(patient)) + 0.1 * rng.random(len(patient))
        members = rng.integers(3, size=60)[patient][:, None] == np.arange(3)
        means = values @ members / members.sum(axis=0)
        gaps = shuffled_gaps(values, members, patient, shuffles=199, rng=rng)
        small.append((1 + np.count_nonzero(gaps >= np.ptp(means))) / 200 <= 0.1)
    assert np.mean(small) == pytest.approx(0.1, abs=0.05)


def test_a_collapsed_model_treats_all_alike() -> None:
    samples, patient = people(80)
    level = Ranked(
        **vars(ranked(patient, np.zeros_like(patient)))
        | {"ranks": Ranks(n_greater=np.zeros_like(patient), n_tied=np.full_like(patient, 9))}
    )
    made = subgroup_report(level, samples=samples, modalities=ROOMS, split="test", seed=0)
    for gap in made.gaps:
        assert (gap.interval.estimate, gap.interval.high, gap.null, gap.p) == pytest.approx((0, 0, 0, 1), abs=1e-12)


def test_a_group_that_a_resample_may_lack_still_has_an_interval() -> None:
    made, _, _ = report(12, min_group=1)
    assert np.isfinite(made.table[["ci_low", "ci_high"]].to_numpy(dtype=float)).all()
    assert all(np.isfinite(value) for value in made.metrics.values())


@pytest.mark.parametrize(
    ("race", "group"),
    [
        ("WHITE", "White"),
        ("WHITE - RUSSIAN", "White"),
        ("BLACK/CAPE VERDEAN", "Black"),
        ("HISPANIC OR LATINO", "Hispanic"),
        ("HISPANIC/LATINO - PUERTO RICAN", "Hispanic"),
        ("ASIAN - SOUTH EAST ASIAN", "Asian"),
        ("OTHER", "other"),
        ("PORTUGUESE", "other"),
        ("SOUTH AMERICAN", "other"),
        ("MULTIPLE RACE/ETHNICITY", "other"),
        ("AMERICAN INDIAN/ALASKA NATIVE", "other"),
        ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "other"),
        ("UNKNOWN", "unknown"),
        ("UNABLE TO OBTAIN", "unknown"),
        ("PATIENT DECLINED TO ANSWER", "unknown"),
        ("", "unknown"),
    ],
)
def test_race_groups(race: str, group: str) -> None:
    assert race_group(race) == group


def test_groups_without_order_are_sorted_and_categories_keep_theirs() -> None:
    samples, _ = people(40)
    samples["side"] = pd.Categorical(samples["side"], categories=["right", "left"])
    told, _ = groupings(samples, ROOMS)
    side = next(one for one in told if one.key == "red_side")
    assert list(side.members) == ["right", "left"]
    assert side.members.sum().sum() == samples["side"].notna().sum()


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    made, _, _ = report()
    subgroup_figure(tmp_path / "groups.png", made)
    assert (tmp_path / "groups.png").stat().st_size > 20_000
