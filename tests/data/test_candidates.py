"""Candidate lists: seeded, the positive first, uniform over the split, with and without the query's own patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.candidates import (
    NO_ROW,
    draw_candidates,
    draw_matched,
    read_candidates,
    without_own_patient,
    write_candidates,
)
from symile_clin.data.strata import complete, strata
from symile_clin.errors import CohortError
from symile_clin.rng import stream

ROWS = np.arange(100, 140, dtype=np.int64)
SUBJECTS = np.repeat(np.arange(20), 2).astype(np.int64)


@pytest.mark.parametrize("other_subjects", [False, True])
def test_lists_hold_the_positive_first_and_distinct_negatives_of_the_split(other_subjects: bool) -> None:
    lists = draw_candidates(ROWS, SUBJECTS, n=10, rng=stream(0, "test"), split="test", other_subjects=other_subjects)
    subject_of = dict(zip(ROWS.tolist(), SUBJECTS.tolist(), strict=True))
    assert lists.query_row.tolist() == ROWS.tolist()
    assert lists.candidate_rows.shape == lists.same_subject.shape == (40, 10)
    for query, candidates, same in zip(lists.query_row, lists.candidate_rows, lists.same_subject, strict=True):
        assert candidates[0] == query
        assert len(set(candidates.tolist())) == 10
        assert set(candidates.tolist()) <= set(ROWS.tolist())
        assert same.tolist() == [subject_of[int(one)] == subject_of[int(query)] for one in candidates]
    if other_subjects:
        assert not lists.same_subject[:, 1:].any()
    else:
        assert lists.same_subject[:, 1:].any()


def test_negatives_are_uniform() -> None:
    """Each of the other 39 is drawn 9/39 of the time; 5 standard errors over 4000 lists."""
    counts = np.zeros(40)
    for repeat in range(4000 // 40):
        lists = draw_candidates(ROWS, SUBJECTS, n=10, rng=stream(repeat, "test"), split="test")
        counts += np.bincount(lists.candidate_rows[:, 1:].ravel() - 100, minlength=40)
    expected = 4000 * 9 / 40
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_the_seed_decides() -> None:
    def rows(seed: int) -> list[list[int]]:
        found: list[list[int]] = draw_candidates(
            ROWS, SUBJECTS, n=5, rng=stream(seed, "test"), split="val"
        ).candidate_rows.tolist()
        return found

    assert rows(1) == rows(1) != rows(2)


def test_lists_may_take_the_whole_split_but_no_more() -> None:
    draw_candidates(ROWS, SUBJECTS, n=40, rng=stream(0, "test"), split="val")
    draw_candidates(ROWS, SUBJECTS, n=39, rng=stream(0, "test"), split="val", other_subjects=True)
    with pytest.raises(CohortError, match=r"'val' has 40 samples.*39 negatives.*candidates\.n=40 at most"):
        draw_candidates(ROWS, SUBJECTS, n=41, rng=stream(0, "test"), split="val")
    with pytest.raises(CohortError, match=r"38 negatives of other patients.*candidates\.n=39 at most"):
        draw_candidates(ROWS, SUBJECTS, n=40, rng=stream(0, "test"), split="val", other_subjects=True)


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    lists = draw_candidates(ROWS, SUBJECTS, n=7, rng=stream(0, "test"), split="test")
    write_candidates(tmp_path / "candidates" / "test.parquet", lists)
    again = read_candidates(tmp_path / "candidates" / "test.parquet")
    for one, other in zip(vars(lists).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_lists_without_the_own_patient_keep_their_order_and_may_be_shorter(tmp_path: Path) -> None:
    subjects = np.repeat(np.arange(5), 8).astype(np.int64)
    lists = draw_candidates(ROWS, subjects, n=10, rng=stream(0, "test"), split="test")
    shorter = without_own_patient(lists)
    expected = [
        [int(row) for place, (row, same) in enumerate(zip(rows, sames, strict=True)) if place == 0 or not same]
        for rows, sames in zip(lists.candidate_rows, lists.same_subject, strict=True)
    ]
    assert len({len(one) for one in expected}) > 1
    write_candidates(tmp_path / "lists.parquet", shorter)
    for found in (shorter, read_candidates(tmp_path / "lists.parquet")):
        assert [row[row != NO_ROW].tolist() for row in found.candidate_rows] == expected
        assert found.listed.sum(axis=1).tolist() == [len(one) for one in expected]
        assert found.same_subject[:, 0].all()
        assert not found.same_subject[:, 1:].any()


def _split(seed: int, size: int = 120) -> pd.DataFrame:
    rng = stream(seed, "test", "matched")
    return pd.DataFrame(
        {
            "row": np.arange(500, 500 + size),
            "subject_id": np.sort(rng.integers(0, size // 2, size)),
            "gender": rng.choice(["F", "M"], size),
            "age": rng.integers(30, 70, size),
            "view": np.array(["AP", "PA", None], dtype=object)[rng.choice(3, size, p=[0.6, 0.3, 0.1])],
        }
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [2, 5, 10])
def test_matched_negatives_are_like_the_query_and_of_other_patients(seed: int, n: int) -> None:
    """By loops: who may be a negative of whom, and which queries have enough of them."""
    samples, columns = _split(seed), ["gender", "age_band", "view"]
    alike = np.where(complete(samples, columns), strata(samples, columns), -1)
    rows, subjects = samples["row"].to_numpy(), samples["subject_id"].to_numpy()
    lists = draw_matched(rows, subjects, alike, n=n, rng=stream(seed, "lists"))
    records = samples.to_dict("records")
    allowed = {
        one["row"]: {
            other["row"]
            for other in records
            if other["subject_id"] != one["subject_id"] and other["gender"] == one["gender"]
            and other["age"] // 10 == one["age"] // 10 and isinstance(one["view"], str) and other["view"] == one["view"]
        }
        for one in records
    }  # fmt: skip
    assert lists.query_row.tolist() == [row for row in rows.tolist() if len(allowed[row]) >= n - 1]
    for query, candidates, same in zip(lists.query_row, lists.candidate_rows, lists.same_subject, strict=True):
        assert candidates[0] == query
        assert len(set(candidates.tolist())) == n
        assert set(candidates[1:].tolist()) <= allowed[query]
        assert same.tolist() == [True] + [False] * (n - 1)
    again = draw_matched(rows, subjects, alike, n=n, rng=stream(seed, "lists"))
    np.testing.assert_array_equal(again.candidate_rows, lists.candidate_rows)


def test_matched_negatives_are_uniform_among_those_allowed() -> None:
    rows, subjects = np.arange(12), np.arange(12)
    counts = np.zeros(12)
    for repeat in range(600):
        lists = draw_matched(rows, subjects, np.zeros(12, dtype=np.int64), n=4, rng=stream(repeat, "test"))
        counts += np.bincount(lists.candidate_rows[:, 1:].ravel(), minlength=12)
    expected = 600 * 12 * 3 / 12
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_where_no_query_has_enough_alike_there_are_no_lists() -> None:
    lists = draw_matched(ROWS, SUBJECTS, np.arange(40), n=2, rng=stream(0, "test"))
    assert lists.query_row.shape == (0,)
    assert lists.candidate_rows.shape == lists.same_subject.shape == (0, 2)
