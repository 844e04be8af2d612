"""Cohort specs: every problem at once, the nearest valid name, and a resolved form that loads again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from symile_clin.cohort.spec import CohortSpec, load_spec, parse_spec
from symile_clin.errors import ConfigError, NotFoundError
from symile_clin.modalities.registry import ROOMS
from symile_clin.strict import apply_overrides
from tests.cohort.tree import SPEC, tiny_spec


@pytest.mark.parametrize("name", ["symile_mimic", "demo"])
def test_a_resolved_spec_loads_to_an_equal_one(name: str) -> None:
    spec = load_spec(name, (), ROOMS)
    assert parse_spec(spec.resolved(), ROOMS, source="again") == spec


def test_the_default_spec_is_the_papers() -> None:
    spec = load_spec("symile_mimic", (), ROOMS)
    xray = spec.modalities["cxr"].window
    assert xray is not None
    assert (xray.start, xray.end) == (timedelta(hours=24), timedelta(hours=72))
    assert (xray.include_start, xray.include_end) == (False, True)
    assert (spec.splits.by, spec.splits.train, spec.splits.val) == ("admission_then_drop", 10_000, 750)


@pytest.mark.parametrize(
    ("text", "hours"), [("24h", 24), ("-24h", -24), ("3d", 72), ("90m", 1.5), ("-36000s", -10), ("0h", 0)]
)
def test_durations(text: str, hours: float) -> None:
    spec = tiny_spec(f"modalities.ecg.window.start={text}", "modalities.ecg.window.end=100h")
    window = spec.modalities["ecg"].window
    assert window is not None
    assert window.start == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["24", "1.5h", "h", "1 h", "1w", "true", "--1h", "[1h]", "9999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"'modalities\.ecg\.window\.start': not a duration"):
        tiny_spec(f"modalities.ecg.window.start={text}")


def test_all_problems_are_listed_at_once_each_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_spec(
            "modalities.cxr.wndow=1", "modalities.cxr.viewz=[AP]", "modalities.labs.items=[]", "index.event=admision",
            "requir=[cxr]", "modalities.ecg.take=first", "on_unreadable=stop",
        )  # fmt: skip
    text = str(caught.value)
    assert "7 problems" in text
    for part in (
        "'window'?",
        "'views'?",
        "modalities.labs.items",
        "'admission'?",
        "'require'?",
        "'earliest'",
        "on_unreadable",
    ):
        assert part in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("require=[cxr, egc]", "did you mean 'ecg'"),
        ("candidates.target=cxrr", "did you mean 'cxr'"),
        ("require=[ecg, labs]", None),
        ("require=[]", "nothing is required"),
        ("require={all: [cxr]}", None),
        ("require={at_least: 2}", None),
        ("require={all: [cxr], at_least: 2}", None),
        ("require={all: [cxr, ecg], at_least: 2}", "adds nothing to the 2"),
        ("require={at_least: 4}", "is 4, of 3 modalities"),
        ("require={at_last: 2}", "did you mean 'at_least'"),
        ("require={all: [egc], at_least: 2}", "did you mean 'ecg'"),
        ("modalities.cxr.take=all", None),
        ("modalities.labs.take=all", "one per item"),
        ("index={event: icu_stay, time: intime}", None),
        ("index={event: icu_stay, time: admittime}", "unknown time 'admittime' of icu_stay"),
        ("index={event: icu_stay, time: intime, path: a.csv}", "keys of event 'table'"),
        ("index={event: table, time: when}", "needs 'path'"),
        ("index={event: table, time: when, path: a.csv, id: when}", "two columns"),
        ("index={event: table, time: when, path: a.csv, id: visit}", None),
        ("splits.stratify=[gender, age_band, cxr_view]", None),
        ("splits.stratify=[gendr]", "did you mean 'gender'"),
        ("splits.stratify=[subject_id]", "no column 'subject_id'"),
        (
            "splits={by: admission_then_drop, train: 5, val: 1, test: rest, stratify: [gender]}",
            "goes with 'by: subject'",
        ),
        ("splits={by: anchor_year_group, train: ['a', 'b'], val: ['c'], test: ['d']}", None),
        ("splits={by: anchor_year_group, train: ['a', 'b'], val: ['b'], test: ['d']}", "is in two splits"),
        ("splits={by: anchor_year_group, train: ['a'], val: 0.1, test: rest}", "lists the groups"),
        ("splits={by: anchor_year_group, train: 0.8, val: 0.1, test: rest}", "lists the groups"),
        ("splits={by: subject, train: ['a'], val: ['b'], test: ['c']}", "lists the groups"),
        ("splits={by: anchor_year_group, train: ['a'], val: [], test: ['c']}", "not a list of anchor_year_groups"),
        ("candidates.matched=perhaps", "candidates.matched"),
        ("modalities.cxr.room=xray", "unknown room 'xray'"),
        ("modalities.cxr.window.start=80h", "'end' is not after 'start'"),
        ("modalities.cxr.long_side=16", "'long_side' is less"),
        ("modalities.labs.items=[1, 1]", "repeated"),
        ("index.time=admitime", "did you mean 'admittime'"),
        ("splits.test=0.3", "'rest', or three shares"),
        ("splits.val=rest", "'rest', or three shares"),
        ("splits.train=0.9", "nothing for 'rest'"),
        ("splits.train=1.5", "splits.train"),
        ("splits.by=admission_then_drop", None),
        ("splits={by: admission_then_drop, train: rest, val: 1, test: 2}", "test is what remains"),
        ("splits={from: a.csv, by: subject}", "leave out by"),
        ("splits={seed: 1}", "give by, train, val and test"),
        ("candidates.n=1", "candidates.n"),
        ("name=../x", "name"),
    ],
)
def test_rules_between_keys(override: str, message: str | None) -> None:
    if message is None:
        assert isinstance(tiny_spec(override), CohortSpec)
    else:
        with pytest.raises(ConfigError, match=message):
            tiny_spec(override)


def test_three_shares_may_sum_to_one() -> None:
    assert tiny_spec("splits.train=0.7", "splits.val=0.1", "splits.test=0.2").splits.test == 0.2


def test_two_modalities_of_one_room_live_in_one_cohort() -> None:
    later = {**SPEC["modalities"]["cxr"], "room": "cxr"}
    raw = apply_overrides({**SPEC, "modalities": {**SPEC["modalities"], "later": later}}, ())
    modalities = parse_spec(raw, ROOMS, source="two").make_modalities(ROOMS)
    assert "later_chexpert_edema" in modalities["later"].columns
    assert not set(modalities["cxr"].columns) & set(modalities["later"].columns)


def test_an_unknown_spec_suggests_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="symile_mimic"):
        load_spec("symile_mimc", (), ROOMS)


def test_only_one_modality_can_take_all_and_it_is_required() -> None:
    with pytest.raises(ConfigError, match="one modality only, not of cxr and ecg"):
        tiny_spec("modalities.cxr.take=all", "modalities.ecg.take=all")
    with pytest.raises(ConfigError, match="list it in require"):
        tiny_spec("modalities.cxr.take=all", "require={all: [ecg], at_least: 2}")
    assert tiny_spec("modalities.cxr.take=all").sampled == "cxr"
    assert tiny_spec().sampled is None


@pytest.mark.parametrize(
    "override",
    [
        "require={all: [cxr], at_least: 2}",
        "index={event: table, time: when, path: a.csv, id: visit}",
        "splits={by: anchor_year_group, train: ['a', 'b'], val: ['c'], test: ['d']}",
        "splits.stratify=[gender]",
        "modalities.ecg.take=all",
    ],
)
def test_every_form_resolves_to_what_loads_again(override: str) -> None:
    spec = tiny_spec(override)
    assert parse_spec(spec.resolved(), ROOMS, source="again") == spec
