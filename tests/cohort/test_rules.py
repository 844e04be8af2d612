"""The rules of the paper's cohort, one test each, on trees made by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symile_clin.cohort import workers
from symile_clin.cohort.build import Assembled
from symile_clin.errors import CohortError
from symile_clin.modalities import ecg as ecg_room
from symile_clin.modalities.ecg.preprocess import read_ecg
from symile_clin.modalities.labs import LabOptions
from symile_clin.modalities.registry import ROOMS
from tests.cohort.tree import ADMITTED, HOUR, Tree, build, header, jpeg, stored, waveform

SUBJECT, HADM = 10_000_001, 20_000_001
SECOND = timedelta(seconds=1)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One admission without events, and one complete admission, so that no cohort is empty."""
    made = Tree(tmp_path)
    made.complete(10_000_009, 20_000_009)
    made.admission(SUBJECT, HADM)
    return made


def qualify(tree: Tree, *, xray: bool = True, ecg: bool = True, lab: bool = True) -> None:
    if xray:
        tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR)
    if ecg:
        tree.ecg(SUBJECT, 40_000_001, ADMITTED)
    if lab:
        tree.lab(SUBJECT, ADMITTED)


def sample(built: Assembled) -> pd.Series:
    rows = built.samples[built.samples["hadm_id"] == HADM]
    assert len(rows) == 1
    return rows.iloc[0]


def reason(built: Assembled) -> tuple[str, str]:
    """Where the admission left."""
    assert HADM not in built.samples["hadm_id"].tolist()
    table = built.attrition.table()
    assert table["samples"].iloc[0] == table["samples"].iloc[1:].sum()
    (row,) = table.iloc[1:-1].itertuples(index=False)
    return str(row.step), str(row.reason)


@pytest.mark.parametrize(
    ("after", "inside"),
    [
        (24 * HOUR, False),
        (24 * HOUR + timedelta(seconds=0.5), False),  # the fraction is cut off
        (24 * HOUR + SECOND, True),
        (72 * HOUR, True),
        (72 * HOUR + timedelta(seconds=0.9), True),
        (72 * HOUR + SECOND, False),
    ],
)
def test_xray_window_is_open_left_closed_right_with_the_fraction_of_a_second_cut_off(
    tree: Tree, after: timedelta, inside: bool
) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + after)
    built = build(tree)
    assert (HADM in built.samples["hadm_id"].tolist()) is inside
    if not inside:
        assert reason(built) == ("cxr", "no event in the window")


@pytest.mark.parametrize("hours", [-24, 24])
def test_ecg_and_lab_windows_are_closed_at_both_ends(tree: Tree, hours: int) -> None:
    qualify(tree, ecg=False, lab=False)
    tree.ecg(SUBJECT, 40_000_001, ADMITTED + hours * HOUR)
    tree.lab(SUBJECT, ADMITTED + hours * HOUR)
    assert sample(build(tree))["ecg_time"] == ADMITTED + hours * HOUR


@pytest.mark.parametrize("after", [-24 * HOUR - SECOND, 24 * HOUR + SECOND])
def test_a_second_outside_the_ecg_window_is_outside(tree: Tree, after: timedelta) -> None:
    qualify(tree, ecg=False)
    tree.ecg(SUBJECT, 40_000_001, ADMITTED + after)
    assert reason(build(tree)) == ("ecg", "no event in the window")


@pytest.mark.parametrize("after", [-24 * HOUR - SECOND, 24 * HOUR + SECOND])
def test_a_second_outside_the_lab_window_is_outside(tree: Tree, after: timedelta) -> None:
    qualify(tree, lab=False)
    tree.lab(SUBJECT, ADMITTED + after)
    assert reason(build(tree)) == ("labs", "no event in the window")


def test_study_time_has_lost_its_leading_zeros(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED, StudyDate=21500303, StudyTime=405.0)
    assert sample(build(tree))["cxr_time"] == datetime(2150, 3, 3, 0, 4, 5)


@pytest.mark.parametrize(
    "columns",
    [
        {"StudyTime": 246000.0}, {"StudyTime": 126000.0}, {"StudyTime": -1.0}, {"StudyTime": None},
        {"StudyTime": 1e30}, {"StudyDate": 21500230}, {"StudyDate": 0}, {"StudyDate": None},
    ],
)  # fmt: skip
def test_an_impossible_study_time_makes_an_image_ineligible(tree: Tree, columns: dict[str, Any]) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, **columns)
    assert reason(build(tree)) == ("cxr", "no event in the window")


@pytest.mark.parametrize("view", ["LATERAL", "LL", "", "ap", "AP AXIAL", "PA "])
def test_only_views_exactly_AP_or_PA_count(tree: Tree, view: str) -> None:  # noqa: N802  the views' own names
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, view=view)
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 40 * HOUR, view="PA")
    assert sample(build(tree))["cxr_study_id"] == 50_000_002


def test_a_missing_jpg_is_no_candidate_so_the_next_is_taken(tree: Tree) -> None:
    qualify(tree, xray=False)
    missing = tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, file=False)
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 40 * HOUR)
    built = build(tree)
    assert sample(built)["cxr_study_id"] == 50_000_002
    (refused,) = built.attrition.quarantine().to_dict("records")
    assert refused["reason"] == "file missing"
    assert refused["path"] == f"files/p10/p{SUBJECT}/s50000001/{missing}.jpg"


def test_a_chosen_study_without_label_drops_the_admission_even_if_a_later_one_has_one(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, labels=0)
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 40 * HOUR)
    assert reason(build(tree)) == ("cxr", "no label")


def test_labelled_candidates_take_the_later_labelled_study(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, labels=0)
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 40 * HOUR)
    assert sample(build(tree, "modalities.cxr.labelled=candidates"))["cxr_study_id"] == 50_000_002


def test_labels_can_be_ignored(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, labels=0)
    chosen = sample(build(tree, "modalities.cxr.labelled=ignore"))
    assert chosen["cxr_study_id"] == 50_000_001
    assert np.isnan(chosen["chexpert_atelectasis"])


def test_a_repeated_label_does_not_repeat_the_admission(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, labels=3)
    assert sample(build(tree))["chexpert_atelectasis"] == 1.0


def test_images_of_one_study_share_a_time_and_are_ordered_by_study_then_image(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 30 * HOUR, image=0)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, image=9)
    first = tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, image=3, labels=0)
    assert sample(build(tree))["cxr_dicom_id"] == first


def test_a_truncated_jpg_drops_the_admission(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, content=jpeg()[:-200])
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 40 * HOUR)
    assert reason(build(tree)) == ("cxr file", "truncated")


def test_on_unreadable_next_takes_the_next_jpg(tree: Tree) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, content=jpeg()[:-200])
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 40 * HOUR, file=False)
    tree.xray(SUBJECT, 50_000_003, ADMITTED + 50 * HOUR)
    built = build(tree, "on_unreadable=next")
    assert sample(built)["cxr_study_id"] == 50_000_003
    assert sample(built)["cxr_height"] == 40
    assert built.attrition.quarantine()["reason"].tolist() == ["truncated", "file missing"]


def _spoiled(kind: str) -> np.ndarray:
    signal = waveform()
    if kind == "missing values":
        signal[17, 3] = -32768
    else:
        signal[:] = 0 if kind == "all zero" else 5
    return signal


@pytest.mark.parametrize("kind", ["missing values", "all zero", "constant"])
def test_an_unusable_ecg_falls_back_to_the_next_valid_one(tree: Tree, kind: str) -> None:
    qualify(tree, ecg=False)
    tree.ecg(SUBJECT, 40_000_001, ADMITTED - HOUR, signal=_spoiled(kind))
    tree.ecg(SUBJECT, 40_000_002, ADMITTED - HOUR, signal=_spoiled(kind))
    tree.ecg(SUBJECT, 40_000_003, ADMITTED)
    tree.ecg(SUBJECT, 40_000_004, ADMITTED + HOUR)
    built = build(tree)
    assert sample(built)["ecg_study_id"] == 40_000_003
    assert built.attrition.quarantine()["reason"].tolist() == [kind, kind]


def test_one_flat_lead_is_no_reason_to_refuse_an_ecg(tree: Tree) -> None:
    qualify(tree, ecg=False)
    signal = waveform()
    signal[:, 4] = 0
    tree.ecg(SUBJECT, 40_000_001, ADMITTED, signal=signal)
    assert sample(build(tree))["ecg_study_id"] == 40_000_001


def test_an_admission_whose_ecgs_are_all_refused_leaves_with_the_last_reason(tree: Tree) -> None:
    qualify(tree, ecg=False)
    tree.ecg(SUBJECT, 40_000_001, ADMITTED, signal=_spoiled("all zero"))
    tree.ecg(SUBJECT, 40_000_002, ADMITTED + HOUR, signal=_spoiled("missing values"))
    assert reason(build(tree)) == ("ecg", "missing values")


def test_ecgs_at_one_time_are_ordered_by_study(tree: Tree) -> None:
    qualify(tree, ecg=False)
    tree.ecg(SUBJECT, 40_000_005, ADMITTED)
    tree.ecg(SUBJECT, 40_000_002, ADMITTED)
    assert sample(build(tree))["ecg_study_id"] == 40_000_002


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "files/../../x/40000001", "link/40000001"])
def test_a_record_path_outside_the_source_is_refused(tree: Tree, tmp_path: Path, path: str) -> None:
    qualify(tree, ecg=False)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "40000001.hea").write_text(header(40_000_001, waveform()))
    (outside / "40000001.dat").write_bytes(waveform().tobytes())
    (tree.roots["mimic_ecg"] / "link").symlink_to(outside)
    tree.ecg(SUBJECT, 40_000_001, ADMITTED, path=path)
    assert reason(build(tree)) == ("ecg", "path outside the source")


@pytest.mark.parametrize(
    "dicom_id", ["../../../secret", "a/b", "", "A" * 44, "00000000-00000000-00000000-00000000-0000000g"]
)
def test_a_dicom_id_that_is_none_never_becomes_a_path(tree: Tree, dicom_id: str) -> None:
    qualify(tree, xray=False)
    tree.xray(SUBJECT, 50_000_001, ADMITTED + 30 * HOUR, dicom_id=dicom_id, file=False)
    built = build(tree)
    assert reason(built) == ("cxr", "no event in the window")
    assert built.attrition.quarantine().empty


@pytest.mark.parametrize("hadm", [None, 29_999_999])
def test_labs_are_matched_on_patient_and_time_whatever_admission_they_name(tree: Tree, hadm: int | None) -> None:
    qualify(tree, lab=False)
    tree.lab(SUBJECT, ADMITTED, 3.5, hadm_id=hadm)
    tree.lab(10_000_009, ADMITTED, 9.0, hadm_id=HADM)
    assert sample(build(tree))["lab_50912"] == 3.5


def test_a_lab_without_a_number_is_passed_over(tree: Tree) -> None:
    qualify(tree, lab=False)
    tree.lab(SUBJECT, ADMITTED - 2 * HOUR, None, comments="___")
    tree.lab(SUBJECT, ADMITTED, 2.0)
    assert sample(build(tree))["lab_50912"] == 2.0


def test_each_item_has_its_earliest_value_and_ties_go_to_the_lower_event(tree: Tree) -> None:
    qualify(tree, lab=False)
    tree.lab(SUBJECT, ADMITTED + HOUR, 1.0)
    tree.lab(SUBJECT, ADMITTED, 2.0, labevent_id=90)
    tree.lab(SUBJECT, ADMITTED, 3.0, labevent_id=80)
    tree.lab(SUBJECT, ADMITTED + 3 * HOUR, 4.0, item=50931)
    chosen = sample(build(tree))
    assert (chosen["lab_50912"], chosen["lab_50931"]) == (3.0, 4.0)


def test_one_lab_is_enough_and_items_that_were_not_asked_for_are_not(tree: Tree) -> None:
    qualify(tree, lab=False)
    tree.lab(SUBJECT, ADMITTED, 1.0, item=50000)
    assert reason(build(tree)) == ("labs", "no event in the window")
    tree.lab(SUBJECT, ADMITTED, 7.0, item=50931)
    chosen = sample(build(tree))
    assert chosen["lab_50931"] == 7.0
    assert np.isnan(chosen["lab_50912"])


def test_age_is_that_of_the_year_of_admission(tree: Tree) -> None:
    qualify(tree)
    assert sample(build(tree))["age"] == 60 + (2150 - 2148)


def test_one_row_per_admission_in_order_of_patient_then_admission(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for subject, hadm in [(10_000_003, 20_000_001), (10_000_001, 20_000_007), (10_000_001, 20_000_002)]:
        tree.complete(subject, hadm, ADMITTED + (hadm % 10) * 100 * HOUR)
    built = build(tree)
    assert built.samples[["subject_id", "hadm_id"]].to_numpy().tolist() == [
        [10_000_001, 20_000_002], [10_000_001, 20_000_007], [10_000_003, 20_000_001],
    ]  # fmt: skip
    assert built.shards["ecg"].rows(built.samples["sample_id"]).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_an_event_may_serve_two_admissions(tree: Tree) -> None:
    qualify(tree)
    tree.admission(SUBJECT, 20_000_002, ADMITTED + HOUR)
    ids = build(tree).samples["cxr_study_id"].tolist()
    assert ids.count(50_000_001) == 2


def test_all_three_modalities_are_required(tmp_path: Path) -> None:
    for number, missing in enumerate(["xray", "ecg", "lab"]):
        tree = Tree(tmp_path / str(number))
        tree.complete(10_000_009, 20_000_009)
        tree.admission(SUBJECT, HADM)
        qualify(tree, **{missing: False})
        assert reason(build(tree))[1] == "no event in the window"


def test_an_optional_modality_may_be_absent(tree: Tree) -> None:
    qualify(tree, ecg=False)
    built = build(tree, "require=[cxr, labs]")
    chosen = sample(built)
    assert built.samples["ecg_present"].tolist() == [False, True]
    assert pd.isna(chosen["ecg_study_id"])
    signals = stored(built, "ecg", "signal")
    assert not signals[0].any()
    assert signals[1].any()


def test_an_admission_without_a_time_leaves_at_the_index(tree: Tree) -> None:
    tree.rows["admissions"][-1]["admittime"] = None
    assert reason(build(tree)) == ("index time", "no index time")


def test_an_empty_cohort_shows_where_the_admissions_went(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.admission(SUBJECT, HADM)
    with pytest.raises(
        CohortError, match=r"empty: of 1 index events, 1 left at cxr \(no event in the window\)"
    ) as caught:
        build(tree)
    assert caught.value.exit_code == 3


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORTH_STARTING_SECONDS", 0.0)
    tree = Tree(tmp_path)
    for number in range(40):
        tree.complete(10_000_001 + number, 20_000_001 + number)
    one, two = build(tree), build(tree, workers=2)
    pd.testing.assert_frame_equal(one.samples, two.samples)
    for name, array in [("cxr", "image"), ("ecg", "signal")]:
        np.testing.assert_array_equal(stored(one, name, array), stored(two, name, array))


@pytest.mark.parametrize(
    ("admitted", "years"),
    [
        (datetime(2150, 12, 31, 23, 59, 59), 2),
        (datetime(2151, 1, 1), 3),
        (datetime(2148, 6, 1), 0),
        (datetime(2147, 1, 1), -1),
    ],
)
def test_age_changes_with_the_calendar_year_and_not_with_a_birthday(
    tmp_path: Path, admitted: datetime, years: int
) -> None:
    tree = Tree(tmp_path)
    tree.complete(SUBJECT, HADM, admitted)
    assert sample(build(tree))["age"] == 60 + years


@pytest.mark.parametrize(
    "admitted",
    [
        datetime(2152, 2, 28, 12),
        datetime(2150, 12, 31, 12),
        datetime(2150, 3, 29, 1, 30),
        datetime(2150, 10, 25, 2, 30),
    ],
    ids=["over 29 February", "over the new year", "clocks forward", "clocks back"],
)
def test_windows_are_hours_of_plain_time_whatever_the_calendar(
    tmp_path: Path, admitted: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    for after, inside in [
        (24 * HOUR, False),
        (24 * HOUR + SECOND, True),
        (72 * HOUR, True),
        (72 * HOUR + SECOND, False),
    ]:
        tree = Tree(tmp_path / str(after.total_seconds()))
        tree.complete(10_000_009, 20_000_009)
        tree.admission(SUBJECT, HADM, admitted)
        tree.xray(SUBJECT, 50_000_001, admitted + after)
        tree.ecg(SUBJECT, 40_000_001, admitted + 24 * HOUR)
        tree.lab(SUBJECT, admitted - 24 * HOUR)
        assert (HADM in build(tree).samples["hadm_id"].tolist()) is inside


def test_discharge_and_death_are_not_looked_at(tree: Tree) -> None:
    """The X-ray was taken after both, as of an admission of an hour."""
    qualify(tree)
    tree.rows["admissions"][-1] |= {"dischtime": ADMITTED + HOUR, "deathtime": ADMITTED - HOUR}
    assert sample(build(tree))["cxr_study_id"] == 50_000_001


@pytest.mark.parametrize("other", ["xray", "ecg", "lab"])
def test_events_of_another_patient_are_never_taken(tree: Tree, other: str) -> None:
    qualify(tree, **{other: False})
    stranger = 10_000_010
    tree.xray(stranger, 50_000_777, ADMITTED + 30 * HOUR)
    tree.ecg(stranger, 40_000_777, ADMITTED)
    tree.lab(stranger, ADMITTED)
    assert reason(build(tree))[1] == "no event in the window"


def test_the_earliest_of_several_xrays_and_ecgs_is_taken_whatever_the_order_of_the_file(tree: Tree) -> None:
    for hours in (40, 26, 33):
        tree.xray(SUBJECT, 50_000_000 + hours, ADMITTED + hours * HOUR)
        tree.ecg(SUBJECT, 40_000_000 + hours, ADMITTED + (hours - 30) * HOUR)
    tree.lab(SUBJECT, ADMITTED)
    chosen = sample(build(tree))
    assert (chosen["cxr_study_id"], chosen["ecg_study_id"]) == (50_000_026, 40_000_026)


def test_two_values_of_an_item_at_one_charttime_give_the_lower_event_in_either_order(tree: Tree) -> None:
    qualify(tree, lab=False)
    for event, value in [(12, 5.0), (7, 6.0), (9, 7.0)]:
        tree.lab(SUBJECT, ADMITTED, value, labevent_id=event)
    assert sample(build(tree))["lab_50912"] == 6.0
    tree.rows["labevents"].reverse()
    assert sample(build(tree))["lab_50912"] == 6.0


def test_the_fifty_labs_hold_the_three_serum_indices_in_the_order_of_the_strings() -> None:
    room = ROOMS["labs"]("labs", ROOMS["labs"].Options())
    items = [int(column.removeprefix("lab_")) for column in room.columns if not column.endswith("_percentile")]
    assert len(items) == 50
    assert {50934, 51678, 50947} <= set(items)
    assert [f"{item}_percentile" for item in items] == sorted(f"{item}_percentile" for item in items)
    mixed = ROOMS["labs"]("labs", LabOptions(items=(52000, 9, 510)))
    assert list(mixed.columns)[:3] == ["lab_510", "lab_52000", "lab_9"]


def test_a_percentile_is_the_share_of_train_at_most_the_value_with_the_missing_left_out() -> None:
    """By hand: train 1, 2, 2, 4 and one missing; ties count whole, so 2 is at 3/4."""
    room = ROOMS["labs"]("labs", LabOptions(items=(50912,)))
    train = pd.DataFrame({"lab_50912": [2.0, np.nan, 1.0, 4.0, 2.0]})
    state = room.fit(train)
    shown, arrays = room.transform(pd.DataFrame({"lab_50912": [0.5, 1.0, 2.0, 3.9, 4.0, 9.0, np.nan]}), state)
    assert shown["lab_50912_percentile"].tolist()[:6] == [0.0, 0.25, 0.75, 0.75, 1.0, 1.0]
    assert pd.isna(shown["lab_50912_percentile"].iloc[6])
    mean = (0.75 + 0.25 + 1.0 + 0.75) / 4
    np.testing.assert_allclose(arrays["percentile"][:, 0], [0.0, 0.25, 0.75, 0.75, 1.0, 1.0, mean], rtol=1e-6)
    assert arrays["observed"][:, 0].tolist() == [True] * 6 + [False]


def test_a_lab_never_seen_in_train_is_an_error_that_names_it() -> None:
    room = ROOMS["labs"]("labs", LabOptions(items=(50912, 50931)))
    with pytest.raises(CohortError, match=r"no train sample has a value of lab 50931 \(.*Glucose"):
        room.fit(pd.DataFrame({"lab_50912": [1.0], "lab_50931": [np.nan]}))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Studies of the records that are opened from now on, in this process."""
    seen: list[int] = []

    def spy(record: Path) -> object:
        seen.append(int(record.name))
        return read_ecg(record)

    monkeypatch.setattr(ecg_room, "read_ecg", spy)
    return seen


def test_no_record_is_opened_for_an_admission_without_xray_or_labs_in_the_window(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, missing in enumerate(["xray", "lab"]):
        subject = 10_000_020 + number
        tree.admission(subject, 20_000_020 + number)
        tree.ecg(subject, 40_000_020 + number, ADMITTED)
        if missing != "xray":
            tree.xray(subject, 50_000_020 + number, ADMITTED + 30 * HOUR)
        if missing != "lab":
            tree.lab(subject, ADMITTED)
    qualify(tree, ecg=False)
    tree.ecg(SUBJECT, 40_000_030, ADMITTED + 25 * HOUR)  # outside the window
    seen = opened(monkeypatch)
    assert build(tree).samples["hadm_id"].tolist() == [20_000_009]
    assert set(seen) == {40_000_009}


def test_records_beyond_the_first_valid_one_are_not_opened(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    qualify(tree, ecg=False)
    tree.ecg(SUBJECT, 40_000_031, ADMITTED, signal=_spoiled("constant"))
    tree.ecg(SUBJECT, 40_000_032, ADMITTED + HOUR)
    tree.ecg(SUBJECT, 40_000_033, ADMITTED + 2 * HOUR)
    seen = opened(monkeypatch)
    build(tree)
    assert set(seen) == {40_000_009, 40_000_031, 40_000_032}


def test_a_record_in_the_windows_of_two_admissions_is_judged_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused for both; one has another record, the other leaves."""
    qualify(tree, ecg=False)
    tree.admission(SUBJECT, 20_000_002, ADMITTED + 20 * HOUR)
    tree.xray(SUBJECT, 50_000_002, ADMITTED + 50 * HOUR)
    tree.lab(SUBJECT, ADMITTED + 20 * HOUR)
    tree.ecg(SUBJECT, 40_000_040, ADMITTED + 10 * HOUR, signal=_spoiled("all zero"))
    tree.ecg(SUBJECT, 40_000_041, ADMITTED + 30 * HOUR)
    seen = opened(monkeypatch)
    built = build(tree)
    assert built.samples["hadm_id"].tolist() == [20_000_002, 20_000_009]
    assert seen.count(40_000_040) == 1
    assert built.attrition.quarantine()["id"].tolist() == ["40000040"]
