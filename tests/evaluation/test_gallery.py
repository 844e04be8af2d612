"""The gallery of lists that are shorter than others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from symile_clin.data.candidates import NO_ROW, CandidateLists
from symile_clin.evaluation.gallery import choose_examples
from symile_clin.evaluation.retrieval import rank
from tests.evaluation.small_cohort import modalities, small_cohort


def test_the_gallery_of_short_lists_shows_what_they_hold(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "cohort")
    whole = cohort.candidates("test")
    rows, same = whole.candidate_rows.copy(), whole.same_subject
    rows[0::2, 3:] = NO_ROW
    lists = CandidateLists(whole.query_row, rows, same)
    scores = np.where(lists.listed, np.random.default_rng(0).normal(size=rows.shape), -np.inf)
    examples = choose_examples(
        cohort=cohort,
        modalities=modalities(),
        lists=lists,
        scores=scores,
        ranks=rank(scores),
        target="blue",
        count=20,
        rng=np.random.default_rng(0),
    )
    assert {len(one.top) for one in examples} == {3, 5}
    for one in examples:
        assert one.place.endswith(f"of {3 if len(one.top) == 3 else 10}")
        assert all(np.isfinite(found.score) for found in one.top)
