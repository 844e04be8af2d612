"""Any modalities ask for any other: a model, an index and a cohort, opened once for many questions."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.data.store import Cohort
from symile_clin.errors import ConfigError, TrainingError
from symile_clin.evaluation.absence import StandIns, learned_placeholders, log_mean_exp, reference_rows
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.schema import SPLIT, SUBJECT_ID, Split
from symile_clin.search.index import Index
from symile_clin.search.nearest import Matrix, Scores, largest_products, largest_scores
from symile_clin.search.question import Answer, Query, Vector, check_names, check_question


class Searcher:
    """Answers questions from an index.

    Args:
        model: the run's, on `device`.
        objective: the one that it was trained with: scores are this one's, in float64.
        index: of all samples of `cohort` by that model.
        cohort: whose samples are candidates, and whose train split stands for what a model has no placeholder for.
        readers: the modalities as they were when the model was trained: files are read as its training samples were.
        states: by modality, what it fitted on train then.
    """

    def __init__(
        self,
        *,
        model: MultimodalEncoder,
        objective: Objective,
        index: Index,
        cohort: Cohort,
        readers: Mapping[str, Modality],
        states: Mapping[str, Mapping[str, Any]],
        device: torch.device | str = "cpu",
    ) -> None:
        self._model = model.eval()
        self._objective = copy.deepcopy(objective).to(device="cpu", dtype=torch.float64).eval()
        self._index, self._cohort, self._device = index, cohort, device
        self.readers, self._states = readers, states
        self._names = tuple(index.matrices)
        self._present = {name: index.present(name) for name in self._names}
        self._split = index.rows[SPLIT].to_numpy()
        self._stand_ins: dict[str, StandIns] = {}

    def read(self, files: Mapping[str, Path]) -> Query:
        """A query of files.

        Args:
            files: by modality; what each may be, its room says (`Modality.read_query`).

        Raises:
            ConfigError: no such modality, or one that cannot be read from a file.
            SourceError: a file that is missing, or that a cohort would refuse, too.
            TrainingError: an embedding is not finite.
        """
        check_names(self._names, files)
        start = time.perf_counter()
        values, embeddings = {}, {}
        for name in self._in_order(files):
            reader = self.readers[name]
            values[name] = reader.read_query(files[name], self._states[name])
            needed = {key: values[name][key] for key in (*reader.arrays, *reader.input_columns)}
            embeddings[name] = self._encode(name, {key: torch.tensor(one)[None] for key, one in needed.items()})
        return Query(embeddings, values, row=None, seconds=time.perf_counter() - start)

    def sample(self, row: int, names: Collection[str] | None = None, *, target: str | None = None) -> Query:
        """A query of one of the index's samples.

        Args:
            names: modalities to ask with, all of which it must have; None: all that it has but `target`.

        Raises:
            ConfigError: no such sample or modality, or it lacks one.
        """
        if not 0 <= row < len(self._split):
            raise ConfigError(f"there is no row {row}", expected=f"0 to {len(self._split) - 1}")
        check_names(self._names, names or ())
        has = [name for name in self._names if self._present[name][row]]
        lacking = [name for name in names or () if name not in has]
        if lacking:
            raise ConfigError(f"row {row} has no {lacking[0]}", expected=f"one of {', '.join(has)}")
        chosen = [name for name in has if name != target] if names is None else self._in_order(names)
        embeddings = {name: np.array(self._index.matrices[name][row]) for name in chosen}
        return Query(embeddings, {}, row=row, seconds=0.0)

    def search(
        self, query: Query, *, target: str, k: int, split: Split | None = None, exclude_own: bool = False
    ) -> Answer:
        """The k samples whose `target` fits the query best, exactly, by the score that the model was trained with.

        Args:
            k: at least 1; all candidates where there are fewer.
            split: only samples of this one are candidates; None takes all that have the target.
            exclude_own: leave out the query's own sample, and all others of its patient.

        Raises:
            ConfigError: no query, the target among the query, or no candidate.
            CohortError: nothing stands for what the query lacks.
            TrainingError: a score is not finite.
        """
        check_question(self._names, asked=query.embeddings, target=target, k=k)
        allowed = self._candidates(query, target, split=split, exclude_own=exclude_own)
        absent = tuple(name for name in self._names if name != target and name not in query.embeddings)
        stand_ins = self._stand_ins_for(target) if absent else None
        start = time.perf_counter()
        queries, present, marginal = self._as_asked(query, absent, stand_ins)
        matrix = self._index.matrices[target]
        vector = None
        if not marginal:
            with torch.inference_mode():
                vector = self._objective.query_vector(queries, target, present=present)
        if vector is None:
            scale = stand_ins.scale if marginal and stand_ins is not None else None

            def score(candidates: Matrix) -> Scores:
                return self._scores(queries, present, candidates, target=target, scale=scale)

            hits = largest_scores(score, matrix, k=k, allowed=allowed)
        else:
            norm = self._index.largest_norm(target)
            hits = largest_products(matrix, vector[0].numpy(), k=k, allowed=allowed, largest_norm=norm)
        return Answer(
            target=target,
            query=tuple(query.embeddings),
            absent=absent,
            method=stand_ins.method(absent) if stand_ins is not None else "",
            candidates=int(allowed.sum()),
            hits=hits,
            one_product=vector is not None,
            seconds=time.perf_counter() - start,
        )

    def _encode(self, name: str, arrays: Mapping[str, Tensor]) -> Vector:
        with torch.inference_mode():
            there = {key: tensor.to(self._device) for key, tensor in arrays.items()}
            encoded = self._model.encode(name, self.readers[name].to_input(there, None))
        vector: Vector = encoded[0].float().cpu().numpy()
        if not np.isfinite(vector).all():
            raise TrainingError(f"the embedding of the query's {name} is not finite")
        return vector

    def _in_order(self, names: Collection[str]) -> list[str]:
        return [name for name in self._names if name in names]

    def _candidates(self, query: Query, target: str, *, split: Split | None, exclude_own: bool) -> NDArray[np.bool_]:
        allowed = self._present[target].copy()
        if split is not None:
            allowed &= self._split == split
        if exclude_own:
            allowed &= ~self.of_same_patient(query)
        if not allowed.any():
            where = "the cohort" if split is None else f"its {split} split"
            others = " of another patient" if exclude_own else ""
            raise ConfigError(f"no sample of {where}{others} has {target}", remedy="Take another --split or --target")
        return allowed

    def of_same_patient(self, query: Query) -> NDArray[np.bool_]:
        """(samples,) which are the query's own patient's; none for files, of which nobody says whose they are."""
        same = np.zeros(len(self._split), dtype=np.bool_)
        if query.row is not None:
            subjects = self._cohort.samples[SUBJECT_ID]
            same |= (subjects == subjects.iloc[query.row]).fillna(False).to_numpy(dtype=np.bool_)
            same[query.row] = True
        return same

    def _stand_ins_for(self, target: str) -> StandIns:
        """As the evaluation of this target has them; the training samples' embeddings are the index's."""
        if target not in self._stand_ins:
            names = [name for name in self._names if name != target]
            placeholders = learned_placeholders(self._model, names)
            without = [name for name in names if name not in placeholders]
            rows = reference_rows(self._cohort, without) if without else np.empty(0, dtype=np.int64)
            self._stand_ins[target] = StandIns(
                placeholders=placeholders,
                reference={name: np.array(self._index.matrices[name][rows]) for name in without},
                scale=float(self._model.scale.detach()),
            )
        return self._stand_ins[target]

    def _as_asked(
        self, query: Query, absent: Sequence[str], stand_ins: StandIns | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
        """Queries (r, d) and presence (r,) by modality, and whether their scores are marginalised; otherwise r = 1."""
        reference = {} if stand_ins is None else {n: stand_ins.reference[n] for n in absent if n in stand_ins.reference}
        count = max(map(len, reference.values()), default=1)
        queries, present = {}, {}
        for name in self._in_order([*query.embeddings, *absent]):
            if name in query.embeddings:
                own = query.embeddings[name]
            else:
                assert stand_ins is not None
                own = reference[name] if name in reference else stand_ins.placeholders[name]
            queries[name] = torch.from_numpy(np.atleast_2d(own).astype(np.float64)).expand(count, -1)
            present[name] = torch.full((count,), name not in absent or name in reference)
        return queries, present, bool(reference)

    def _scores(
        self, queries: Mapping[str, Tensor], present: Mapping[str, Tensor], candidates: Matrix, *, target: str,
        scale: float | None,
    ) -> Scores:  # fmt: skip
        """(c,) scores of candidates; with a scale, log-mean-exp over the queries in units of the scores."""
        with torch.inference_mode():
            vectors = torch.from_numpy(candidates.astype(np.float64))
            scores = self._objective.score(queries, vectors, target=target, present=present)
            if scale is not None:
                scores = log_mean_exp(scores[None], scale)
        found: Scores = scores[0].numpy()
        return found
