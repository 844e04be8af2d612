"""One evaluation from a cohort on disk to its files, with models whose results are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from torch import nn

from symile_clin import files
from symile_clin.data.store import Cohort
from symile_clin.errors import TrainingError
from symile_clin.evaluation.evaluate import evaluate_split
from symile_clin.evaluation.found import Found
from symile_clin.evaluation.gallery import choose_examples, gallery
from symile_clin.evaluation.ranked import read_ranked
from symile_clin.evaluation.retrieval import rank
from symile_clin.model import MultimodalEncoder
from symile_clin.progress import Quiet
from tests.evaluation.small_cohort import Collapsed, ReadsSynergy, modalities, small_cohort
from tests.evaluation.test_retrieval import Product

RECALL = "test/blue/recall_at_1"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return small_cohort(tmp_path_factory.mktemp("cohort"))


def evaluated(
    cohort: Cohort,
    directory: Path,
    model: nn.Module,
    *,
    bootstrap: int | None = 10,
    trained_on: Collection[int] | None = (),
) -> Found:
    return evaluate_split(
        run="a run",
        model=cast(MultimodalEncoder, model),
        objective=Product("l2"),
        cohort=cohort,
        modalities=modalities(),
        split="test",
        target="blue",
        bootstrap=bootstrap,
        min_group=20,
        seed=0,
        batch_size=32,
        device="cpu",
        directory=directory,
        progress=Quiet(),
        trained_on=trained_on,
    )


@pytest.fixture(scope="module")
def evaluation(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return evaluated(cohort, tmp_path_factory.mktemp("run") / "eval" / "test", ReadsSynergy())


def test_a_model_that_reads_the_planting_reaches_the_ceiling(evaluation: Found) -> None:
    metrics = evaluation.metrics
    assert metrics[f"{RECALL}_ceiling_pairs"] < 0.4 < 0.6 < metrics[f"{RECALL}_ceiling"]
    assert metrics[RECALL] == pytest.approx(metrics[f"{RECALL}_ceiling"], abs=0.02)
    assert metrics[f"{RECALL}_ci_low"] < metrics[RECALL] < metrics[f"{RECALL}_ci_high"]


def test_a_collapsed_model_scores_exactly_chance(cohort: Cohort, tmp_path: Path) -> None:
    metrics = evaluated(cohort, tmp_path / "eval", Collapsed()).metrics
    for name in ("recall_at_1", "recall_at_5", "mrr", "mean_rank", "median_rank"):
        assert metrics[f"test/blue/{name}"] == pytest.approx(metrics[f"test/blue/{name}_chance"], abs=1e-12)
    assert metrics[RECALL] == pytest.approx(0.1)
    assert metrics[f"{RECALL}_ci_low"] == pytest.approx(0.1)


def test_the_names_are_the_fixed_ones(evaluation: Found) -> None:
    suffixes = ("", "_ci_low", "_ci_high", "_chance", "_n", "_n_subjects", "_bootstrap_mean", "_bootstrap_se")
    assert {f"{RECALL}{suffix}" for suffix in suffixes} <= set(evaluation.metrics)
    elsewhere = "test/blue/candidates_other_subjects/green+red/recall_at_1"
    assert not [name for name in evaluation.metrics if "_n_without_" in name]
    assert {elsewhere, f"{elsewhere}_ci_low", f"{elsewhere}_ci_high", f"{elsewhere}_chance"} <= set(evaluation.metrics)
    assert evaluation.metrics[f"{RECALL}_n"] == 120
    assert evaluation.metrics[f"{RECALL}_n_subjects"] == 60


def test_planted_synergy_is_lost_without_either_query(evaluation: Found) -> None:
    """What is left is one shared bit, which a perfect model of so little reads as well."""
    metrics = evaluation.metrics
    for left in ("red", "green"):
        name = f"test/blue/candidates/{left}/recall_at_1"
        assert metrics[f"{name}_drop_ci_low"] > 0.3
        assert metrics[name] + metrics[f"{name}_drop"] == pytest.approx(metrics[RECALL])
        assert metrics[f"{name}_ceiling"] < 0.3
        assert metrics[name] == pytest.approx(metrics[f"{name}_ceiling"], abs=0.06)
        assert metrics[f"{name}_marginalised_over"] == 256
    for shuffled in ("green_shuffled+red", "green+red_shuffled"):
        assert metrics[f"test/blue/candidates/{shuffled}/recall_at_1_drop_ci_low"] > 0.3
    assert "marginalised over 256 training samples" in evaluation.table


def test_samples_that_lack_something_are_counted_and_scored(tmp_path: Path) -> None:
    lacking = {"blue": [3, 40, 41], "red": [0, 7, 130], "green": [9, 10, 11, 12, 41]}
    cohort = small_cohort(tmp_path / "cohort", lacking=lacking)
    for placeholders, how in (((), "marginalised over 256"), (("red", "green"), "learned placeholder")):
        found = evaluated(cohort, tmp_path / "eval", ReadsSynergy(placeholders=placeholders))
        counts = {name: value for name, value in found.metrics.items() if "_n_without_" in name}
        assert counts == {
            f"{RECALL}_n_without_{name}": count for name, count in (("blue", 3), ("red", 2), ("green", 4))
        }
        assert found.metrics[f"{RECALL}_n"] == 117
        assert all(np.isfinite(value) for value in found.metrics.values())
        assert 0.4 < found.metrics[f"{RECALL}_ceiling"] < 0.7
        assert found.metrics[RECALL] == pytest.approx(found.metrics[f"{RECALL}_ceiling"], abs=0.05)
        for words in ("3 samples lack blue: neither", f"2 queries lack red: {how}", f"4 queries lack green: {how}"):
            assert words in found.table
        for one in read_ranked(tmp_path / "eval" / "ranks.parquet"):
            assert not set(one.query_row) & set(lacking[one.target])


def test_without_bootstrap_only_the_papers_figures_are_missing(
    evaluation: Found, cohort: Cohort, tmp_path: Path
) -> None:
    without = evaluated(cohort, tmp_path / "eval", ReadsSynergy(), bootstrap=None).metrics
    full = evaluation.metrics
    assert set(full) - set(without) == {f"{RECALL}_bootstrap_mean", f"{RECALL}_bootstrap_se"}
    assert all(full[name] == value for name, value in without.items())


def test_files_hold_the_same_and_no_ids(evaluation: Found, cohort: Cohort) -> None:
    folder = evaluation.artifacts[0].path.parent
    assert {artifact.path.name for artifact in evaluation.artifacts} == {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == evaluation.metrics
    for one in read_ranked(folder / "ranks.parquet"):
        default = one.protocol == "candidates" and len(one.query) == 2
        name = f"test/{one.target}/" + ("" if default else f"{one.protocol}/{'+'.join(one.query)}/") + "recall_at_1"
        assert one.ranks.recall_at(1).mean() == pytest.approx(evaluation.metrics[name])
    with np.load(folder / "embeddings.npz") as stored:
        assert set(stored) == {"row", "blue", "red", "green"}
        assert stored["blue"].dtype == np.float32
        np.testing.assert_array_equal(stored["row"], cohort.rows("test"))


def test_the_csv_and_metrics_json_say_the_same(evaluation: Found) -> None:
    folder = evaluation.artifacts[0].path.parent
    lines = pd.read_csv(folder / "retrieval.csv", keep_default_na=False, na_values={"ci_low": "", "chance": ""})
    seen = set()
    for line in lines.to_dict(orient="records"):
        default = line["protocol"] == "candidates" and "+" in line["query"] and "shuffled" not in line["query"]
        where = "" if default else f"{line['protocol']}/{line['query']}/"
        prefix = f"test/{line['target']}/{where}{line['metric']}"
        assert evaluation.metrics[prefix] == pytest.approx(line["value"], rel=1e-12)
        for suffix in ("ci_low", "chance"):
            assert (f"{prefix}_{suffix}" in evaluation.metrics) == pd.notna(line[suffix])
        seen.add(prefix)
    assert len(seen) == len(lines)
    of_metrics = {name for name in evaluation.metrics if name.rsplit("/", 1)[1] in set(lines["metric"])}
    assert seen == {name for name in of_metrics if "/gap/" not in name}
    methods = lines.drop_duplicates(["target", "query"]).set_index(["target", "query"])["method"]
    assert methods["blue", "demographics"] == "sees gender, age_band, blue_view"
    assert methods["red", "demographics"] == "sees gender, age_band"
    assert methods["blue", "red"] == "marginalised over 256 training samples"
    assert methods["blue", "green+red"] == ""
    assert methods["blue", "green_shuffled+red"] == "mean of 10 shuffles"


def test_what_was_evaluated_is_written_beside(evaluation: Found) -> None:
    folder = evaluation.artifacts[0].path.parent
    found = json.loads((folder / "evaluation.json").read_text())
    assert found.pop("sha256") == {name: files.sha256(folder / name) for name in ("metrics.json", "ranks.parquet")}
    assert found == {
        "run": "a run", "objective": "product", "cohort": {"name": "small", "hash": "0"}, "split": "test",
        "target": "blue", "query": ["green", "red"], "seed": 0, "synthetic": True, "min_group": 20,
        "method": "marginalised over 256 training samples",
    }  # fmt: skip


def test_on_matched_lists_demographics_are_exactly_chance_and_elsewhere_far_above(evaluation: Found) -> None:
    metrics = evaluation.metrics
    for target in ("blue", "red", "green"):  # lists matched for blue are matched in what is seen for red, too
        prefix = f"test/{target}/matched/demographics/"
        assert metrics[f"{prefix}recall_at_1"] == pytest.approx(0.1, abs=1e-12)
        assert metrics[f"{prefix}recall_at_1_chance"] == pytest.approx(0.1, abs=1e-12)
        assert metrics[f"{prefix}mrr"] == pytest.approx(metrics[f"{prefix}mrr_chance"], abs=1e-12)
        assert metrics[f"test/{target}/candidates/demographics/recall_at_1"] > 0.25
    assert metrics["test/blue/candidates/demographics/recall_at_1_ci_low"] > 0.35


def test_the_tracker_gets_few_names(evaluation: Found) -> None:
    assert len(evaluation.tracked) < 250 < len(evaluation.metrics)
    assert set(evaluation.tracked.items()) <= set(evaluation.metrics.items())
    for name in (RECALL, f"{RECALL}_bca_low", "test/blue/mrr", "test/blue/gallery/red/recall_at_1"):
        assert name in evaluation.tracked


def test_what_a_cohort_cannot_answer_is_left_out_and_said(tmp_path: Path) -> None:
    """No training sample has blue: red and green cannot be asked for without it, blue can be asked for."""
    cohort = small_cohort(tmp_path / "cohort", train=20, lacking={"blue": range(120, 140)})
    (cohort.path / "candidates" / "test_matched.parquet").unlink()
    found = evaluated(cohort, tmp_path / "eval", ReadsSynergy())
    assert "red from blue + green: left out, no training sample of cohort small has blue and green" in found.table
    assert {name.split("/")[1] for name in found.metrics} == {"blue"}
    assert "matched lists are left out: the cohort has none" in found.table
    assert not [name for name in found.metrics if "/matched/" in name]


def test_what_shows_patients_is_marked_and_private(evaluation: Found) -> None:
    marked = {artifact.path.name: artifact.patient_level for artifact in evaluation.artifacts}
    assert {name for name, level in marked.items() if level} == {"ranks.parquet", "embeddings.npz", "gallery.png"}
    for artifact in evaluation.artifacts:
        assert artifact.patient_level <= (artifact.path.stat().st_mode & 0o077 == 0)


def test_figures_are_drawn_and_equal_when_drawn_again(evaluation: Found, cohort: Cohort, tmp_path: Path) -> None:
    again = evaluated(cohort, tmp_path / "eval", ReadsSynergy())
    for first, second in zip(evaluation.artifacts, again.artifacts, strict=True):
        assert first.path.read_bytes() == second.path.read_bytes() or first.path.suffix == ".parquet"
        if first.path.suffix == ".png":
            assert imread(first.path)[:, :, :3].std() > 0.02


def test_the_table_says_what_a_reader_needs(evaluation: Found) -> None:
    for words in ("blue retrieved from red + green", "120 queries of 60 patients", "95 % interval", "0.100", "pairs"):
        assert words in evaluation.table


def test_diverged_weights_leave_the_old_results_alone(cohort: Cohort, tmp_path: Path) -> None:
    class Diverged(Collapsed):
        def forward(self, inputs, present):  # type: ignore[no-untyped-def]
            return {name: tensor * float("nan") for name, tensor in super().forward(inputs, present).items()}

    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "metrics.json").write_bytes(b"before")
    with pytest.raises(TrainingError, match="not finite"):
        evaluated(cohort, tmp_path / "eval", Diverged())
    assert (tmp_path / "eval" / "metrics.json").read_bytes() == b"before"


def test_the_gallery_does_not_put_the_truth_first_among_equals(cohort: Cohort) -> None:
    lists = cohort.candidates("test")
    scores = np.zeros(lists.candidate_rows.shape)
    examples = choose_examples(
        cohort=cohort,
        modalities=modalities(),
        lists=lists,
        scores=scores,
        ranks=rank(scores),
        target="blue",
        count=100,
        rng=np.random.default_rng(0),
    )
    first = [example.top[0].is_true for example in examples]
    assert 0.01 < np.mean(first) < 0.25
    assert {example.place for example in examples} == {"ranked 1 of 10, level with 9"}
    assert all(sum(found.is_true for found in example.top) <= 1 for example in examples)


def test_the_gallery_says_where_a_query_modality_is_absent(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "cohort", lacking={"red": list(range(60))})
    lists = cohort.candidates("test")
    scores = np.zeros(lists.candidate_rows.shape)
    examples = choose_examples(
        cohort=cohort,
        modalities=modalities(),
        lists=lists,
        scores=scores,
        ranks=rank(scores),
        target="blue",
        count=120,
        rng=np.random.default_rng(0),
    )
    assert sum(example.query["red"] is None for example in examples) == 60
    assert all(example.query["green"] is not None for example in examples)
    absent = next(number for number, example in enumerate(examples) if example.query["red"] is None)
    gallery(tmp_path / "gallery.png", examples=examples[absent : absent + 3], target="blue")
    assert imread(tmp_path / "gallery.png")[:, :, :3].std() > 0.02


def test_groups_of_patients_are_written_with_small_ones_withheld(evaluation: Found) -> None:
    folder = evaluation.artifacts[0].path.parent
    table = pd.read_csv(folder / "subgroups.csv")
    assert list(table["grouping"].unique()) == ["sex", "age band", "blue: view"]
    shown = table[table["value"].notna()]
    assert (shown["n_subjects"] >= 20).all()
    assert "not told by this cohort: race, admission type, years of care" in evaluation.table
    gaps = {name for name in evaluation.metrics if "/gap/" in name and name.endswith("recall_at_1")}
    assert gaps == {f"test/blue/gap/{key}/recall_at_1" for key in ("gender", "age_band", "blue_view")}
    assert gaps <= set(evaluation.tracked)


def test_queries_of_patients_that_trained_the_model_are_counted(
    cohort: Cohort, evaluation: Found, tmp_path: Path
) -> None:
    name = f"{RECALL}_n_trained_on"
    assert name not in evaluation.metrics
    test = cohort.samples.iloc[cohort.rows("test")]
    patients = test["subject_id"].unique()[:5]
    found = evaluated(cohort, tmp_path / "seen", Collapsed(), bootstrap=None, trained_on=set(patients))
    assert found.metrics[name] == test["subject_id"].isin(patients).sum() > 0
    assert found.tracked[name] == found.metrics[name]
    assert f"{found.metrics[name]:.0f} of 120 queries are of patients that the model was trained on" in found.table
    unknown = evaluated(cohort, tmp_path / "unknown", Collapsed(), bootstrap=None, trained_on=None)
    assert name not in unknown.metrics
    assert "is not known: the cohort it had is gone" in unknown.table
