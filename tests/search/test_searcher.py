"""A searcher's answers are the evaluation's scores, whoever asks for whatever; its index is the model's embeddings."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError, ConfigError, SourceError, TrainingError
from symile_clin.evaluation.absence import stand_ins, without
from symile_clin.evaluation.embed import embed, embed_batches
from symile_clin.evaluation.retrieval import score_lists
from symile_clin.modalities.base import Reason, Refusal, refused
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import build_objective
from symile_clin.rng import stream
from symile_clin.schema import SPLIT, SUBJECT_ID
from symile_clin.search.index import Index, identity, open_index, write_index
from symile_clin.search.results import described, results
from symile_clin.search.searcher import Searcher
from tests.evaluation.small_cohort import NAMES, Bits, Fixed, ReadsSynergy, modalities, small_cohort

LACKING = {"red": [5], "blue": [9, 11], "green": [130]}
#: What is asked with, and for: every direction, and every part of a query.
WAYS = [
    (query, target)
    for target in NAMES
    for query in ([n for n in NAMES if n != target], *([n] for n in NAMES if n != target))
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return small_cohort(tmp_path_factory.mktemp("search") / "cohort", admissions=60, train=80, lacking=LACKING)


def everyone(cohort: Cohort) -> CohortDataset:
    return CohortDataset(cohort, modalities(), np.arange(len(cohort.samples)))


def index_of(cohort: Cohort, model: Fixed, path: Path, *, batch_size: int = 32) -> Index:
    of = identity(cohort=cohort, names=NAMES, dim=4, objective="symile", run="run", checkpoint="0")
    batches = embed_batches(model=model, dataset=everyone(cohort), batch_size=batch_size, device="cpu")
    return write_index(path, cohort=cohort, of=of, batches=batches)


class Reads(Bits):
    """Bits that come from a text file of zeros and ones, too."""

    def read_query(self, path: Path, state: dict[str, Any]) -> dict[str, NDArray[Any]]:
        assert state == {"fitted": self.name}
        if not path.is_file():
            raise refused(path, Refusal(Reason.MISSING))
        return {"bits": np.array([int(bit) for bit in path.read_text()], dtype=np.uint8)}


def searcher(cohort: Cohort, model: Fixed, objective: Objective, index: Index) -> Searcher:
    return Searcher(
        model=cast(MultimodalEncoder, model),
        objective=objective,
        index=index,
        cohort=cohort,
        readers=cast(Any, {name: Reads(name) for name in NAMES}),
        states={name: {"fitted": name} for name in NAMES},
    )


def objective_called(name: str) -> Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_objective(name, {}, dim=4, modalities=NAMES).eval()


@pytest.mark.parametrize("placeholders", [(), ("red", "blue", "green")], ids=["marginalised", "placeholders"])
@pytest.mark.parametrize("name", ["symile", "clip", "gram", "gated_symile"])
def test_answers_are_the_evaluations_scores_in_order(
    cohort: Cohort, tmp_path: Path, name: str, placeholders: Collection[str]
) -> None:
    model, objective = ReadsSynergy(scale=0.7, placeholders=placeholders), objective_called(name)
    found = searcher(cohort, model, objective, index_of(cohort, model, tmp_path / "index"))
    encoded = embed(model=model, dataset=everyone(cohort), batch_size=7, device="cpu")
    for query, target in WAYS:
        others = [one for one in NAMES if one != target]
        candidates = np.flatnonzero(encoded.present[target]).astype(np.int64)
        row = 20
        absent = [one for one in others if one not in query]
        instead = stand_ins(
            model=cast(MultimodalEncoder, model), names=others, cohort=cohort, modalities=modalities(), batch_size=9,
            device="cpu",
        )  # fmt: skip
        # the query's own first, as lists have it
        order = np.concatenate([[row], candidates[candidates != row]])
        lists = CandidateLists(np.array([row]), order[None], np.zeros_like(order[None], dtype=np.bool_))
        taken = without(encoded, absent, instead)
        scores = score_lists(
            objective, taken.embeddings, np.arange(len(cohort.samples)), lists, target, present=taken.present,
            stand_ins=instead,
        )[0]  # fmt: skip
        expected = sorted(zip(np.round(-scores, 9), order, strict=True))[:12]
        answer = found.search(found.sample(row, query), target=target, k=12)
        assert answer.hits.rows.tolist() == [one for _, one in expected]
        np.testing.assert_allclose(-answer.hits.scores, [score for score, _ in expected], atol=2e-9)
        same_as_last = sum(score == expected[-1][0] for score in np.round(-scores, 9))
        assert answer.hits.level == same_as_last - sum(score == expected[-1][0] for score, _ in expected)
        assert answer.candidates == len(candidates)
        assert answer.absent == tuple(absent)
        assert answer.method == (instead.method(absent) if absent else "")
        known = name in ("symile", "clip") and not (absent and not placeholders)
        assert answer.one_product == known


def test_an_index_holds_the_models_embeddings_and_is_made_once(cohort: Cohort, tmp_path: Path) -> None:
    model = ReadsSynergy(placeholders=NAMES)
    index = index_of(cohort, model, tmp_path / "index", batch_size=13)
    encoded = embed(model=model, dataset=everyone(cohort), batch_size=500, device="cpu")
    for name in NAMES:
        assert isinstance(index.matrices[name], np.memmap)
        here = encoded.present[name]
        np.testing.assert_array_equal(index.matrices[name][here], encoded.embeddings[name][here])
        assert np.isnan(index.matrices[name][~here]).all(), "a placeholder is no embedding of a patient"
        np.testing.assert_array_equal(index.present(name), here)
        assert index.largest_norm(name) == np.linalg.norm(encoded.embeddings[name][here].astype(float), axis=1).max()
        assert index.matrices[name].ctypes.data % 64 == 0
    assert set(index.rows) == {"row", "split", *(f"{name}_present" for name in NAMES)}, "ids stay in the cohort"
    assert {file.stat().st_mode & 0o777 for file in index.path.iterdir()} == {0o600}
    of = identity(cohort=cohort, names=NAMES, dim=4, objective="symile", run="run", checkpoint="0")
    assert open_index(index.path, of) is not None
    assert open_index(index.path, {**of, "checkpoint": "1"}) is None
    assert open_index(tmp_path / "elsewhere", of) is None


def test_a_damaged_index_is_one_clear_error(cohort: Cohort, tmp_path: Path) -> None:
    index = index_of(cohort, ReadsSynergy(), tmp_path / "index")
    (index.path / "red.npy").write_bytes((index.path / "red.npy").read_bytes()[:-5])
    with pytest.raises(CohortError, match=r"red\.npy of the index cannot be read"):
        _ = index.matrices
    (index.path / "rows.parquet").write_bytes((index.path / "rows.parquet").read_bytes()[:100])
    with pytest.raises(CohortError, match=r"rows\.parquet of the index cannot be read: .*it is made again") as caught:
        _ = index.rows
    assert "\n" not in str(caught.value)
    (index.path / "rows.parquet").unlink()
    with pytest.raises(CohortError, match=r"rows\.parquet of the index cannot be read"):
        _ = index.rows


class Diverged(ReadsSynergy):
    """Gives NaN where there is an X."""

    def encode(self, name: str, bits: torch.Tensor) -> torch.Tensor:
        found = super().encode(name, bits)
        return torch.full_like(found, torch.nan) if name == "red" else found


def test_nothing_is_left_of_an_index_of_what_is_not_finite(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="embeddings of 'red' are not finite"):
        index_of(cohort, Diverged(), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_file_asks_as_its_sample_does(cohort: Cohort, tmp_path: Path) -> None:
    model, objective = ReadsSynergy(), objective_called("symile")
    found = searcher(cohort, model, objective, index_of(cohort, model, tmp_path / "index"))
    row = 20
    paths = {}
    for name in ("green", "red"):
        bits = cohort.array(name, "bits").take(np.array([row]))[0]
        paths[name] = tmp_path / name
        paths[name].write_text("".join(map(str, bits)))
    asked, own = found.read(paths), found.sample(row, target="blue")
    assert list(asked.embeddings) == ["red", "green"], "in the cohort's order"
    for name, vector in own.embeddings.items():
        np.testing.assert_array_equal(asked.embeddings[name], vector)
    first, second = (found.search(query, target="blue", k=7) for query in (asked, own))
    np.testing.assert_array_equal(first.hits.rows, second.hits.rows)
    np.testing.assert_array_equal(first.hits.scores, second.hits.scores)
    assert not found.of_same_patient(asked).any()
    with pytest.raises(SourceError, match="absent: file missing"):
        found.read({"red": tmp_path / "absent"})


def test_only_whom_one_asks_for_is_found(cohort: Cohort, tmp_path: Path) -> None:
    model, objective = ReadsSynergy(), objective_called("symile")
    found = searcher(cohort, model, objective, index_of(cohort, model, tmp_path / "index"))
    split, subjects = cohort.samples[SPLIT].to_numpy(), cohort.samples[SUBJECT_ID].to_numpy()
    query = found.sample(20, target="blue")
    in_test = found.search(query, target="blue", k=1000, split="test")
    assert set(in_test.hits.rows) == set(np.flatnonzero(split == "test")) - set(LACKING["blue"])
    others = found.search(query, target="blue", k=1000, exclude_own=True)
    assert len(others.hits.rows) == others.candidates == len(split) - 2 - 2
    assert not (subjects[others.hits.rows] == subjects[20]).any()
    alone = found.sample(5, target="blue")
    assert list(alone.embeddings) == ["green"], "what the sample lacks is not asked with"


def test_what_cannot_be_asked_is_one_clear_error(cohort: Cohort, tmp_path: Path) -> None:
    model = ReadsSynergy()
    found = searcher(cohort, model, objective_called("symile"), index_of(cohort, model, tmp_path / "index"))
    query = found.sample(20, ["red"])

    def fails(words: str, **arguments: Any) -> None:
        with pytest.raises(ConfigError, match=words):
            found.search(**{"query": query, "target": "blue", "k": 3, **arguments})

    fails("k is 0", k=0)
    fails("red is asked for, and asked with, too.*--target blue or green", target="red")
    fails("no modality 'blu'. Did you mean 'blue'", target="blu")
    fails("no sample of its val split has blue", split="val")
    with pytest.raises(ConfigError, match=r"there is nothing to ask with\. Expected red or green"):
        found.search(found.sample(5, [], target="blue"), target="blue", k=3)
    for row, names, words in (
        (-1, None, "no row -1"),
        (140, None, "Expected 0 to 139"),
        (5, ["red"], "row 5 has no red. Expected one of blue, green"),
        (5, ["rad"], "Did you mean 'red'"),
    ):
        with pytest.raises(ConfigError, match=words):
            found.sample(row, names)


def test_the_table_says_whose_hits_are_and_ids_only_if_asked(cohort: Cohort, tmp_path: Path) -> None:
    model, objective = ReadsSynergy(), objective_called("symile")
    found = searcher(cohort, model, objective, index_of(cohort, model, tmp_path / "index"))
    query = found.sample(20, ["red"])
    answer = found.search(query, target="blue", k=1000)

    class Target(Bits):
        def groups(self, samples: Any) -> dict[str, Any]:
            return {"parity": (samples["row"] % 2).map({0: "even"})}

    target = cast(Any, Target("blue"))
    table = results(answer, query, searcher=found, cohort=cohort, target=target, with_ids=False)
    assert list(table) == ["rank", "row", "split", "score", "own", "parity"]
    by_row = table.set_index("row")
    assert by_row.loc[[20, 21, 22], "own"].tolist() == ["the query itself", "same patient", ""]
    assert by_row.loc[[20, 21], "parity"].tolist() == ["even", ""]
    assert (table["score"].diff().dropna() <= 0).all()
    lines = described(answer, query, k=1000)
    assert lines[0] == "red of row 20 asked for blue: the best 138 of 138."
    assert lines[1] == "green not asked with: marginalised over 79 training samples."
    assert "There are no 1,000 candidates: all are shown." in lines
    assert "Equal scores are in the order of their rows." in lines


def test_a_model_without_training_samples_to_stand_in_says_so(tmp_path: Path) -> None:
    lonely = small_cohort(tmp_path / "cohort", admissions=20, train=0)
    model = ReadsSynergy()
    found = searcher(lonely, model, objective_called("clip"), index_of(lonely, model, tmp_path / "index"))
    assert len(found.search(found.sample(3, target="blue"), target="blue", k=2).hits.rows) == 2
    with pytest.raises(CohortError, match="no training sample"):
        found.search(found.sample(3, ["red"]), target="blue", k=2)


def test_order_survives_a_random_model(cohort: Cohort, tmp_path: Path) -> None:
    class Random(ReadsSynergy):
        """Distinct embeddings, but for one sample's copy."""

        def forward(self, inputs: Any, present: Any) -> dict[str, torch.Tensor]:  # noqa: ARG002  all are there
            drawn = {name: torch.from_numpy(stream(0, name).standard_normal((140, 4))).float() for name in inputs}
            drawn["blue"][77] = drawn["blue"][33]
            return drawn

    model = Random()
    found = searcher(
        cohort, model, objective_called("gram"), index_of(cohort, model, tmp_path / "index", batch_size=140)
    )
    hits = found.search(found.sample(20, target="blue"), target="blue", k=138).hits
    places = hits.rows.tolist()
    assert places.index(77) == places.index(33) + 1
    assert hits.scores[places.index(77)] == hits.scores[places.index(33)]
