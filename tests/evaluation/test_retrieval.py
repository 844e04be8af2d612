"""Ranks under ties against brute force, and exact ties against rounding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, permutations
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.data.candidates import NO_ROW, CandidateLists
from symile_clin.errors import MismatchError, TrainingError
from symile_clin.evaluation import scoring
from symile_clin.evaluation.retrieval import Ranks, chance, rank, score_lists
from symile_clin.objectives.base import Memory, Objective


class Product(Objective):
    """Inner product of the candidate with the elementwise product of the queries."""

    name: ClassVar[str] = "product"

    def initial_logit_scale(self, dim: int, modalities: int) -> float:  # noqa: ARG002
        return 0.0

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:
        raise NotImplementedError

    def loss(
        self,
        embeddings: Mapping[str, Tensor],
        scale: Tensor,
        *,
        present: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        raise NotImplementedError

    def score(
        self,
        queries: Mapping[str, Tensor],
        candidates: Tensor,
        *,
        target: str,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        return self.query_vector(queries, target, present=present) @ candidates.T

    def query_vector(
        self,
        queries: Mapping[str, Tensor],
        target: str,  # noqa: ARG002
        *,
        present: Mapping[str, Tensor] | None = None,  # noqa: ARG002
    ) -> Tensor:
        return torch.stack(list(queries.values())).prod(dim=0)


def lists_of(query_row: NDArray[np.int64], candidate_rows: NDArray[np.int64]) -> CandidateLists:
    same = np.zeros(candidate_rows.shape, dtype=np.bool_)
    same[:, 0] = True
    return CandidateLists(query_row=query_row, candidate_rows=candidate_rows, same_subject=same)


def random_problem(
    rng: np.random.Generator, *, n: int = 40, d: int = 33, m: int = 7
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64], CandidateLists]:
    embeddings = {name: rng.normal(size=(n, d)).astype(np.float32) for name in ("red", "green", "blue")}
    rows = rng.permutation(np.arange(100, 100 + 3 * n, 3))
    candidate_rows = np.stack([np.r_[row, rng.choice(rows[rows != row], m - 1, replace=False)] for row in rows])
    return embeddings, rows, lists_of(rows.copy(), candidate_rows)


def brute_force(scores: list[float], k: int) -> tuple[float, float, float]:
    """Recall at k, reciprocal rank and rank of item 0, averaged over every order that the scores allow."""
    orders = [o for o in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
    ranks = np.array([order.index(0) + 1 for order in orders])
    return float((ranks <= k).mean()), float((1 / ranks).mean()), float(ranks.mean())


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_expectations_over_every_order_of_the_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, size=(12, 6)).astype(np.float64)
    ranks = rank(scores)
    for k in (1, 2, 5):
        expected = np.array([brute_force(list(row), k) for row in scores])
        np.testing.assert_allclose(ranks.recall_at(k), expected[:, 0], atol=1e-12)
        np.testing.assert_allclose(ranks.reciprocal(), expected[:, 1], atol=1e-12)
        np.testing.assert_allclose(ranks.mid(), expected[:, 2], atol=1e-12)


def test_collapsed_scores_are_exactly_chance() -> None:
    ranks = rank(np.full((8, 10), 0.1))
    assert (ranks.n_greater == 0).all()
    assert (ranks.n_tied == 9).all()
    for k in (1, 5, 10, 20):
        assert (ranks.recall_at(k) == min(k / 10, 1.0)).all()
        assert (ranks.recall_at(k) == chance(10).recall_at(k)).all()
    assert (ranks.mid() == 5.5).all()
    assert chance(10).reciprocal() == pytest.approx(sum(1 / r for r in range(1, 11)) / 10)


def test_positive_may_stand_in_any_column() -> None:
    scores = np.array([[3.0, 1.0, 2.0]])
    assert rank(scores, positive=2).n_greater.tolist() == [1]
    assert rank(scores, positive=1).n_greater.tolist() == [2]


def test_not_a_number_is_an_error_not_a_perfect_rank() -> None:
    with pytest.raises(TrainingError, match="1 of 2 queries"):
        rank(np.array([[np.nan, 1.0], [1.0, 0.0]]))


def test_no_queries_give_no_ranks() -> None:
    ranks = rank(np.empty((0, 10)))
    assert ranks.recall_at(1).shape == ranks.reciprocal().shape == (0,)


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_scores_equal_a_loop_over_queries_and_candidates(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "QUERIES_PER_CHUNK", chunk)
    embeddings, rows, lists = random_problem(np.random.default_rng(0))
    scores = score_lists(Product("l2"), embeddings, rows, lists, "blue")
    at = {int(row): position for position, row in enumerate(rows)}
    for query, query_row in enumerate(lists.query_row):
        for column, candidate in enumerate(lists.candidate_rows[query]):
            own = embeddings["red"][at[int(query_row)]].astype(float) * embeddings["green"][at[int(query_row)]]
            assert scores[query, column] == pytest.approx(own @ embeddings["blue"][at[int(candidate)]], abs=1e-9)


@pytest.mark.parametrize("d", [3, 64, 1000])
@pytest.mark.parametrize("n", [17, 130, 700])
def test_identical_candidates_tie_to_the_last_bit(n: int, d: int) -> None:
    rng = np.random.default_rng(n + d)
    embeddings, rows, lists = random_problem(rng, n=n, d=d)
    embeddings["blue"] = np.repeat(rng.normal(size=(1, d)).astype(np.float32), n, axis=0)
    embeddings["blue"][::2, 0] = 0.0
    embeddings["blue"][1::2, 0] = -0.0
    scores = score_lists(Product("l2"), embeddings, rows, lists, "blue")
    assert (scores == scores[:, :1]).all()
    assert (rank(scores).recall_at(1) == 1 / 7).all()


def test_some_equal_candidates_tie_and_others_do_not() -> None:
    rng = np.random.default_rng(2)
    embeddings, rows, lists = random_problem(rng, n=300, d=129)
    embeddings["blue"] = embeddings["blue"][rng.integers(0, 4, size=300)]
    scores = score_lists(Product("l2"), embeddings, rows, lists, "blue")
    at = {int(row): position for position, row in enumerate(rows)}
    for row, candidates in zip(scores, lists.candidate_rows, strict=True):
        vectors = [embeddings["blue"][at[int(candidate)]].tobytes() for candidate in candidates]
        assert len(set(vectors)) == len(set(row.tolist()))


def test_order_of_samples_does_not_change_scores() -> None:
    embeddings, rows, lists = random_problem(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(rows))
    shuffled = {name: array[order] for name, array in embeddings.items()}
    before = score_lists(Product("l2"), embeddings, rows, lists, "red")
    np.testing.assert_array_equal(before, score_lists(Product("l2"), shuffled, rows[order], lists, "red"))


def test_a_shorter_list_is_ranked_as_if_it_stood_alone() -> None:
    rng = np.random.default_rng(3)
    embeddings, rows, lists = random_problem(rng)
    lengths = rng.integers(1, 8, size=len(rows))
    shorter = np.where(np.arange(7) < lengths[:, None], lists.candidate_rows, NO_ROW)
    ranks = rank(score_lists(Product("l2"), embeddings, rows, lists_of(lists.query_row, shorter), "blue"))
    for query, length in enumerate(lengths):
        alone = lists_of(lists.query_row[[query]], lists.candidate_rows[[query], :length])
        expected = rank(score_lists(Product("l2"), embeddings, rows, alone, "blue"))
        assert (ranks.n_greater[query], ranks.n_tied[query]) == (expected.n_greater[0], expected.n_tied[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(value: float) -> None:
    embeddings, rows, lists = random_problem(np.random.default_rng(0))
    embeddings["green"][3] = value
    with pytest.raises(TrainingError, match="not finite"):
        score_lists(Product("l2"), embeddings, rows, lists, "blue")


def test_a_candidate_without_embedding_is_named() -> None:
    embeddings, rows, lists = random_problem(np.random.default_rng(0))
    with pytest.raises(MismatchError, match="have no embedding"):
        score_lists(Product("l2"), {k: v[:-1] for k, v in embeddings.items()}, rows[:-1], lists, "blue")


def test_the_objective_is_left_as_it_was() -> None:
    objective = Product("l2")
    objective.gate = torch.nn.Linear(2, 2)
    embeddings, rows, lists = random_problem(np.random.default_rng(0))
    score_lists(objective, embeddings, rows, lists, "blue")
    assert objective.training
    assert objective.gate.weight.dtype == torch.float32


def test_recall_by_hand() -> None:
    ranks = Ranks(n_greater=np.array([0, 1, 2]), n_tied=np.array([0, 1, 3]))
    assert ranks.recall_at(1).tolist() == [1.0, 0.0, 0.0]
    assert ranks.recall_at(2).tolist() == [1.0, 0.5, 0.0]
    assert ranks.recall_at(3).tolist() == [1.0, 1.0, 0.25]
