"""The information report on embeddings whose information is known, and what it writes."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import CohortError
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.information import SATURATED, Encoded, Quantity, measure
from symile_clin.evaluation.information_report import metrics_of, report_split, table
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.progress import Quiet
from symile_clin.schema import SAMPLES, SPLIT
from symile_clin.synthetic.information import planted_information
from symile_clin.synthetic.truth import Planting
from tests.evaluation.small_cohort import PLANTING, ReadsSynergy, modalities, small_cohort

FLIP = 0.04
#: nats that a fair bit and its copy with flips share
COPY = math.log(2) + FLIP * math.log(FLIP) + (1 - FLIP) * math.log(1 - FLIP)
SCALE = 0.5 * math.log((1 - FLIP) / FLIP)


def encoded(embeddings: dict[str, NDArray[np.float64]], *, per_patient: int = 1) -> Encoded:
    arrays = {name: array.astype(np.float32) for name, array in embeddings.items()}
    n = len(next(iter(arrays.values())))
    present = {name: np.ones(n, dtype=np.bool_) for name in arrays}
    return Encoded(Embedded(embeddings=arrays, present=present), subjects=np.arange(n) // per_patient)


def planted(n: int, *, bits: int, seed: int) -> Encoded:
    """c is the exclusive or of a and b, as signs: all that they share only three show."""
    rng = np.random.default_rng(seed)
    a, b = rng.choice([-1.0, 1.0], size=(2, n, bits))
    c = a * b * np.where(rng.random((n, bits)) < FLIP, -1.0, 1.0)
    return encoded({"a": a, "b": b, "c": c})


def by_key(rows: list[Quantity]) -> dict[str, Quantity]:
    return {row.key: row for row in rows}


@pytest.fixture(scope="module")
def synergy() -> dict[str, Quantity]:
    return by_key(
        measure(
            held_out=planted(300, bits=2, seed=0),
            calibration=planted(100, bits=2, seed=1),
            train=planted(200, bits=2, seed=2),
            objective=Symile(),
            scale=5 * SCALE,
            seed=0,
        )
    )


def test_exclusive_or_is_found_as_synergy(synergy: dict[str, Quantity]) -> None:
    truth = 2 * COPY
    for key in ("total_correlation", "joint/a", "joint/b", "joint/c"):
        row = synergy[key].interval
        assert row.low < truth
        assert row.estimate == pytest.approx(truth, abs=0.15)
    for key in ("pair/a+b", "pair/a+c", "pair/b+c"):
        assert synergy[key].interval.low <= 0
        assert synergy[key].interval.estimate == pytest.approx(0, abs=0.03)
    for name in "abc":
        assert synergy[f"synergy/{name}"].interval.estimate == pytest.approx(truth, abs=0.2)


def test_an_overconfident_scale_is_repaired_on_the_calibration_samples_only(synergy: dict[str, Quantity]) -> None:
    assert synergy["total_correlation_as_trained"].interval.high < synergy["total_correlation"].interval.low
    assert synergy["total_correlation_as_trained"].kind == "lower bound"


def test_every_row_says_what_it_is(synergy: dict[str, Quantity]) -> None:
    estimates = {key for key, row in synergy.items() if row.kind == "estimate"}
    assert estimates == {"total_correlation_exhaustive", "synergy/a", "synergy/b", "synergy/c"}
    assert synergy["total_correlation"].n == 1 + 299 // 2
    assert synergy["joint/a"].n == synergy["pair/a+b"].n == 300
    assert (
        synergy["total_correlation_exhaustive"].n == 100**2
    )  # batches of 100, as even as batches of at most 128 can be
    assert synergy["synergy/a"].cap is None
    assert synergy["joint/a"].cap == pytest.approx(math.log(300))


def test_pairs_are_found_where_only_pairs_share_and_synergy_is_then_none() -> None:
    def shared(n: int, seed: int) -> Encoded:
        rng = np.random.default_rng(seed)
        a, b = rng.choice([-1.0, 1.0], size=(2, n, 1))
        noise = rng.normal(size=(2, n, 2)) * 0.1
        c = np.concatenate([a, b], axis=1) * np.where(rng.random((n, 2)) < FLIP, -1.0, 1.0)
        return encoded({"a": np.hstack([a, noise[0]]), "b": np.hstack([noise[1], b]), "c": np.hstack([c, a * 0])})

    rows = by_key(
        measure(
            held_out=shared(300, 0),
            calibration=shared(100, 1),
            train=shared(300, 2),
            objective=PairwiseClip(),
            scale=0.1,
            seed=0,
        )
    )
    # b's bit is in another coordinate than c's copy of it, so their inner product sees nothing; the critic that is
    # fitted to the train split's embeddings does.
    for key in ("pair/a+c", "pair/b+c"):
        assert rows[key].interval.estimate == pytest.approx(COPY, abs=0.15)
        assert rows[key].interval.low < COPY
    assert abs(rows["pair/a+b"].interval.estimate) < 0.03
    assert rows["synergy/c"].interval.estimate < 0.1


@pytest.mark.parametrize("objective", [Symile(), PairwiseClip()])
def test_independent_modalities_are_never_said_to_share(objective: Symile | PairwiseClip) -> None:
    def independent(n: int, seed: int) -> Encoded:
        rng = np.random.default_rng(seed)
        return encoded({name: rng.normal(size=(n, 6)) for name in "abc"}, per_patient=2)

    for seed in range(2):
        splits = [independent(n, 10 * seed + i) for i, n in enumerate((200, 80, 100))]
        rows = measure(
            held_out=splits[0], calibration=splits[1], train=splits[2], objective=objective, scale=1.0, seed=seed
        )
        for row in rows:
            if row.kind == "lower bound":
                assert row.interval.low <= 0, row
            if row.key != "total_correlation_as_trained":
                assert row.interval.estimate < 0.05, row


def test_saturation_is_seen_and_said() -> None:
    same = np.eye(60) * 20
    split = encoded({"a": same, "b": same})
    rows = measure(held_out=split, calibration=split, train=split, objective=Symile(), scale=1.0, seed=0)
    pair = by_key(rows)["pair/a+b"]
    assert pair.saturated
    assert pair.interval.estimate == pytest.approx(math.log(60))
    text = table(rows, {}, split="test")
    assert f"{pair.interval.estimate:.2f}*" in text
    assert "cap log n: the truth may be far larger" in text
    just = replace(pair, interval=replace(pair.interval, estimate=SATURATED * math.log(60)))
    assert not just.saturated


def test_two_modalities_have_neither_joint_nor_synergy() -> None:
    rng = np.random.default_rng(0)
    split = encoded({name: rng.normal(size=(40, 3)) for name in "ab"})
    keys = [
        row.key
        for row in measure(held_out=split, calibration=split, train=split, objective=Symile(), scale=1.0, seed=0)
    ]
    assert keys == ["total_correlation", "total_correlation_as_trained", "total_correlation_exhaustive", "pair/a+b"]


def test_absent_modalities_are_left_out_and_counted() -> None:
    whole = planted(150, bits=2, seed=0)
    rng = np.random.default_rng(1)
    lacking = {"a": rng.random(150) < 0.2, "b": np.zeros(150, dtype=np.bool_), "c": rng.random(150) < 0.1}
    embeddings = {
        name: np.where(lacking[name][:, None], np.float32(np.nan), array)
        for name, array in whole.embedded.embeddings.items()
    }
    holed = Encoded(Embedded(embeddings, {name: ~gone for name, gone in lacking.items()}), whole.subjects)
    here = ~(lacking["a"] | lacking["c"])
    subset = Encoded(
        Embedded(
            {name: array[here] for name, array in embeddings.items()},
            {name: np.ones(here.sum(), bool) for name in "abc"},
        ),
        whole.subjects[here],
    )
    calibration = planted(100, bits=2, seed=3)
    found, expected = (
        by_key(
            measure(held_out=split, calibration=calibration, train=calibration, objective=Symile(), scale=SCALE, seed=0)
        )
        for split in (holed, subset)
    )
    for key in ("total_correlation", "joint/a", "synergy/c"):
        assert found[key].left_out == 150 - here.sum()
        assert found[key] == replace(expected[key], left_out=found[key].left_out)
    assert found["pair/b+c"].left_out == lacking["c"].sum()
    assert found["pair/b+c"].patients == 150 - lacking["c"].sum()
    assert "lack one of them" in table(list(found.values()), {}, split="test")


def test_nothing_is_a_bound_on_the_split_that_chose_the_checkpoint() -> None:
    split = planted(30, bits=1, seed=0)
    rows = measure(held_out=split, calibration=None, train=split, objective=Symile(), scale=SCALE, seed=0)
    assert {row.kind for row in rows} == {"estimate"}
    assert "nothing here is a bound" in table(rows, {}, split="val")


def test_too_few_patients_are_refused() -> None:
    split = planted(2, bits=1, seed=0)
    with pytest.raises(CohortError, match="2 patients of the split have every modality"):
        measure(held_out=split, calibration=split, train=split, objective=Symile(), scale=1.0, seed=0)


def test_same_seed_same_report() -> None:
    split = planted(40, bits=1, seed=0)
    first, again, other = (
        measure(held_out=split, calibration=split, train=split, objective=Symile(), scale=SCALE, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def entropy(probabilities: dict[tuple[int, ...], float], places: list[int]) -> float:
    marginal: dict[tuple[int, ...], float] = {}
    for values, p in probabilities.items():
        key = tuple(values[place] for place in places)
        marginal[key] = marginal.get(key, 0.0) + p
    return -sum(p * math.log(p) for p in marginal.values() if p)


def test_planted_information_equals_its_enumeration() -> None:
    planting = Planting(target="t", queries=("q", "r"), synergy_factors=1, shared_flip=0.07, synergy_flip=0.02)
    joint: dict[tuple[int, ...], float] = {}
    for q0, q1, r0, r1, *flips in itertools.product((0, 1), repeat=7):
        chances = (0.07, 0.07, 0.02)
        p = math.prod(chance if flip else 1 - chance for chance, flip in zip(chances, flips, strict=True)) / 16
        values = (q0, q1, r0, r1, q0 ^ flips[0], r0 ^ flips[1], q1 ^ r1 ^ flips[2])
        joint[values] = joint.get(values, 0.0) + p
    places = {"q": [0, 1], "r": [2, 3], "t": [4, 5, 6]}

    def information(one: list[int], other: list[int]) -> float:
        return entropy(joint, one) + entropy(joint, other) - entropy(joint, one + other)

    everything = [place for one in places.values() for place in one]
    expected = {"total_correlation": sum(entropy(joint, one) for one in places.values()) - entropy(joint, everything)}
    for name, own in places.items():
        rest = [place for place in everything if place not in own]
        expected[f"joint/{name}"] = information(own, rest)
        expected[f"synergy/{name}"] = information(own, rest) - sum(
            information(own, places[other]) for other in places if other != name
        )
    for one, other in itertools.combinations(sorted(places), 2):
        expected[f"pair/{one}+{other}"] = information(places[one], places[other])
    assert planted_information(planting.model_dump(mode="json")) == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    path = tmp_path_factory.mktemp("cohort")
    small_cohort(path, admissions=160, train=240)
    samples = pd.read_parquet(path / SAMPLES)
    samples[SPLIT] = np.repeat(["test", "val", "train"], [160, 80, 160])
    samples.to_parquet(path / SAMPLES)
    return open_cohort(path)


def test_what_a_report_leaves_behind(cohort: Cohort, tmp_path: Path) -> None:
    report = report_split(
        model=ReadsSynergy(),
        objective=Symile(normalization="l2"),
        scale=1.0,
        cohort=cohort,
        modalities=modalities(),
        split="test",
        seed=0,
        batch_size=32,
        device="cpu",
        directory=tmp_path / "information" / "test",
        progress=Quiet(),
    )
    folder = tmp_path / "information" / "test"
    assert {path.name for path in folder.iterdir()} == {"information.json", "information.png"}
    assert {artifact.path for artifact in report.artifacts} == set(folder.iterdir())
    assert not any(artifact.patient_level for artifact in report.artifacts)
    assert json.loads((folder / "information.json").read_text()) == report.metrics
    assert imread(folder / "information.png")[:, :, :3].std() > 0.02
    name = "test/information/total_correlation/lower_bound"
    suffixes = ("", "_ci_low", "_ci_high", "_cap", "_n", "_samples", "_patients", "_left_out", "_draws_se", "_planted")
    assert {name + suffix for suffix in suffixes} <= set(report.metrics)
    assert report.metrics[f"{name}_samples"] == 160
    assert report.metrics[f"{name}_patients"] == 80
    truth = planted_information(PLANTING.model_dump(mode="json"))
    for key, value in truth.items():
        kind = "estimate" if key.startswith("synergy") else "lower_bound"
        assert report.metrics[f"test/information/{key}/{kind}_planted"] == value
        if kind == "lower_bound":
            assert report.metrics[f"test/information/{key}/{kind}_ci_low"] < value + 1e-9
    assert report.metrics["test/information/synergy/blue/estimate"] > 0.8
    for words in (
        "160 samples of 80 patients",
        "is a",
        "lower bound",
        "estimate",
        "cap",
        "planted",
        "TC(blue, red, green)",
    ):
        assert words in report.table


def test_metrics_are_numbers_under_names_that_say_their_kind(synergy: dict[str, Quantity]) -> None:
    metrics = metrics_of(list(synergy.values()), {}, split="test")
    assert metrics["test/information/synergy/a/estimate"] == synergy["synergy/a"].interval.estimate
    assert "test/information/synergy/a/estimate_cap" not in metrics
    assert not any("planted" in name for name in metrics)
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
