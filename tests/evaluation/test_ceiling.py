"""What is reachable on given lists, against candidates judged one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.store import Cohort
from symile_clin.evaluation.ceiling import bayes_ranks, ceilings, reachable
from symile_clin.synthetic.truth import expected_recall
from tests.evaluation.small_cohort import NAMES, PLANTING, small_cohort

PLANTED = PLANTING.model_dump(mode="json")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return small_cohort(tmp_path_factory.mktemp("cohort"), admissions=400)


def everything(cohort: Cohort) -> dict[str, NDArray[np.bool_]]:
    return {name: np.ones(len(cohort.samples), dtype=np.bool_) for name in NAMES}


def likelihood_ratio(truth: Mapping[Any, int], query: Mapping[Any, int], *, synergy: bool) -> float:
    """log p(target bits | query bits) − log p(target bits), bit by bit."""
    total = 0.0
    for j, name in enumerate(PLANTING.queries):
        agrees = truth[f"{PLANTING.target}_{j}"] == query[f"{name}_0"]
        total += math.log(2 * (1 - PLANTING.shared_flip if agrees else PLANTING.shared_flip))
    for j in range(PLANTING.synergy_factors if synergy else 0):
        combined = sum(query[f"{name}_{1 + j}"] for name in PLANTING.queries) % 2
        agrees = truth[f"{PLANTING.target}_{len(PLANTING.queries) + j}"] == combined
        total += math.log(2 * (1 - PLANTING.synergy_flip if agrees else PLANTING.synergy_flip))
    return total


@pytest.mark.parametrize("synergy", [False, True])
def test_ranks_equal_candidates_judged_one_by_one(cohort: Cohort, synergy: bool) -> None:
    truth = cohort.truth
    assert truth is not None
    records = truth.to_dict("records")
    lists = cohort.candidates("test")
    found = bayes_ranks(truth=truth, planted=PLANTED, lists=lists, present=everything(cohort), synergy=synergy)
    for query in range(0, len(lists.query_row), 7):
        own = records[int(lists.query_row[query])]
        scores = [
            round(likelihood_ratio(records[int(row)], own, synergy=synergy), 9) for row in lists.candidate_rows[query]
        ]
        assert found.n_greater[query] == sum(score > scores[0] for score in scores)
        assert found.n_tied[query] == scores.count(scores[0]) - 1


def test_over_many_lists_it_is_the_expected_recall(cohort: Cohort) -> None:
    assert cohort.truth is not None
    found = ceilings(truth=cohort.truth, planted=PLANTED, lists=cohort.candidates("test"), present=everything(cohort))
    expected = expected_recall(PLANTED)
    assert found["recall_at_1_ceiling"] == pytest.approx(expected["full"], abs=0.06)
    assert found["recall_at_1_ceiling_pairs"] == pytest.approx(expected["pairs"], abs=0.06)


def test_lists_of_equal_candidates_are_chance(cohort: Cohort) -> None:
    assert cohort.truth is not None
    rows = cohort.rows("test")
    same = np.repeat(rows[:, None], 4, axis=1)
    lists = CandidateLists(query_row=rows, candidate_rows=same, same_subject=np.ones(same.shape, dtype=np.bool_))
    found = ceilings(truth=cohort.truth, planted=PLANTED, lists=lists, present=everything(cohort))
    assert set(found.values()) == {0.25}


def log_mean(ratios: list[float]) -> float:
    return math.log(sum(math.exp(ratio) for ratio in ratios) / len(ratios))


@pytest.mark.parametrize("absent", [("red",), ("green",), ("red", "green")])
@pytest.mark.parametrize("synergy", [False, True])
def test_factors_of_an_absent_modality_are_averaged_over(
    cohort: Cohort, synergy: bool, absent: tuple[str, ...]
) -> None:
    """By loops over all that the absent factors could be; samples that have everything are judged as before."""
    truth = cohort.truth
    assert truth is not None
    records, lists = truth.to_dict("records"), cohort.candidates("test")
    lacking = np.arange(len(cohort.samples)) % 3 == 0
    present = {name: ~lacking if name in absent else ~np.zeros_like(lacking) for name in NAMES}
    found = bayes_ranks(truth=truth, planted=PLANTED, lists=lists, present=present, synergy=synergy)
    whole = bayes_ranks(truth=truth, planted=PLANTED, lists=lists, present=everything(cohort), synergy=synergy)
    np.testing.assert_array_equal(found.n_greater[~lacking[:400]], whole.n_greater[~lacking[:400]])
    columns = [f"{name}_{j}" for name in absent for j in range(PLANTING.factors[name])]
    for query in range(0, len(lists.query_row), 21):
        own = records[int(lists.query_row[query])]
        guesses = [dict(zip(columns, bits, strict=True)) for bits in itertools.product((0, 1), repeat=len(columns))]
        scores = [
            round(
                log_mean([likelihood_ratio(records[int(row)], {**own, **one}, synergy=synergy) for one in guesses]), 9
            )
            for row in lists.candidate_rows[query]
        ]
        assert found.n_greater[query] == sum(score > scores[0] for score in scores)
        assert found.n_tied[query] == scores.count(scores[0]) - 1


def test_without_one_query_modality_its_bit_and_the_synergy_are_lost(cohort: Cohort) -> None:
    """By hand: one bit is left, which agrees with the match at 1 - flip and with another at one half."""
    assert cohort.truth is not None
    present = everything(cohort) | {"red": np.zeros(len(cohort.samples), dtype=np.bool_)}
    found = ceilings(truth=cohort.truth, planted=PLANTED, lists=cohort.candidates("test"), present=present)
    flip = PLANTING.shared_flip
    agrees, differs = (1 - 0.5**10) / (10 * 0.5), 0.5**10 / (10 * 0.5)
    expected = (1 - flip) * agrees + flip * differs
    assert found["recall_at_1_ceiling"] == pytest.approx(expected, abs=0.03)
    assert found["recall_at_1_ceiling_pairs"] == pytest.approx(found["recall_at_1_ceiling"], abs=1e-12)


def test_a_planted_modality_that_the_cohort_does_not_have_is_unknown_to_all(cohort: Cohort) -> None:
    lists = cohort.candidates("test")
    left = [name for name in NAMES if name != "red"]
    found = reachable(cohort, lists, modalities=left, split="test", target=PLANTING.target)
    assert cohort.truth is not None
    present = everything(cohort) | {"red": np.zeros(len(cohort.samples), dtype=np.bool_)}
    expected = ceilings(truth=cohort.truth, planted=PLANTED, lists=lists, present=present)
    assert found == {f"test/{PLANTING.target}/{name}": value for name, value in expected.items()}
