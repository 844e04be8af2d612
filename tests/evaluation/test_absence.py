"""Scores of queries that lack something, against loops in float64, and what must never reach a score."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError, MismatchError, TrainingError
from symile_clin.evaluation import absence
from symile_clin.evaluation.absence import (
    StandIns,
    absence_lines,
    absence_report,
    reference_rows,
    shuffled,
    stand_ins,
    without,
)
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import OBJECTIVES, build_objective
from tests.evaluation.small_cohort import Collapsed, Fixed, ReadsSynergy, modalities, small_cohort
from tests.evaluation.test_retrieval import lists_of

Matrix = NDArray[np.float32]


def problem(
    seed: int,
    *,
    names: Sequence[str] = ("red", "green", "blue"),
    n: int = 23,
    d: int = 9,
    m: int = 6,
    scale: float = 1.7,
) -> tuple[Embedded, CandidateLists, StandIns]:
    """A third of the queries lack red, another green, some both; blue is retrieved."""
    rng = np.random.default_rng(seed)
    embeddings = {name: rng.normal(size=(n, d)).astype(np.float32) for name in names}
    present = {name: rng.random(n) < 0.6 for name in names} | {"blue": np.ones(n, dtype=np.bool_)}
    for name, here in present.items():
        embeddings[name][~here] = np.nan
    rows = np.arange(n)
    lists = lists_of(rows, np.stack([np.r_[row, rng.permutation(np.delete(rows, row))[: m - 1]] for row in rows]))
    reference = {name: rng.normal(size=(11, d)).astype(np.float32) for name in names if name != "blue"}
    return Embedded(embeddings, present), lists, StandIns(placeholders={}, reference=reference, scale=scale)


def scored(
    objective: Objective, encoded: Embedded, lists: CandidateLists, absent: StandIns | None
) -> NDArray[np.float64]:
    rows = np.arange(len(encoded.present["blue"]))
    return score_lists(objective, encoded.embeddings, rows, lists, "blue", present=encoded.present, stand_ins=absent)


def by_loops(
    score: Any, encoded: Embedded, lists: CandidateLists, absent: StandIns, names: Sequence[str]
) -> list[list[float]]:
    """log-mean-exp over training samples, term by term: several absent modalities are of one sample."""
    found = []
    samples = len(next(iter(absent.reference.values())))
    for query, candidates in zip(lists.query_row, lists.candidate_rows, strict=True):
        line = []
        for candidate in candidates:
            total = 0.0
            for j in range(samples):
                vectors = []
                for name in names:
                    there = encoded.present[name][query]
                    own = encoded.embeddings[name][query] if there else absent.reference[name][j]
                    vectors.append([float(x) for x in own])
                target = [float(x) for x in encoded.embeddings["blue"][candidate]]
                total += math.exp(absent.scale * score(vectors, target)) / samples
            line.append(math.log(total) / absent.scale)
        found.append(line)
    return found


def product_of(vectors: list[list[float]], target: list[float]) -> float:
    return sum((math.prod(one) for one in zip(*vectors, target, strict=True)), 0.0)


def sum_of(vectors: list[list[float]], target: list[float]) -> float:
    return sum(x * y for vector in vectors for x, y in zip(vector, target, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("objective", "score"), [(Symile(), product_of), (PairwiseClip(), sum_of)])
@pytest.mark.parametrize("names", [("red", "green", "blue"), ("red", "green", "grey", "blue"), ("red", "blue")])
def test_a_marginalised_score_equals_the_loop(
    objective: Objective, score: Any, names: tuple[str, ...], seed: int
) -> None:
    encoded, lists, absent = problem(seed, names=names)
    queries = [name for name in names if name != "blue"]
    patterns = {tuple(bool(encoded.present[name][i]) for name in queries) for i in range(23)}
    assert len(patterns) >= 2 ** min(len(queries), 2)  # nothing, some and all absent
    expected = by_loops(score, encoded, lists, absent, queries)
    np.testing.assert_allclose(scored(objective, encoded, lists, absent), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_is_marginalised_by_its_own_score(name: str) -> None:
    """One query, one candidate and one training sample at a time, in float64."""
    torch.manual_seed(0)
    encoded, lists, absent = problem(8)
    objective = build_objective(name, {}, dim=9, modalities=("red", "green", "blue"))
    single = copy.deepcopy(objective).double().eval()

    def score(vectors: list[list[float]], target: list[float]) -> float:
        queries = {key: torch.tensor([one]).double() for key, one in zip(("red", "green"), vectors, strict=True)}
        with torch.no_grad():
            return float(single.score(queries, torch.tensor([target]).double(), target="blue"))

    expected = by_loops(score, encoded, lists, absent, ["red", "green"])
    np.testing.assert_allclose(scored(objective, encoded, lists, absent), expected, rtol=1e-6, atol=1e-7)


def test_the_scale_decides_between_the_mean_and_the_best() -> None:
    """The reference gives one candidate 0 and 10, the other 6 and 6: the mean prefers the other, the best the one."""
    encoded = Embedded(
        {"red": np.full((2, 2), np.nan, np.float32), "blue": np.eye(2, dtype=np.float32)},
        {"red": np.zeros(2, dtype=np.bool_), "blue": np.ones(2, dtype=np.bool_)},
    )
    lists = lists_of(np.array([0]), np.array([[0, 1]]))
    reference = {"red": np.array([[0, 6], [10, 6]], dtype=np.float32)}
    small, large = (scored(Symile(), encoded, lists, StandIns({}, reference, scale))[0] for scale in (1e-9, 5.0))
    np.testing.assert_allclose(small, [5, 6], atol=1e-6)
    np.testing.assert_allclose(large, [10 - math.log(2) / 5, 6], atol=1e-6)


def test_a_large_scale_does_not_overflow() -> None:
    encoded, lists, absent = problem(0)
    assert np.isfinite(scored(Symile(), encoded, lists, StandIns({}, absent.reference, 1e6))).all()


def test_equal_candidates_tie_to_the_last_bit_however_many() -> None:
    for d in (3, 64, 129):
        encoded, lists, absent = problem(1, n=70, d=d, m=37)
        few = np.random.default_rng(d).normal(size=(5, d)).astype(np.float32)
        encoded.embeddings["blue"][:] = few[np.arange(70) % 5]
        for row, candidates in zip(scored(Symile(), encoded, lists, absent), lists.candidate_rows, strict=True):
            assert len(set(row.tolist())) == len({int(one) % 5 for one in candidates})


def test_a_query_is_scored_the_same_whatever_others_lack() -> None:
    encoded, lists, absent = problem(2)
    whole = scored(Symile(), encoded, lists, absent)
    for query in range(23):
        alone = lists_of(lists.query_row[[query]], lists.candidate_rows[[query]])
        np.testing.assert_allclose(scored(Symile(), encoded, alone, absent)[0], whole[query], rtol=1e-12)


def test_placeholders_are_used_as_they_are_and_the_rest_is_marginalised() -> None:
    """Red has a placeholder, green has none: a query that lacks both has the placeholder and the reference's green."""
    encoded, lists, absent = problem(3)
    learned = np.linspace(-1, 1, 9).astype(np.float32)
    encoded.embeddings["red"][~encoded.present["red"]] = learned
    mixed = StandIns({"red": learned}, {"green": absent.reference["green"]}, absent.scale)
    as_if = Embedded(encoded.embeddings, {**encoded.present, "red": np.ones(23, dtype=np.bool_)})
    expected = by_loops(product_of, as_if, lists, mixed, ["red", "green"])
    np.testing.assert_allclose(scored(Symile(), encoded, lists, mixed), expected, rtol=1e-9, atol=1e-9)


class Told(Symile):  # type: ignore[misc]  # final, but this is a test
    """Remembers what it was told of presence."""

    def score(
        self, queries: Mapping[str, torch.Tensor], candidates: torch.Tensor, *, target: str, present: Any = None
    ) -> torch.Tensor:
        seen.append({name: set(here.tolist()) for name, here in present.items()})
        assert all(torch.isfinite(tensor).all() for tensor in queries.values())
        assert len({len(tensor) for tensor in [*queries.values(), *present.values()]}) == 1
        return super().score(queries, candidates, target=target, present=present)


seen: list[dict[str, set[bool]]] = []


def test_an_objective_hears_of_placeholders_and_not_of_what_is_marginalised() -> None:
    encoded, lists, absent = problem(3)
    seen.clear()
    scored(Told(), encoded, lists, absent)
    assert seen
    assert all(here == {True} for one in seen for here in one.values())
    encoded.embeddings["red"][~encoded.present["red"]] = 1.0
    seen.clear()
    scored(Told(), encoded, lists, StandIns({"red": np.ones(9, np.float32)}, absent.reference, 1.0))
    assert any(False in one["red"] for one in seen)
    assert all(one["green"] == {True} for one in seen)


def test_nothing_absent_reaches_a_score_unnoticed() -> None:
    encoded, lists, absent = problem(4)
    missing = int((~encoded.present["red"]).sum())
    for nothing in (None, StandIns({}, {"green": absent.reference["green"]}, 1.0)):
        with pytest.raises(MismatchError, match=f"{missing} of 23 queries lack red, and nothing stands for it"):
            scored(Symile(), encoded, lists, nothing)
    encoded.present["red"][:] = True  # a wrong flag
    with pytest.raises(TrainingError, match="not finite"):
        scored(Symile(), encoded, lists, absent)


def test_who_lacks_the_target_is_neither_query_nor_candidate() -> None:
    encoded, lists, absent = problem(4)
    encoded.present["blue"][5] = False
    expected = int((lists.candidate_rows == 5).sum())
    with pytest.raises(MismatchError, match=f"{expected} entries of the candidate lists lack blue"):
        scored(Symile(), encoded, lists, absent)
    kept = lists.query_row[(lists.candidate_rows != 5).all(axis=1)]
    scored(Symile(), encoded, lists_of(kept, lists.candidate_rows[kept]), absent)


def test_a_collapsed_model_stays_at_chance_when_something_is_absent() -> None:
    encoded, lists, absent = problem(5)
    same = {name: np.full_like(array, 0.1) for name, array in encoded.embeddings.items()}
    reference = {name: np.full_like(array, 0.1) for name, array in absent.reference.items()}
    ranks = rank(scored(Symile(), Embedded(same, encoded.present), lists, StandIns({}, reference, 3.0)))
    assert (ranks.recall_at(1) == 1 / 6).all()


def of_model(model: Fixed, cohort: Cohort) -> StandIns:
    return stand_ins(
        model=cast(MultimodalEncoder, model), names=["red", "green"], cohort=cohort, modalities=modalities(),
        batch_size=5, device="cpu",
    )  # fmt: skip


def test_the_reference_is_of_training_samples_that_have_all_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = small_cohort(tmp_path, train=40, lacking={"red": [125, 126], "green": [126, 130]})
    names = ["red", "green"]
    rows = reference_rows(cohort, names)
    assert rows.tolist() == [row for row in range(120, 160) if row not in (125, 126, 130)]
    monkeypatch.setattr(absence, "REFERENCE_SAMPLES", 12)
    fewer = reference_rows(cohort, names)
    assert len(set(fewer.tolist())) == 12
    assert set(fewer.tolist()) <= set(rows.tolist())
    np.testing.assert_array_equal(fewer, reference_rows(cohort, names))

    model = ReadsSynergy(scale=2.5, placeholders=["green"])
    found = of_model(model, cohort)
    only = reference_rows(cohort, ["red"])
    bits = torch.from_numpy(cohort.array("red", "bits").take(only)).float()
    np.testing.assert_array_equal(found.reference["red"], model.encode("red", bits).numpy())
    assert set(found.reference) == {"red"}
    np.testing.assert_array_equal(found.placeholders["green"], np.ones(4))
    assert found.scale == 2.5
    assert found.method(["green"]) == "learned placeholder"
    assert found.method(["red"]) == "marginalised over 12 training samples"
    assert (
        found.method(["red", "green"]) == "learned placeholder for green, marginalised over 12 training samples for red"
    )


def test_without_any_such_training_sample_it_says_so(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path, train=2, lacking={"red": [120], "green": [121]})
    with pytest.raises(CohortError, match="no training sample of cohort small has red and green"):
        reference_rows(cohort, ["red", "green"])
    complete = Collapsed(placeholders=["red", "green"])
    found = of_model(complete, cohort)
    assert (found.samples, dict(found.reference)) == (0, {})


def test_shuffling_gives_each_sample_another_ones_and_leaves_the_rest() -> None:
    encoded, _, _ = problem(6)
    before = {name: array.copy() for name, array in encoded.embeddings.items()}
    changed = shuffled(encoded, "red", np.random.default_rng(0))
    here = encoded.present["red"]
    assert not (changed.embeddings["red"][here] == before["red"][here]).any()
    own = {array.tobytes() for array in before["red"][here]}
    assert {array.tobytes() for array in changed.embeddings["red"][here]} == own
    assert np.isnan(changed.embeddings["red"][~here]).all()
    for name in before:
        np.testing.assert_array_equal(encoded.embeddings[name], before[name])
        if name != "red":
            np.testing.assert_array_equal(changed.embeddings[name], before[name])


def test_every_other_sample_is_as_likely_when_shuffled() -> None:
    """Each of 6 others takes a sample's place in a sixth of 3000 shuffles, within 5 standard errors."""
    places = np.arange(7, dtype=np.float32)[:, None]
    encoded = Embedded({"red": places}, {"red": np.ones(7, dtype=np.bool_)})
    rng = np.random.default_rng(0)
    counts = np.zeros((7, 7))
    for _ in range(3000):
        counts[np.arange(7), shuffled(encoded, "red", rng).embeddings["red"][:, 0].astype(int)] += 1
    assert (counts.diagonal() == 0).all()
    assert np.abs(counts[~np.eye(7, dtype=np.bool_)] - 500).max() < 5 * math.sqrt(500)


def test_taking_away_leaves_placeholders_or_what_no_score_can_use() -> None:
    encoded, lists, absent = problem(7)
    learned = np.arange(9, dtype=np.float32)
    gone = without(encoded, ["red", "green"], StandIns({"red": learned}, absent.reference, 1.0))
    assert (gone.embeddings["red"] == learned).all()
    assert np.isnan(gone.embeddings["green"]).all()
    assert not gone.present["red"].any()
    assert not gone.present["green"].any()
    assert encoded.present["red"].any()
    with pytest.raises(MismatchError, match="23 of 23 queries lack green"):
        scored(Symile(), gone, lists, StandIns({"red": learned}, {}, 1.0))


def test_what_is_absent_is_counted_and_said() -> None:
    present = {
        "blue": np.array([True, True, False, True]),
        "red": np.array([True, False, False, False]),
        "green": np.ones(4, dtype=np.bool_),
    }
    counts = absence_report(present=present, queries=present["blue"], split="test", target="blue")
    prefix = "test/blue/recall_at_1_n_without_"
    assert counts == {f"{prefix}blue": 1.0, f"{prefix}red": 2.0}
    absent = StandIns({"red": np.ones(3, np.float32)}, {}, 1.0)
    assert absence_lines({**counts, "test/blue/recall_at_1": 0.5}, split="test", target="blue", stand_ins=absent) == [
        "  1 sample lacks blue: neither queries nor candidates",
        "  2 queries lack red: learned placeholder",
    ]
