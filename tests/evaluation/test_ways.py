"""Every way of asking, against loops over queries and candidates that score one pair at a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from symile_clin.data.candidates import NO_ROW, CandidateLists
from symile_clin.errors import MismatchError, TrainingError
from symile_clin.evaluation import scoring, ways
from symile_clin.evaluation.absence import StandIns
from symile_clin.evaluation.demographics import DEMOGRAPHICS, attributes
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.ranked import PROTOCOLS, ListProtocol, Ranked
from symile_clin.evaluation.retrieval import Ranks, chance
from symile_clin.evaluation.ways import Ways, every_way, query_subsets
from symile_clin.modalities.base import Modality
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import OBJECTIVES, build_objective
from symile_clin.schema import AGE, GENDER, ROW, SUBJECT_ID

NAMES = ("blue", "red", "green")
N, D = 21, 4
ROOMS: Mapping[str, Modality] = {
    name: cast(Modality, SimpleNamespace(match_columns=("shade",) if name == "blue" else ())) for name in NAMES
}


class Problem:
    """A split whose samples lack things, repeat embeddings and share patients, with lists drawn for blue."""

    def __init__(self, seed: int, *, placeholders: Sequence[str] = (), complete: bool = False) -> None:
        rng = np.random.default_rng(seed)
        few = {name: rng.normal(size=(8, D)).astype(np.float32) for name in NAMES}
        self.embeddings = {name: few[name][rng.integers(0, 8, N)] for name in NAMES}
        self.present = {name: np.ones(N, dtype=np.bool_) if complete else rng.random(N) < 0.8 for name in NAMES}
        learned = {name: rng.normal(size=D).astype(np.float32) for name in placeholders}
        for name in NAMES:
            self.embeddings[name][~self.present[name]] = learned.get(name, np.float32(np.nan))
        self.samples = pd.DataFrame(
            {
                ROW: 4 + 3 * np.arange(N),
                SUBJECT_ID: 1000 - rng.integers(0, 11, N),
                GENDER: rng.choice(np.array(["F", "M", None], dtype=object), N),
                AGE: rng.choice([41, 49, 50], N),
                "shade": rng.choice(["light", "dark"], N),
            }
        )
        self.stand_ins = {
            target: StandIns(
                {name: learned[name] for name in NAMES if name != target and name in learned},
                {name: few[name][:4] * 0.9 for name in NAMES if name != target and name not in learned},
                0.7,
            )
            for target in NAMES
        }
        rows = self.samples[ROW].to_numpy()
        having = rows[self.present["blue"]]
        self.lists: dict[ListProtocol, CandidateLists] = {}
        for protocol, share in (("candidates", 1.0), ("candidates_other_subjects", 1.0), ("matched", 0.5)):
            queries = having[rng.random(len(having)) <= share]
            drawn = [np.r_[row, rng.permutation(having[having != row])[:6]] for row in queries]
            length = rng.integers(2, 8, len(queries))
            candidates = np.where(np.arange(7) < length[:, None], np.array(drawn), NO_ROW)
            self.lists[cast(ListProtocol, protocol)] = CandidateLists(queries, candidates, candidates < 0)

    def asked(self, objective: Objective) -> Ways:
        return every_way(
            objective=objective,
            encoded=Embedded(self.embeddings, self.present),
            samples=self.samples,
            lists=self.lists,
            modalities=ROOMS,
            stand_ins=self.stand_ins,
        )

    def candidates(self, target: str, protocol: str) -> dict[int, list[int]]:
        """By query, the places of its candidates, its own first; from the words of the protocol."""
        having = [i for i in range(N) if self.present[target][i]]
        patient = self.samples[SUBJECT_ID].tolist()
        if protocol == "gallery":
            return {i: [i, *(j for j in having if j != i)] for i in having}
        if protocol == "gallery_other_subjects":
            return {i: [i, *(j for j in having if patient[j] != patient[i])] for i in having}
        place = {int(row): i for i, row in enumerate(self.samples[ROW])}
        lists = self.lists[cast(ListProtocol, protocol)]
        found = {}
        for row, candidates in zip(lists.query_row, lists.candidate_rows, strict=True):
            if place[int(row)] in having:
                entries = [place[int(one)] for one in candidates if one != NO_ROW]
                found[place[int(row)]] = [one for one in entries if one in having]
        return found

    def score(self, objective: Objective, query: Sequence[str], target: str, i: int, j: int) -> float:
        """One pair, one training sample at a time; what the query lacks or is not asked with is absent."""
        of = self.stand_ins[target]
        names = [name for name in NAMES if name != target]
        here = {name: name in query and bool(self.present[name][i]) for name in names}
        candidate = torch.from_numpy(self.embeddings[target][[j]]).double()

        def with_reference(k: int) -> float:
            vectors, there = {}, {}
            for name in names:
                if here[name]:
                    vectors[name], there[name] = self.embeddings[name][i], True
                elif name in of.placeholders:
                    vectors[name], there[name] = of.placeholders[name], False
                else:
                    vectors[name], there[name] = of.reference[name][k], True
            queries = {name: torch.from_numpy(one[None]).double() for name, one in vectors.items()}
            told = {name: torch.tensor([one]) for name, one in there.items()}
            with torch.no_grad():
                return float(objective.score(queries, candidate, target=target, present=told))

        if all(here[name] or name in of.placeholders for name in names):
            return with_reference(0)
        return float(np.log(np.mean([np.exp(of.scale * with_reference(k)) for k in range(4)])) / of.scale)


def expected(problem: Problem, objective: Objective, target: str, protocol: str, query: tuple[str, ...]) -> Any:
    """By query row: (n_greater, n_tied, n_candidates)."""
    judge = copy.deepcopy(objective).double().eval()
    rows, vectors = problem.samples[ROW].tolist(), problem.embeddings[target]
    seen = [GENDER, "band", *(["shade"] if target == "blue" else [])]
    people = problem.samples.assign(band=problem.samples[AGE] // 10)[seen].values.tolist()
    found = {}
    for i, candidates in problem.candidates(target, protocol).items():
        if query == (DEMOGRAPHICS,):
            tied = sum(people[j] == people[i] for j in candidates[1:])
            found[rows[i]] = (0, tied, len(candidates))
            continue
        greater = tied = 0
        own = problem.score(judge, query, target, i, i)
        for j in candidates[1:]:
            score = own if (vectors[j] == vectors[i]).all() else problem.score(judge, query, target, i, j)
            greater += score > own
            tied += score == own
        found[rows[i]] = (greater, tied, len(candidates))
    return found


def as_mapping(one: Ranked) -> Any:
    columns = (one.query_row, one.ranks.n_greater, one.ranks.n_tied, one.n_candidates)
    return {row: tuple(rest) for row, *rest in zip(*(column.tolist() for column in columns), strict=True)}


@pytest.mark.parametrize(
    ("objective", "placeholders", "complete"),
    [
        (Symile(), (), False),
        (Symile(), ("red", "blue"), False),
        (PairwiseClip(), (), False),
        (PairwiseClip(), ("red", "green", "blue"), False),
        (Symile(), (), True),
    ],
)
def test_every_way_equals_the_loops(objective: Objective, placeholders: Sequence[str], complete: bool) -> None:
    problem = Problem(1, placeholders=placeholders, complete=complete)
    found = problem.asked(objective)
    assert found.notes == []
    every = [
        (target, protocol, tuple(sorted(query)))
        for target in NAMES
        for query in [*query_subsets(NAMES, target), (DEMOGRAPHICS,)]
        for protocol in PROTOCOLS
    ]
    assert [(one.target, one.protocol, one.query) for one in found.ranked] == every
    patient = dict(zip(problem.samples[ROW], problem.samples[SUBJECT_ID], strict=True))
    for one in found.ranked:
        assert as_mapping(one) == expected(problem, objective, one.target, one.protocol, one.query)
        assert (np.diff(one.query_row) > 0).all()
        pairs = {(int(number), patient[row]) for number, row in zip(one.patient, one.query_row, strict=True)}
        assert len(pairs) == len({number for number, _ in pairs}) == len({subject for _, subject in pairs})
    tied = sum(int(one.ranks.n_tied.sum()) for one in found.ranked if one.query != (DEMOGRAPHICS,))
    assert tied > 50  # the problem has what it is to test
    lengths = {int(length) for one in found.ranked if one.protocol == "candidates" for length in one.n_candidates}
    assert len(lengths) > 3


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_no_objective_needs_a_branch_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    problem = Problem(2)
    objective = build_objective(name, {}, dim=D, modalities=NAMES)
    found = problem.asked(objective)
    for protocol, query in (("candidates", ("green", "red")), ("gallery_other_subjects", ("green",))):
        one = found.one("blue", cast(ListProtocol, protocol), query)
        assert one is not None
        assert as_mapping(one) == expected(problem, objective, "blue", protocol, query)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Problem(3).asked(Symile())
    for numbers in (1, 300):
        monkeypatch.setattr(scoring, "TABLE_NUMBERS", numbers)
        monkeypatch.setattr(scoring, "WORK_NUMBERS", numbers)
        for one, other in zip(whole.ranked, Problem(3).asked(Symile()).ranked, strict=True):
            assert as_mapping(one) == as_mapping(other)


def test_beyond_the_budget_lists_are_scored_and_the_gallery_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Problem(4, placeholders=("red",), complete=True).asked(Symile())
    monkeypatch.setattr(ways, "MARGINALISED_BUDGET", 100)
    found = Problem(4, placeholders=("red",), complete=True).asked(Symile())
    left_out = {("blue", ("red",)), ("red", ("blue",)), ("red", ("green",)), ("green", ("red",))}
    kept = [
        one for one in whole.ranked if not (one.protocol.startswith("gallery") and (one.target, one.query) in left_out)
    ]
    assert [as_mapping(one) for one in found.ranked] == [as_mapping(one) for one in kept]
    assert len(found.notes) == len(left_out)
    assert found.notes[0].startswith("blue from red: the whole split is left out, for marginalising")
    assert found.one("blue", "gallery", ["red"]) is None


def test_a_collapsed_model_is_at_chance_in_every_way() -> None:
    problem = Problem(5, complete=True)
    for name in NAMES:
        problem.embeddings[name][:] = 0.1
    for one in problem.asked(Symile()).ranked:
        if one.query != (DEMOGRAPHICS,):
            level: Ranks = chance(one.n_candidates)
            np.testing.assert_array_equal(one.ranks.n_tied, level.n_tied)
            np.testing.assert_array_equal(one.ranks.n_greater, level.n_greater)


def test_the_baseline_by_hand() -> None:
    """Two women of one age band and view, a man, and a woman of another band: 1/2, 1/2, 1, 1."""
    problem = Problem(6, complete=True)
    people: dict[str, Any] = {SUBJECT_ID: [1, 2, 3, 4], GENDER: ["F", "F", "M", "F"], AGE: [41, 49, 41, 50]}
    four = problem.samples.iloc[:4].assign(**people, shade="light")

    def recalls(samples: pd.DataFrame) -> list[float]:
        found = every_way(
            objective=Symile(),
            encoded=Embedded(
                {name: array[:4] for name, array in problem.embeddings.items()},
                {name: here[:4] for name, here in problem.present.items()},
            ),
            samples=samples,
            lists={},
            modalities=ROOMS,
            stand_ins=problem.stand_ins,
        )
        one = found.one("blue", "gallery", [DEMOGRAPHICS])
        assert one is not None
        recall: list[float] = one.ranks.recall_at(1).tolist()
        return recall

    assert attributes(four, ["shade"]) == (GENDER, "age_band", "shade")
    assert recalls(four) == [1 / 2, 1 / 2, 1, 1]
    fewer = four.drop(columns="shade").assign(**{AGE: np.nan})
    assert attributes(fewer, ["shade"]) == (GENDER,)
    assert recalls(fewer) == [1 / 3, 1 / 3, 1, 1 / 3]
    nothing = fewer.drop(columns=[GENDER])
    assert attributes(nothing, ["shade"]) == ()
    assert recalls(nothing) == [1 / 4] * 4


def test_what_cannot_be_scored_is_an_error() -> None:
    problem = Problem(7, complete=True)
    problem.embeddings["red"][3] = np.inf
    with pytest.raises(TrainingError, match="not finite"):
        problem.asked(Symile())
    problem = Problem(7)
    problem.stand_ins["blue"] = StandIns({}, {}, 1.0)
    with pytest.raises(MismatchError, match="nothing stands for it"):
        problem.asked(Symile())


def test_lists_of_which_nothing_is_left_are_named() -> None:
    problem = Problem(8, complete=True)
    only = CandidateLists(*(array[:1] for array in vars(problem.lists["matched"]).values()))
    problem.present["red"][problem.samples[ROW] == only.query_row[0]] = False
    problem.embeddings["red"][~problem.present["red"]] = np.nan
    problem.lists["matched"] = only
    found = problem.asked(Symile())
    assert found.notes == ["red: no query has a list (matched)"]
    assert found.one("red", "matched", ["blue", "green"]) is None
