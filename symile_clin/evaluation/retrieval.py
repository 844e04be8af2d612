"""Zero-shot retrieval: scores of candidate lists, ranks with their ties, and what ranks say.

Ties are not a detail. A collapsed encoder gives every candidate the same score, and `argmax` with the positive in
column 0 would then report an accuracy of 1. Here a rank is the pair (candidates above, candidates level), and every
metric is its expectation when the level ones are put in random order, so a collapsed encoder scores exactly chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.errors import MismatchError, TrainingError
from symile_clin.evaluation.absence import StandIns
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.scoring import Scorer, Scores
from symile_clin.objectives.base import Objective


@dataclass(frozen=True)
class Ranks:
    """Where each query's positive stands among its candidates.

    Attributes:
        n_greater: (q,) int64, candidates with a larger score than the positive's.
        n_tied: (q,) int64, other candidates with exactly the positive's score.
    """

    n_greater: NDArray[np.int64]
    n_tied: NDArray[np.int64]

    def recall_at(self, k: int) -> Scores:
        """(q,) probability that the positive is among the first k when ties are broken at random."""
        return np.clip((k - self.n_greater) / (self.n_tied + 1), 0.0, 1.0)

    def reciprocal(self) -> Scores:
        """(q,) expected 1 / rank (1-based) when ties are broken at random; its mean is the MRR."""
        harmonic = _harmonic(int((self.n_greater + self.n_tied).max(initial=0)) + 1)
        total: Scores = harmonic[self.n_greater + self.n_tied + 1] - harmonic[self.n_greater]
        return total / (self.n_tied + 1)

    def mid(self) -> Scores:
        """(q,) expected rank (1-based): the middle of the tied positions."""
        return self.n_greater + 1 + self.n_tied / 2


def chance(candidates: int | NDArray[np.int64]) -> Ranks:
    """The ranks of queries whose `candidates` all score the same: what knowing nothing gives on every metric.

    Args:
        candidates: length of all lists, or of each.
    """
    tied = np.atleast_1d(candidates) - 1
    return Ranks(n_greater=np.zeros_like(tied), n_tied=tied)


def rank(scores: Scores, *, positive: int = 0) -> Ranks:
    """Rank the positive of each list.

    Args:
        scores: (q, m), larger is better.
        positive: column of the positive.

    Raises:
        TrainingError: a score is NaN; a comparison with NaN is false, which would count as a perfect rank.
    """
    bad = int(np.isnan(scores).any(axis=1).sum())
    if bad:
        raise TrainingError(f"{bad:,} of {len(scores):,} queries have a score that is not a number")
    own = scores[:, [positive]]
    return Ranks(n_greater=(scores > own).sum(axis=1), n_tied=(scores == own).sum(axis=1) - 1)


def score_lists(
    objective: Objective,
    embeddings: Mapping[str, NDArray[np.float32]],
    rows: NDArray[np.int64],
    lists: CandidateLists,
    target: str,
    *,
    present: Mapping[str, NDArray[np.bool_]] | None = None,
    stand_ins: StandIns | None = None,
) -> Scores:
    """Score every query's own candidate list with the objective the model was trained on; see `Scorer`.

    Args:
        embeddings: by modality (n, d); position i belongs to sample `rows[i]`.
        rows: (n,) sample rows, in any order.
        target: modality of the candidates; all others are the query.
        present: by modality (n,), which samples have it; None: all have all.
        stand_ins: for what queries lack; may be left out where none lacks anything.

    Returns:
        (q, m) float64, columns as in `lists.candidate_rows`; beyond the end of a shorter list -inf, which neither beats
        nor ties anything.

    Raises:
        MismatchError: a listed sample has no embedding, or lacks `target`; nothing stands for what a query lacks.
        TrainingError: a score is not finite.
    """
    listed = lists.listed
    candidates, place = np.unique(
        _positions(rows, np.where(listed, lists.candidate_rows, lists.candidate_rows[:, :1])), return_inverse=True
    )
    place = place.reshape(listed.shape)
    if present is not None:
        _check_target(present[target][candidates][place], target)
    here = present or {name: np.ones(len(rows), dtype=np.bool_) for name in embeddings}
    scorer = Scorer(
        objective=objective,
        encoded=Embedded(embeddings, here),
        target=target,
        queries=_positions(rows, lists.query_row),
        candidates=candidates,
        stand_ins=stand_ins,
    )
    vectors = scorer.vector_of[place]
    scores = np.empty(vectors.shape, dtype=np.float64)
    for table in scorer.tables(vectors):
        columns = np.searchsorted(table.vectors, vectors[table.queries])
        scores[table.queries] = np.take_along_axis(table.scores, columns, axis=1)
    scores[~listed] = -np.inf
    return scores


def _check_target(present: NDArray[np.bool_], target: str) -> None:
    lacking = int((~present).sum())
    if lacking:
        raise MismatchError(
            f"{lacking:,} entries of the candidate lists lack {target}, which is to be retrieved",
            expected="queries and candidates that have it",
            remedy="Rebuild the cohort",
        )


def _positions(rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(rows, kind="stable")
    found = np.searchsorted(rows, wanted, sorter=order)
    position: NDArray[np.int64] = order[np.minimum(found, len(rows) - 1)]
    missing = int((rows[position] != wanted).sum())
    if missing:
        raise MismatchError(
            f"{missing:,} entries of the candidate lists have no embedding",
            expected="embeddings of every sample in the lists' split",
            remedy="Rebuild the cohort, or encode the split the lists were drawn from",
        )
    return position


def _harmonic(count: int) -> Scores:
    """H_0 ... H_count."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, count + 1))])
