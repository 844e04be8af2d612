"""Splits: sizes, whole patients, the paper's rule, given files, and the proof that no patient is in two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.splits import (
    Size,
    check_disjoint,
    draw_admission_then_drop,
    draw_by_anchor_year_group,
    draw_by_subject,
    given_splits,
)
from symile_clin.errors import CohortError, ConfigError
from symile_clin.rng import stream


def cohort(size: int = 300, patients: int = 200, seed: int = 0) -> pd.DataFrame:
    subjects = np.sort(stream(seed, "test", "splits").integers(0, patients, size))
    return pd.DataFrame(
        {"sample_id": [f"s{i}" for i in range(size)], "subject_id": subjects, "hadm_id": range(1000, 1000 + size)}
    )


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [(0.6, 0.2, "rest"), (180, 60, "rest"), ("rest", 60, 60), (0.6, "rest", 0.2), (0.6, 0.2, 0.2)],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whole_patients_reach_the_sizes_and_nobody_is_left_out(train: Size, val: Size, test: Size, seed: int) -> None:
    samples = cohort()
    drawn = draw_by_subject(samples, train=train, val=val, test=test, seed=seed)
    assert set(drawn) == set(samples["sample_id"])
    check_disjoint(samples, drawn)
    counts: Counter[str] = Counter(drawn.values())
    most = samples["subject_id"].value_counts().max()
    for split, size in zip(("train", "val", "test"), (180, 60, 60), strict=True):
        assert abs(counts[split] - size) < 2 * most


def test_a_split_stops_at_the_patient_that_reaches_its_size() -> None:
    """By hand: three patients of 2, 2 and 1 samples; train of 2 is one patient of 2, or of 1 and then one of 2."""
    samples = pd.DataFrame({"sample_id": list("abcde"), "subject_id": [1, 1, 2, 2, 3]})
    for seed in range(20):
        drawn = draw_by_subject(samples, train=1, val=1, test="rest", seed=seed)
        assert len({samples["subject_id"][i] for i, name in enumerate("abcde") if drawn[name] == "train"}) == 1
        assert len(set(drawn.values())) == 3


def test_other_seeds_give_other_splits_and_row_order_none() -> None:
    samples = cohort()
    first = draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=0)
    shuffled = samples.sample(frac=1, random_state=1)
    assert draw_by_subject(shuffled, train=0.6, val=0.2, test="rest", seed=0) == first
    assert draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=1) != first
    paper = draw_admission_then_drop(samples, train=150, val=30, seed=0)
    assert draw_admission_then_drop(shuffled, train=150, val=30, seed=0) == paper
    assert draw_admission_then_drop(samples, train=150, val=30, seed=1) != paper


def test_the_papers_rule_draws_admissions_and_drops_held_out_ones_of_patients_drawn_before() -> None:
    samples = cohort()
    drawn = draw_admission_then_drop(samples, train=150, val=30, seed=0)
    counts = Counter(drawn.values())
    assert (counts["train"], counts["val"]) == (150, 30)
    check_disjoint(samples, drawn)
    split = samples["sample_id"].map(drawn)
    before = set(samples.loc[split.isin(["train", "val"]), "subject_id"])
    dropped = samples[split.isna()]
    assert len(dropped) > 0
    assert set(dropped["subject_id"]) <= before
    # whoever remains is test
    assert set(samples.loc[~samples["subject_id"].isin(before), "sample_id"]) == {
        one for one, name in drawn.items() if name == "test"
    }


@pytest.mark.parametrize(("train", "val"), [(300, 10), (295, 10), (10_000, 750)])
def test_counts_that_do_not_fit_say_what_would(train: int, val: int) -> None:
    message = r"300 samples do not fill .*up to 240 train and 30 val would fit"
    with pytest.raises(CohortError, match=message) as caught:
        draw_by_subject(cohort(), train=train, val=val, test="rest", seed=0)
    assert caught.value.exit_code == 3
    with pytest.raises(CohortError, match=message):
        draw_admission_then_drop(cohort(), train=train, val=val, seed=0)


def test_one_patient_cannot_fill_three_splits() -> None:
    samples = pd.DataFrame({"sample_id": list("abcd"), "subject_id": [1, 1, 1, 1]})
    with pytest.raises(CohortError, match="do not fill"):
        draw_by_subject(samples, train=0.5, val=0.25, test="rest", seed=0)
    with pytest.raises(CohortError, match="do not fill"):
        draw_admission_then_drop(samples, train=2, val=1, seed=0)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_given_splits_are_taken_and_admissions_they_lack_left_out(tmp_path: Path, kind: str) -> None:
    samples = pd.DataFrame({"sample_id": list("abcd"), "subject_id": [1, 2, 3, 4], "hadm_id": [10, 20, 30, 40]})
    given = pd.DataFrame({"hadm_id": [10, 20, 30, 99], "split": ["test", "train", "val", "val"]})
    path = tmp_path / f"splits.{kind}"
    given.to_csv(path, index=False) if kind == "csv" else given.to_parquet(path)
    assert given_splits(samples, path) == {"a": "test", "b": "train", "c": "val"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hadm_id,split\n1,validation\n", "a split 'validation'"),
        ("hadm_id,fold\n1,train\n", "Expected split, and sample_id or hadm_id"),
        ("hadm_id,split\n1,train\n1,val\n", "more than one row"),
        ("hadm_id,split\n1,train\nx2,val\n", "no whole number"),
        ("", "cannot be read"),
    ],
)
def test_files_that_are_no_splits_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        given_splits(cohort(), path)
    with pytest.raises(ConfigError, match="no file"):
        given_splits(cohort(), tmp_path / "none.csv")


@pytest.mark.parametrize(("name", "id_column"), [("sample_id", None), ("pair", "pair")])
def test_splits_may_be_given_by_sample(tmp_path: Path, name: str, id_column: str | None) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(f"{name},split,hadm_id\n007,train,\n7,val,\n8,test,\n9,test,\n")
    samples = pd.DataFrame({"sample_id": ["8", "7", "007"], "subject_id": [1, 2, 3], "hadm_id": [None] * 3})
    assert given_splits(samples, path, id_column=id_column) == {"8": "test", "7": "val", "007": "train"}
    path.write_text(f"{name},split\n7,train\n7,val\n")
    with pytest.raises(ConfigError, match="gives a sample more than one row"):
        given_splits(samples, path, id_column=id_column)


def test_given_splits_of_another_cohort_say_how_few_samples_they_name(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("hadm_id,split\n20000000,train\n5,val\n6,test\n")
    samples = pd.DataFrame({"sample_id": ["a", "b"], "subject_id": [1, 2], "hadm_id": [20_000_000, 20_000_001]})
    with pytest.raises(CohortError, match=r"leaves val, test empty: it names 1 of the cohort's 2"):
        given_splits(samples, path)


def test_a_patient_in_two_splits_is_never_accepted() -> None:
    samples = pd.DataFrame({"sample_id": list("abc"), "subject_id": [1, 1, 2]})
    with pytest.raises(CohortError, match="1 patients are in more than one split"):
        check_disjoint(samples, {"a": "train", "b": "test", "c": "val"})
    check_disjoint(samples, {"a": "train", "c": "val"})


GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")


def described(seed: int, size: int = 900, patients: int = 500) -> pd.DataFrame:
    """Samples with what strata are made of: patients are of one sex and year group, and grow older."""
    samples = cohort(size, patients, seed)
    rng = stream(seed, "test", "described")
    gender, group = rng.choice(["F", "M", "M"], patients), rng.choice(GROUPS, patients)
    first = rng.integers(18, 92, patients)
    return samples.assign(
        gender=gender[samples["subject_id"]],
        anchor_year_group=group[samples["subject_id"]],
        age=first[samples["subject_id"]] + rng.integers(0, 4, size),
        index_time=pd.Timestamp("2150-01-01") + pd.to_timedelta(rng.integers(0, 10_000, size), unit="h"),
        view=np.array(["AP", "PA", None], dtype=object)[rng.integers(0, 3, size)],
    )


def stratum_of(samples: pd.DataFrame, stratify: list[str]) -> dict[int, tuple[object, ...]]:
    """By loops: the values of each patient's earliest sample."""
    found: dict[int, tuple[object, ...]] = {}
    earliest: dict[int, tuple[object, str]] = {}
    for _, row in samples.iterrows():
        when = (row["index_time"], row["sample_id"])
        if row["subject_id"] not in earliest or when < earliest[row["subject_id"]]:
            earliest[row["subject_id"]] = when
            values = {**row.to_dict(), "age_band": row["age"] // 10}
            found[row["subject_id"]] = tuple(None if pd.isna(values[name]) else values[name] for name in stratify)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stratify", [["gender"], ["gender", "age_band"], ["view", "gender"]])
def test_every_stratum_is_split_in_proportion_by_whole_patients(seed: int, stratify: list[str]) -> None:
    samples = described(seed)
    drawn = draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=seed, stratify=stratify)
    assert set(drawn) == set(samples["sample_id"])
    check_disjoint(samples, drawn)
    of_subject = stratum_of(samples, stratify)
    stratum, split = samples["subject_id"].map(of_subject), samples["sample_id"].map(drawn)
    most = samples["subject_id"].value_counts().max()
    for value in set(of_subject.values()):
        mine = split[[one == value for one in stratum]]
        for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            # both ends of the stretch may fall within a patient, and the last of the whole split is taken entirely
            assert abs((mine == name).sum() - share * len(mine)) <= 2 * most + 0.03 * len(mine)
    plain = Counter(draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=seed).values())
    for name, count in Counter(drawn.values()).items():
        assert abs(count - plain[name]) <= 2 * most


def test_strata_are_nearer_to_proportion_than_chance() -> None:
    """Women in train, over 20 seeds: the spread that is left is of a patient or two, not of a coin."""
    spread = {}
    for stratify in ((), ("gender",)):
        counts = []
        for seed in range(20):
            samples = described(0)
            drawn = draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=seed, stratify=stratify)
            women = samples.loc[samples["gender"] == "F", "sample_id"]
            counts.append(sum(drawn[one] == "train" for one in women))
        spread[stratify] = float(np.std(counts))
    assert spread[("gender",)] < 0.35 * spread[()]


def test_single_patients_of_rare_strata_go_everywhere() -> None:
    """A stratum of one has no proportion: chance decides, with the split's share."""
    samples = pd.DataFrame({"sample_id": [f"s{i}" for i in range(300)], "subject_id": range(300), "gender": range(300),
                            "index_time": pd.Timestamp("2150-01-01")})  # fmt: skip
    drawn = Counter(
        draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=seed, stratify=["gender"])["s7"]
        for seed in range(60)
    )
    assert min(drawn[name] for name in ("train", "val", "test")) >= 3


def test_stratified_splits_hang_on_the_seed_and_not_on_row_order() -> None:
    samples = described(3)
    by = ["gender", "age_band"]
    first = draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=0, stratify=by)
    shuffled = samples.sample(frac=1, random_state=1)
    assert draw_by_subject(shuffled, train=0.6, val=0.2, test="rest", seed=0, stratify=by) == first
    assert draw_by_subject(samples, train=0.6, val=0.2, test="rest", seed=1, stratify=by) != first


@pytest.mark.parametrize("seed", range(4))
def test_splits_in_time_take_whole_groups_of_years(seed: int) -> None:
    samples = described(seed)
    drawn = draw_by_anchor_year_group(samples, train=GROUPS[:2], val=GROUPS[2:3], test=GROUPS[3:])
    check_disjoint(samples, drawn)
    expected = {GROUPS[0]: "train", GROUPS[1]: "train", GROUPS[2]: "val", GROUPS[3]: "test"}
    for _, row in samples.iterrows():
        assert drawn[row["sample_id"]] == expected[row["anchor_year_group"]]


def test_samples_of_groups_that_no_split_lists_are_left_out() -> None:
    samples = described(0)
    samples.loc[0, "anchor_year_group"] = None
    drawn = draw_by_anchor_year_group(samples, train=GROUPS[:1], val=GROUPS[1:2], test=GROUPS[2:3])
    out = samples.loc[~samples["sample_id"].isin(drawn), "anchor_year_group"]
    assert set(out.dropna()) == {GROUPS[3]}
    assert out.isna().sum() == 1


def test_a_group_that_no_sample_has_is_named_with_those_that_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"'splits\.val' lists .*'2014 - 2017'.*did you mean '2014 - 2016'.*2017 - 2019"
    ):
        draw_by_anchor_year_group(described(0), train=GROUPS[:2], val=["2014 - 2017"], test=GROUPS[3:])


@pytest.mark.parametrize("seed", range(8))
def test_no_patient_is_in_two_splits_whatever_the_rule_and_seed(seed: int) -> None:
    samples = described(seed, size=200, patients=60)
    for drawn in (
        draw_by_subject(samples, train=0.5, val=0.25, test="rest", seed=seed),
        draw_by_subject(samples, train=0.5, val=0.25, test="rest", seed=seed, stratify=["gender", "view"]),
        draw_admission_then_drop(samples, train=60, val=10, seed=seed),
        draw_by_anchor_year_group(samples, train=GROUPS[:2], val=GROUPS[2:3], test=GROUPS[3:]),
    ):
        check_disjoint(samples, drawn)
        subjects = {
            name: set(samples.loc[samples["sample_id"].map(drawn) == name, "subject_id"])
            for name in ("train", "val", "test")
        }
        assert not subjects["train"] & subjects["val"]
        assert not subjects["train"] & subjects["test"]
        assert not subjects["val"] & subjects["test"]
