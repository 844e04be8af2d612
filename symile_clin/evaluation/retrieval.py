"""Zero-shot retrieval: scores of candidate lists, ranks with their ties, and what ranks say.

Ties are not a detail. A collapsed encoder gives every candidate the same score, and `argmax` with the positive in
column 0 would then report an accuracy of 1. Here a rank is the pair (candidates above, candidates level), and every
metric is its expectation when the level ones are put in random order, so a collapsed encoder scores exactly chance.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.errors import MismatchError, TrainingError
from symile_clin.evaluation.absence import StandIns
from symile_clin.objectives.base import Objective

Scores = NDArray[np.float64]

#: Queries scored at once; memory is this times the distinct candidates of so many lists.
QUERIES_PER_CHUNK = 256


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
    """Score every query's own candidate list with the objective the model was trained on.

    Candidates with equal embeddings get equal scores to the last bit: each distinct embedding is scored once per query
    (in float64) and its score copied. A blocked matrix product alone would not promise that, for its last columns
    may be summed in another order than the rest.

    A query that lacks modalities is scored with their placeholders. Those that the model has no placeholder for are
    marginalised: with s the scale and z_1 ... z_r the reference, each all such embeddings of one training sample, its
    score is (1 / s) log ((1 / r) sum_j exp(s score(query with z_j, candidate))).

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
    query_position = _positions(rows, lists.query_row)
    listed = lists.listed
    candidate_position = _positions(rows, np.where(listed, lists.candidate_rows, lists.candidate_rows[:, :1]))
    if present is not None:
        _check_target(present[target][candidate_position], target)
    here = {
        name: np.ones(len(query_position), dtype=np.bool_) if present is None else present[name][query_position]
        for name in embeddings
        if name != target
    }
    distinct, vector_of = _distinct(embeddings[target])
    candidate_vector = vector_of[candidate_position]
    scorer = copy.deepcopy(objective).to(device="cpu", dtype=torch.float64).eval()
    scores = np.empty(candidate_vector.shape, dtype=np.float64)
    for chunk, reference in _chunks(here, stand_ins):
        vectors, column = np.unique(candidate_vector[chunk], return_inverse=True)
        together = max([len(chunk), *map(len, reference.values())])
        queries, there = {}, {}
        for name in here:
            own = reference.get(name, embeddings[name][query_position[chunk]])
            queries[name] = _double(own).expand(together, -1)
            there[name] = torch.from_numpy(here[name][chunk] | (name in reference)).expand(together)
        with torch.inference_mode():
            table = scorer.score(queries, _double(distinct[vectors]), target=target, present=there).numpy()
        if reference and stand_ins is not None:
            table = _log_mean_exp(table, stand_ins.scale)
        scores[chunk] = np.take_along_axis(table, column.reshape(candidate_vector[chunk].shape), axis=1)
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise TrainingError(f"{bad:,} of {len(scores):,} queries have a score that is not finite")
    scores[~listed] = -np.inf
    return scores


def _chunks(
    here: Mapping[str, NDArray[np.bool_]], stand_ins: StandIns | None
) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]]:
    """Queries that are scored at once, and the reference over which what they lack is marginalised.

    Many, of which none lacks what has no placeholder, without reference; or one that does, with it.
    """
    learned = () if stand_ins is None else stand_ins.placeholders
    lacks = {name: ~there for name, there in here.items() if name not in learned and not there.all()}
    for name, missing in lacks.items():
        if stand_ins is None or name not in stand_ins.reference:
            raise MismatchError(
                f"{int(missing.sum()):,} of {len(missing):,} queries lack {name}, and nothing stands for it",
                expected="its learned placeholder, or embeddings of training samples",
            )
    marginalised = np.logical_or.reduce([np.zeros_like(next(iter(here.values()))), *lacks.values()])
    whole = np.flatnonzero(~marginalised)
    for start in range(0, len(whole), QUERIES_PER_CHUNK):
        yield whole[start : start + QUERIES_PER_CHUNK], {}
    for query in np.flatnonzero(marginalised):
        assert stand_ins is not None
        yield np.array([query]), {name: stand_ins.reference[name] for name in lacks if lacks[name][query]}


def _log_mean_exp(scores: Scores, scale: float) -> Scores:
    """(1, c) log of the mean over the r rows of exp(scale * scores), (r, c), in units of the scores."""
    largest = scores.max(axis=0, keepdims=True)
    mean: Scores = largest + np.log1p(np.expm1(scale * (scores - largest)).mean(axis=0, keepdims=True)) / scale
    return mean


def _check_target(present: NDArray[np.bool_], target: str) -> None:
    lacking = int((~present).sum())
    if lacking:
        raise MismatchError(
            f"{lacking:,} entries of the candidate lists lack {target}, which is to be retrieved",
            expected="queries and candidates that have it",
            remedy="Rebuild the cohort",
        )


def _double(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def _distinct(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The distinct rows of a matrix, compared by value, and for each row the index of its own."""
    rows = np.ascontiguousarray(vectors) + np.float32(0)  # -0.0 becomes 0.0, so equal values are equal bytes
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    return rows[first], inverse


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
