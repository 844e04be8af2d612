"""Cohorts that are not the paper's: other index events, every event a sample, any two modalities."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from symile_clin.cohort.build import Assembled
from symile_clin.cohort.index import index_tables
from symile_clin.errors import CohortError, ConfigError, SourceError
from tests.cohort.tree import ADMITTED, HOUR, Tree, build, jpeg, tiny_spec

A, B = 10_000_001, 10_000_002
ICU = "index={event: icu_stay, time: intime}"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Two complete admissions."""
    made = Tree(tmp_path)
    made.complete(A, 20_000_001)
    made.complete(B, 20_000_002)
    return made


def adds_up(built: Assembled) -> pd.DataFrame:
    table = built.attrition.table()
    assert table["samples"].iloc[0] == table["samples"].iloc[1:].sum()
    assert table["samples"].iloc[-1] == len(built.samples)
    return table


def test_a_stay_in_intensive_care_has_its_own_time_and_its_admissions_demographics(tree: Tree) -> None:
    tree.icu_stay(B, 20_000_002, 30_000_005, ADMITTED + 2 * HOUR)
    tree.icu_stay(A, 20_000_001, 30_000_009, ADMITTED + HOUR)
    tree.icu_stay(A, 20_000_001, 30_000_007, ADMITTED + 200 * HOUR)
    built = build(tree, ICU)
    assert built.index["sample_id"].tolist() == ["30000007", "30000009", "30000005"]
    assert built.samples["sample_id"].tolist() == ["30000009", "30000005"]
    row = built.samples.iloc[0]
    assert (row["hadm_id"], row["index_time"], row["race"]) == (20_000_001, ADMITTED + HOUR, "WHITE")
    assert (row["age"], row["admission_type"]) == (62, "URGENT")
    adds_up(built)


def test_leaving_intensive_care_may_be_the_index_and_a_stay_without_that_time_leaves(tree: Tree) -> None:
    tree.icu_stay(A, 20_000_001, 30_000_001, datetime(1999, 1, 1), outtime=ADMITTED)
    tree.icu_stay(B, 20_000_002, 30_000_002, ADMITTED)
    built = build(tree, "index={event: icu_stay, time: outtime}")
    assert built.samples["sample_id"].tolist() == ["30000001"]
    assert adds_up(built).iloc[1].tolist() == ["index time", "no index time", 1, 1]


def test_a_stay_that_is_there_twice_stops_the_build(tree: Tree) -> None:
    tree.icu_stay(A, 20_000_001, 30_000_001)
    tree.icu_stay(A, 20_000_001, 30_000_001)
    with pytest.raises(SourceError, match="'icustays' has 2 rows but 1 values of stay_id"):
        build(tree, ICU)


def test_intensive_cares_table_is_asked_for_only_by_its_own_cohorts(tree: Tree) -> None:
    assert not (tree.root / "mimic_iv/icu").exists()
    assert [table.name for table in index_tables(tiny_spec().index)] == ["admissions", "patients"]
    assert len(build(tree).samples) == 2
    with pytest.raises(SourceError, match=r"icu/icustays\.csv"):
        build(tree, ICU)


@pytest.mark.parametrize("time", ["edregtime", "dischtime"])
def test_other_times_of_an_admission_may_be_the_index(tree: Tree, time: str) -> None:
    tree.rows["admissions"][0][time] = ADMITTED - 3 * HOUR
    built = build(tree, f"index.time={time}")
    assert built.samples["index_time"].tolist() == [ADMITTED - 3 * HOUR]
    assert adds_up(built).iloc[1].tolist() == ["index time", "no index time", 1, 1]


TABLE = pd.DataFrame(
    {
        "when": [ADMITTED + HOUR, ADMITTED, ADMITTED + 4000 * HOUR],
        "subject_id": [B, A, A],
        "visit": ["b-1", "a-1", "a-2"],
        "hadm_id": pd.array([None, 20_000_001, 20_000_001], "Int64"),
        "note": ["x", "y", "z"],
    }
)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_table_that_the_user_names_makes_the_samples(tree: Tree, kind: str) -> None:
    path = tree.root / f"visits.{kind}"
    TABLE.to_parquet(path) if kind == "parquet" else TABLE.to_csv(path, index=False)
    built = build(tree, f"index={{event: table, path: {path}, id: visit, time: when}}")
    assert built.index["sample_id"].tolist() == ["a-1", "a-2", "b-1"]
    assert built.samples["sample_id"].tolist() == ["a-1", "b-1"]
    first, second = built.samples.iloc[0], built.samples.iloc[1]
    assert (first["hadm_id"], first["race"], first["age"]) == (20_000_001, "WHITE", 62)
    assert pd.isna(second["hadm_id"])
    assert pd.isna(second["race"])
    assert (second["index_time"], second["gender"]) == (ADMITTED + HOUR, "F")
    adds_up(built)


@pytest.mark.parametrize("integers", [True, False])
def test_numbers_can_identify_the_tables_events_and_hadm_id_may_lack(tree: Tree, integers: bool) -> None:
    path = tree.root / ("visits.parquet" if integers else "visits.csv")
    table = TABLE.assign(visit=[3, 1, 2]).drop(columns="hadm_id")
    table.to_parquet(path) if integers else table.to_csv(path, index=False)
    built = build(tree, f"index={{event: table, path: {path}, id: visit, time: when}}")
    assert built.samples["sample_id"].tolist() == ["1", "3"]
    assert built.samples["hadm_id"].isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject_id,visit\n1,a\n", "no column when"),
        ("subject_id,when,visit\n1,yesterday,a\n", "when"),
        ("subject_id,when,visit\nx,2150-01-01 00:00:00,a\n", "subject_id"),
        ("subject_id,when,visit\n1,2150-01-01 00:00:00,a\n2,2150-01-01 00:00:00,a\n", "2 rows but 1 values of visit"),
        ("subject_id,when,visit\n,2150-01-01 00:00:00,a\n", "1 rows without subject_id or visit"),
        ("subject_id,when,visit\n1,2150-01-01 00:00:00,\n", "1 rows without subject_id or visit"),
        ('subject_id,when,visit\n1,2150-01-01 00:00:00,"a\n', "visits.csv"),
        ("", "empty"),
    ],
)
def test_an_index_table_is_read_strictly(tree: Tree, text: str, message: str) -> None:
    path = tree.root / "visits.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        build(tree, f"index={{event: table, path: {path}, id: visit, time: when}}")


def test_an_index_table_that_is_none_is_refused(tree: Tree) -> None:
    with pytest.raises(ConfigError, match=r"no file nowhere\.csv"):
        build(tree, "index={event: table, path: nowhere.csv, id: visit, time: when}")
    (tree.root / "visits.xlsx").touch()
    with pytest.raises(ConfigError, match="named as no table"):
        build(tree, f"index={{event: table, path: {tree.root}/visits.xlsx, id: visit, time: when}}")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_index_table_without_any_event_is_an_empty_cohort(tree: Tree, kind: str) -> None:
    path = tree.root / f"visits.{kind}"
    none = TABLE.head(0)
    none.to_parquet(path) if kind == "parquet" else none.to_csv(path, index=False)
    with pytest.raises(CohortError, match="the cohort is empty"):
        build(tree, f"index={{event: table, path: {path}, id: visit, time: when}}")


def test_admissions_that_all_lack_the_index_time_are_an_empty_cohort(tree: Tree) -> None:
    with pytest.raises(CohortError, match="no index time"):
        build(tree, "index.time=edregtime")


def test_an_event_of_an_index_table_without_a_time_leaves(tree: Tree) -> None:
    path = tree.root / "visits.csv"
    TABLE.assign(when=["", ADMITTED.isoformat(" "), ""]).to_csv(path, index=False)
    built = build(tree, f"index={{event: table, path: {path}, id: visit, time: when}}")
    assert adds_up(built).iloc[1].tolist() == ["index time", "no index time", 2, 2]


def test_take_all_makes_a_sample_of_every_event_in_the_window(tree: Tree) -> None:
    later = tree.xray(A, 50_000_031, ADMITTED + 60 * HOUR)
    same_time = tree.xray(A, 50_000_030, ADMITTED + 60 * HOUR, image=7)
    tree.xray(A, 50_000_032, ADMITTED + 73 * HOUR)
    tree.admission(10_000_003, 20_000_003)
    built = build(tree, "modalities.cxr.take=all")
    first = built.samples["cxr_dicom_id"].iloc[0]
    assert built.samples["sample_id"].tolist() == [
        f"20000001/000050000001/{first}", f"20000001/000050000030/{same_time}", f"20000001/000050000031/{later}",
        built.samples["sample_id"].iloc[3],
    ]  # fmt: skip
    assert built.samples["cxr_dicom_id"].tolist()[1:3] == [same_time, later]
    # the other windows are measured from the index time
    assert built.samples["ecg_study_id"].tolist() == [40_000_001] * 3 + [40_000_002]
    assert built.samples["index_time"].eq(ADMITTED).all()
    assert adds_up(built).to_numpy().tolist() == [
        ["index events", "", 3, 3],
        ["cxr", "no event in the window", 1, 1],
        ["cxr", "each event in the window is a sample", -2, 1],
        ["cohort", "", 4, 2],
    ]


def test_take_all_lets_each_sample_leave_alone(tree: Tree) -> None:
    tree.xray(A, 50_000_030, ADMITTED + 60 * HOUR, file=False)
    tree.xray(A, 50_000_031, ADMITTED + 61 * HOUR, content=jpeg()[:-200])
    tree.xray(A, 50_000_032, ADMITTED + 62 * HOUR, labels=0)
    built = build(tree, "modalities.cxr.take=all", "on_unreadable=next")
    assert built.samples["hadm_id"].tolist() == [20_000_001, 20_000_002]
    table = adds_up(built)
    assert set(zip(table["step"], table["reason"], table["samples"], strict=True)) == {
        ("index events", "", 2), ("cxr", "each event in the window is a sample", -3), ("cxr", "file missing", 1),
        ("cxr", "no label", 1), ("cxr file", "truncated", 1), ("cohort", "", 2),
    }  # fmt: skip
    left = built.attrition.left()
    assert left["sample_id"].str.startswith("20000001/0000500000").all()
    assert left["reason"].tolist() == ["file missing", "truncated", "no label"]


def test_every_record_can_make_a_sample_too(tree: Tree) -> None:
    tree.ecg(B, 40_000_033, ADMITTED - HOUR)
    built = build(tree, "modalities.ecg.take=all")
    assert built.samples["sample_id"].tolist() == ["20000001/40000001", "20000002/40000033", "20000002/40000002"]
    adds_up(built)


def any_two(tree: Tree, *overrides: str) -> Assembled:
    return build(tree, "require={at_least: 2}", *overrides)


def test_any_two_of_three_make_a_sample_and_what_is_absent_is_marked(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for number, parts in enumerate(["xel", "el", "xl", "xe", "x", "e", "l", ""]):
        subject, hadm = 10_000_000 + number, 20_000_000 + number
        tree.admission(subject, hadm)
        if "x" in parts:
            tree.xray(subject, 50_000_000 + number, ADMITTED + 30 * HOUR)
        if "e" in parts:
            tree.ecg(subject, 40_000_000 + number, ADMITTED)
        if "l" in parts:
            tree.lab(subject, ADMITTED)
    built = any_two(tree)
    assert built.samples["hadm_id"].tolist() == [20_000_000, 20_000_001, 20_000_002, 20_000_003]
    present = built.samples[["cxr_present", "ecg_present", "labs_present"]]
    assert present.to_numpy().tolist() == [[True] * 3, [False, True, True], [True, False, True], [True, True, False]]
    assert built.samples["cxr_study_id"].isna().tolist() == [False, True, False, False]
    assert built.samples["lab_50912"].isna().tolist() == [False, False, False, True]
    assert adds_up(built).iloc[1].tolist() == ["require", "fewer than 2 modalities", 4, 4]


def test_what_is_refused_or_does_not_decode_does_not_count_among_the_two(tree: Tree) -> None:
    for number, (signal, content) in enumerate([(True, None), (False, jpeg()[:-200]), (False, None)]):
        subject, hadm = 10_000_010 + number, 20_000_010 + number
        tree.admission(subject, hadm)
        tree.xray(subject, 50_000_010 + number, ADMITTED + 30 * HOUR, content=content)
        tree.ecg(subject, 40_000_010 + number, ADMITTED)
        if signal:
            (tree.roots["mimic_ecg"] / tree.rows["ecg_records"][-1]["path"]).with_suffix(".dat").write_bytes(b"")
    built = any_two(tree)
    assert built.samples["hadm_id"].tolist() == [20_000_001, 20_000_002, 20_000_012]
    assert adds_up(built).iloc[1].tolist() == ["require", "fewer than 2 modalities", 2, 2]


def test_all_narrows_and_at_least_counts_it(tree: Tree) -> None:
    tree.admission(10_000_003, 20_000_003)
    tree.ecg(10_000_003, 40_000_003, ADMITTED)
    tree.lab(10_000_003, ADMITTED)
    tree.admission(10_000_004, 20_000_004)
    tree.xray(10_000_004, 50_000_004, ADMITTED + 30 * HOUR)
    built = build(tree, "require={all: [cxr], at_least: 2}")
    assert len(built.samples) == 2
    assert adds_up(built).to_numpy().tolist()[1:-1] == [
        ["cxr", "no event in the window", 1, 1],
        ["require", "fewer than 2 modalities", 1, 1],
    ]


def test_nobody_with_two_is_an_empty_cohort(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.admission(A, 20_000_001)
    tree.lab(A, ADMITTED)
    with pytest.raises(CohortError, match="fewer than 2 modalities"):
        any_two(tree)
