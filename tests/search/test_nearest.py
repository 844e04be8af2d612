"""The best candidates against slow loops, and where float32 alone would be wrong."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from symile_clin.errors import TrainingError
from symile_clin.rng import stream
from symile_clin.search.nearest import Leading, largest_products, largest_scores, rounding


def by_hand(
    matrix: NDArray[np.float32], query: NDArray[np.float64], k: int, allowed: NDArray[np.bool_]
) -> list[tuple[int, Fraction]]:
    """Exact products, in rational numbers; level ones by row."""
    vector = [Fraction(float(value)) for value in query]
    scores = []
    for row in np.flatnonzero(allowed):
        products = [Fraction(float(a)) * b for a, b in zip(matrix[row], vector, strict=True)]
        scores.append((int(row), sum(products, start=Fraction(0))))
    return sorted(scores, key=lambda one: (-one[1], one[0]))[:k]


def search(matrix: NDArray[np.float32], query: NDArray[np.float64], k: int, allowed: NDArray[np.bool_]) -> Leading:
    largest = float(np.linalg.norm(matrix[allowed].astype(float), axis=1).max())
    return largest_products(matrix, query, k=k, allowed=allowed, largest_norm=largest)


@pytest.mark.parametrize("seed", range(4))
def test_products_are_those_of_a_slow_loop(seed: int) -> None:
    rng = stream(seed, "nearest")
    matrix, query = rng.standard_normal((200, 7)).astype(np.float32), rng.standard_normal(7)
    allowed = rng.random(200) < 0.7
    matrix[~allowed] = np.nan
    found = search(matrix, query, 9, allowed)
    expected = by_hand(matrix, query, 9, allowed)
    assert found.rows.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(found.scores, [float(score) for _, score in expected], rtol=1e-13)
    assert found.level == 0


@pytest.mark.parametrize("dim", [3, 300])
def test_neighbours_that_float32_cannot_tell_apart_are_in_the_right_order(dim: int) -> None:
    rng = stream(0, "close")
    base = rng.standard_normal(dim)
    # all scores within a few roundings of float32 of each other
    matrix = (base + 1e-7 * rng.standard_normal((400, dim))).astype(np.float32)
    query = rng.standard_normal(dim)
    everyone = np.ones(400, dtype=np.bool_)
    expected = [row for row, _ in by_hand(matrix, query, 5, everyone)]
    rough = matrix @ query.astype(np.float32)
    assert np.lexsort((np.arange(400), -rough))[:5].tolist() != expected, "float32 would have done"
    assert search(matrix, query, 5, everyone).rows.tolist() == expected


@pytest.mark.parametrize("dim", [2, 64, 1000])
def test_the_bound_on_rounding_holds_and_says_something(dim: int) -> None:
    rng = stream(0, "bound", dim)
    matrix, query = rng.standard_normal((2000, dim)).astype(np.float32), rng.standard_normal(dim)
    query /= np.linalg.norm(query)
    norm = float(np.linalg.norm(matrix.astype(float), axis=1).max())
    error = np.abs((matrix @ query.astype(np.float32)).astype(float) - (matrix.astype(float) * query).sum(axis=1)).max()
    assert 0 < error <= rounding(dim, norm)
    assert rounding(dim, norm) < 1e-3 * norm


def test_few_are_scored_twice_where_scores_are_apart() -> None:
    rng = stream(0, "few")
    matrix, query = rng.standard_normal((5000, 256)).astype(np.float32), rng.standard_normal(256)
    found = search(matrix, query, 10, np.ones(5000, dtype=np.bool_))
    assert 10 <= found.rescored < 20


def test_equal_candidates_are_level_wherever_they_stand_and_come_by_row() -> None:
    rng = stream(0, "equal")
    matrix = rng.standard_normal((3001, 129)).astype(np.float32)
    same = [2999, 0, 17, 3000, 1]
    query = rng.standard_normal(129)
    matrix[same] = (query / 4).astype(np.float32)
    everyone = np.ones(3001, dtype=np.bool_)
    for k, level in ((2, 3), (4, 1), (5, 0), (6, 0)):
        found = search(matrix, query, k, everyone)
        assert found.rows[:5].tolist() == sorted(same)[:k]
        assert found.level == level
        assert len(set(found.scores[:5].tolist())) == 1
        slow = largest_scores(lambda some: some.astype(float) @ query, matrix, k=k, allowed=everyone)
        np.testing.assert_array_equal(slow.rows, found.rows)
        assert slow.level == level
        np.testing.assert_allclose(slow.scores, found.scores, rtol=1e-12)


def test_a_collapsed_model_has_everyone_level() -> None:
    matrix = np.full((50, 4), 0.1, dtype=np.float32)
    found = search(matrix, np.full(4, 3.0), 3, np.arange(50) != 1)
    assert found.rows.tolist() == [0, 2, 3]
    assert found.level == 46
    nothing = search(matrix, np.zeros(4), 3, np.ones(50, dtype=np.bool_))
    assert (nothing.rows.tolist(), nothing.level) == ([0, 1, 2], 47)


def test_scores_of_any_kind_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symile_clin.search.nearest.CHUNK_NUMBERS", 21)
    rng = stream(0, "any kind")
    matrix = rng.standard_normal((100, 3)).astype(np.float32)
    allowed = rng.random(100) < 0.5
    seen = []

    def score(some: NDArray[np.float32]) -> NDArray[np.float64]:
        seen.append(len(some))
        sums: NDArray[np.float64] = np.abs(some.astype(np.float64)).sum(axis=1)
        return -sums

    found = largest_scores(score, matrix, k=4, allowed=allowed)
    sums = {row: sum(abs(float(value)) for value in matrix[row]) for row in range(100) if allowed[row]}
    assert found.rows.tolist() == sorted(sums, key=lambda row: (sums[row], row))[:4]
    assert max(seen) == 7
    assert sum(seen) == allowed.sum()


def test_more_are_asked_for_than_there_are() -> None:
    matrix = np.eye(3, dtype=np.float32)
    found = search(matrix, np.array([1.0, 3.0, 2.0]), 10, np.ones(3, dtype=np.bool_))
    assert found.rows.tolist() == [1, 2, 0]
    assert found.scores.tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_candidate_that_is_no_number_is_an_error_and_one_that_is_no_candidate_is_none(bad: float) -> None:
    matrix = np.ones((4, 2), dtype=np.float32)
    matrix[2] = bad
    some = np.array([True, True, False, True])
    assert search(matrix, np.ones(2), 1, some).rows.tolist() == [0]
    with pytest.raises(TrainingError, match="1 of 4 candidates have a score that is not finite"):
        largest_products(matrix, np.ones(2), k=1, allowed=np.ones(4, dtype=np.bool_), largest_norm=2.0)
    with pytest.raises(TrainingError, match="not finite"):
        largest_scores(lambda some: some.sum(axis=1).astype(float), matrix, k=1, allowed=np.ones(4, dtype=np.bool_))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_sizes_far_from_one_neither_vanish_nor_overflow(size: float) -> None:
    rng = stream(0, "sizes")
    matrix, query = rng.standard_normal((60, 5)).astype(np.float32), rng.standard_normal(5)
    everyone = np.ones(60, dtype=np.bool_)
    usual = search(matrix, query, 5, everyone)
    assert search(matrix, query * size, 5, everyone).rows.tolist() == usual.rows.tolist()
