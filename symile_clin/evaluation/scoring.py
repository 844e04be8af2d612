"""Scores of queries against candidates, a table for some queries at a time: one pass serves every protocol.

Candidates with equal embeddings get equal scores to the last bit: each distinct embedding is scored once per query (in
float64). A blocked matrix product alone would not promise that, for its last columns may be summed in another order
than the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from symile_clin.errors import MismatchError, TrainingError
from symile_clin.evaluation.absence import StandIns, log_mean_exp
from symile_clin.evaluation.embed import Embedded
from symile_clin.objectives.base import Objective

Scores = NDArray[np.float64]

#: Queries scored at once, at most.
QUERIES_PER_CHUNK = 256
#: Numbers (of 8 bytes) in a chunk's table of scores, and in any matrix that it is worked out from.
TABLE_NUMBERS = 1 << 24
WORK_NUMBERS = 1 << 21


@dataclass(frozen=True)
class Table:
    """Scores of some queries.

    Attributes:
        queries: (b,) which queries, as places in the order they were given in.
        vectors: (v,) numbers of the distinct candidate embeddings that were scored, ascending.
        scores: (b, v) float64.
    """

    queries: NDArray[np.int64]
    vectors: NDArray[np.int64]
    scores: Scores


@final
class Scorer:
    """The objective that a model was trained with, and what it is to score: queries and candidates of one split.

    A query that lacks modalities is scored with their placeholders. Those that the model has no placeholder for are
    marginalised: with s the scale and z_1 ... z_r the reference, each all such embeddings of one training sample, its
    score is (1 / s) log ((1 / r) sum_j exp(s score(query with z_j, candidate))).

    Args:
        encoded: embeddings of a split.
        target: modality of the candidates; all others are the query.
        queries: (q,) places in `encoded`.
        candidates: (c,) places in `encoded`.
        stand_ins: for what queries lack; may be left out where none lacks anything.

    Attributes:
        vector_of: (c,) number of each candidate's embedding among the distinct ones.
        marginalised: (q,) bool, which queries lack what the model has no placeholder for.

    Raises:
        MismatchError: nothing stands for what a query lacks.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        encoded: Embedded,
        target: str,
        queries: NDArray[np.int64],
        candidates: NDArray[np.int64],
        stand_ins: StandIns | None,
    ) -> None:
        self._objective = copy.deepcopy(objective).to(device="cpu", dtype=torch.float64).eval()
        self._encoded = encoded
        self._target = target
        self._queries = queries
        first, self.vector_of = _distinct(encoded.embeddings[target][candidates])
        self._place_of_vector = candidates[first]
        self._scale = 1.0 if stand_ins is None else stand_ins.scale
        self._reference = {} if stand_ins is None else stand_ins.reference
        learned = () if stand_ins is None else stand_ins.placeholders
        self._here = {name: here[queries] for name, here in encoded.present.items() if name != target}
        self._lacks = {name: ~here for name, here in self._here.items() if name not in learned and not here.all()}
        for name, missing in self._lacks.items():
            if name not in self._reference:
                raise MismatchError(
                    f"{int(missing.sum()):,} of {len(missing):,} queries lack {name}, and nothing stands for it",
                    expected="its learned placeholder, or embeddings of training samples",
                )
        self.marginalised: NDArray[np.bool_] = np.logical_or.reduce(
            [np.zeros(len(queries), dtype=np.bool_), *self._lacks.values()]
        )

    @property
    def work(self) -> int:
        """Multiplications that marginalising over all candidates takes."""
        vectors, dim = len(self._place_of_vector), self._encoded.embeddings[self._target].shape[1]
        samples = len(next(iter(self._reference.values()), ()))
        return int(self.marginalised.sum()) * vectors * samples * int(dim)

    def tables(self, wanted: NDArray[np.int64] | None = None) -> Iterator[Table]:
        """Every query once, in tables of bounded size.

        Args:
            wanted: (q, m) numbers of the distinct embeddings to score for each query, negative for none; None scores
                all. A table has all columns that one of its queries wants.

        Raises:
            TrainingError: a score is not finite; a comparison with NaN is false, which would count as a perfect rank.
        """
        everything = np.arange(len(self._place_of_vector))
        for chunk, reference in self._chunks(len(everything) if wanted is None else wanted.shape[1]):
            vectors = everything if wanted is None else np.unique(wanted[chunk][wanted[chunk] >= 0])
            scores = self._scored(chunk, vectors, reference)
            bad = int((~np.isfinite(scores)).any(axis=1).sum())
            if bad:
                raise TrainingError(f"{bad:,} of {len(scores):,} queries have a score that is not finite")
            yield Table(chunk, vectors, scores)

    def _chunks(self, columns: int) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Queries that are scored at once, all of which lack the same of what is marginalised, and its reference."""
        dim = self._encoded.embeddings[self._target].shape[1]
        lacks = np.array([*self._lacks.values()], dtype=np.bool_).reshape(len(self._lacks), len(self._queries))
        for pattern in np.unique(lacks, axis=1).T:
            alike = np.flatnonzero((lacks == pattern[:, None]).all(axis=0))
            reference = {
                name: self._reference[name] for name, lacking in zip(self._lacks, pattern, strict=True) if lacking
            }
            samples = max(map(len, reference.values()), default=1)
            work = WORK_NUMBERS // (samples * max(dim, min(columns, _block(dim))))
            step = max(1, min(QUERIES_PER_CHUNK, TABLE_NUMBERS // max(1, columns), work))
            for start in range(0, len(alike), step):
                yield alike[start : start + step], reference

    def _scored(
        self, chunk: NDArray[np.int64], vectors: NDArray[np.int64], reference: Mapping[str, NDArray[np.float32]]
    ) -> Scores:
        samples = max(map(len, reference.values()), default=1)
        queries, there = {}, {}
        for name, here in self._here.items():
            if name in reference:
                queries[name] = _double(reference[name]).repeat(len(chunk), 1)
                there[name] = torch.ones(len(queries[name]), dtype=torch.bool)
            else:
                own = _double(self._encoded.embeddings[name][self._queries[chunk]])
                queries[name] = own.repeat_interleave(samples, dim=0)
                there[name] = torch.from_numpy(here[chunk]).repeat_interleave(samples)
        table = torch.empty(len(chunk), len(vectors), dtype=torch.float64)
        target, step = self._encoded.embeddings[self._target], _block(self._encoded.embeddings[self._target].shape[1])
        with torch.inference_mode():
            for start in range(0, len(vectors), step):
                block = _double(target[self._place_of_vector[vectors[start : start + step]]])
                scores = self._objective.score(queries, block, target=self._target, present=there)
                if reference:
                    scores = log_mean_exp(scores.view(len(chunk), samples, -1), self._scale)
                table[:, start : start + step] = scores
        return table.numpy()


def _block(dim: int) -> int:
    """Candidates scored at once."""
    return max(1, WORK_NUMBERS // dim)


def _double(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


#: Rows compared at once where equal ones are looked for.
_COMPARED: Final = 4096


def _distinct(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows of a matrix show its distinct ones, compared by value, and for each row the number of its own."""
    rows = np.ascontiguousarray(vectors) + np.float32(0)  # -0.0 becomes 0.0, so equal values are equal bytes
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    order = np.argsort(as_bytes, kind="stable")
    new = np.ones(len(order), dtype=np.bool_)
    for start in range(1, len(order), _COMPARED):
        here = slice(start, start + _COMPARED)
        new[here] = as_bytes[order[here]] != as_bytes[order[start - 1 : start - 1 + len(order[here])]]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number
