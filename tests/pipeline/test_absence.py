"""Cohorts whose samples lack modalities, the whole way: from a tree of files to retrieval and what each contributes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from symile_clin.data.store import Cohort, open_cohort
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.evaluation import evaluate
from symile_clin.pipeline.synthesis import synth
from symile_clin.pipeline.trained import Measured
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from symile_clin.schema import SPLITS, Split

#: Items that every synthetic draw has: a lab that no train sample has stops a build, and this tree is small.
SMALL = (
    "modalities.cxr.short_side=32", "modalities.cxr.long_side=40", "candidates.n=4", "candidates.matched=false",
    "modalities.labs.items=[50912, 50931, 51222, 51301]", "splits.train=0.5", "splits.val=0.2",
)  # fmt: skip
TINY = ("training.epochs=2", "training.batch_size=16", "model.dim=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic tree, and two cohorts of it: `any_two` modalities, and `all` of them."""
    folder = tmp_path_factory.mktemp("absence")
    tree = folder / "tree"
    synth(out=tree, patients=80, seed=0, workers=1, progress=Quiet())
    for name, require in (("any_two", "{at_least: 2}"), ("all", "[cxr, ecg, labs]")):
        build_cohort(
            spec="demo", mimic_iv=tree / "mimic-iv", mimic_cxr=tree / "mimic-cxr-jpg", mimic_ecg=tree / "mimic-iv-ecg",
            out=folder / name, overrides=(*SMALL, f"require={require}"), workers=1, tracking_uri=None,
            progress=Quiet(),
        )  # fmt: skip
    return folder


@pytest.fixture
def cohort(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cohort:
    """The cohort of any two modalities; runs go beside it."""
    monkeypatch.chdir(folder)
    return open_cohort(folder / "any_two")


def present(cohort: Cohort, split: str) -> dict[str, np.ndarray]:
    samples = cohort.samples[cohort.samples["split"] == split]
    return {name: samples[f"{name}_present"].to_numpy() for name in ("cxr", "ecg", "labs")}


def check(result: Measured, cohort: Cohort, how: str) -> None:
    """All finite, the absent counted, nobody asked for or about a target that is not there."""
    metrics = json.loads((result.directory / "metrics.json").read_text())
    assert metrics == result.metrics
    assert all(math.isfinite(value) for value in metrics.values())
    here = present(cohort, "test")
    queries = here["cxr"]
    assert metrics["test/cxr/recall_at_1_n"] == queries.sum()
    for name, counted in (("cxr", here["cxr"]), ("ecg", here["ecg"][queries]), ("labs", here["labs"][queries])):
        assert metrics.get(f"test/cxr/recall_at_1_n_without_{name}", 0) == (~counted).sum()
    assert f"{(~queries).sum()} samples lack cxr: neither queries nor candidates" in result.table
    assert f"queries lack ecg: {how}" in result.table
    for query in ("ecg", "labs", "ecg_shuffled+labs", "ecg+labs_shuffled"):
        assert f"test/cxr/candidates/{query}/recall_at_1_drop" in metrics


def test_the_cohort_lacks_what_it_should(cohort: Cohort) -> None:
    for name in SPLITS:
        here = present(cohort, name)
        assert (~here["cxr"]).sum() >= 2
        assert (np.sum(list(here.values()), axis=0) >= 2).all()
    assert (~present(cohort, "train")["ecg"]).any()
    assert (~present(cohort, "test")["ecg"][present(cohort, "test")["cxr"]]).any()
    with_target = cohort.samples["cxr_present"].to_numpy()
    held_out: tuple[Split, ...] = ("val", "test")
    for split in held_out:
        for others in (False, True):
            lists = cohort.candidates(split, other_subjects=others)
            assert set(lists.query_row) == set(cohort.rows(split)[with_target[cohort.rows(split)]])
            assert with_target[lists.candidate_rows].all()


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(("symile", "exhaustive"), id="exhaustive"),
        pytest.param(("symile", "permuted"), id="permuted", marks=pytest.mark.slow),
        pytest.param(("clip", None), id="clip"),
    ],
)
def test_training_on_it_learns_placeholders_and_scores_with_them(
    cohort: Cohort, objective: tuple[str, str | None]
) -> None:
    name, negatives = objective
    chosen = (f"objective.negatives={negatives}",) if negatives else ()
    run = train(
        preset="demo", cohort=cohort.path, objective=name if not chosen else None, name=f"{name}-{negatives}",
        overrides=(*TINY, *chosen), device="cpu", tracking_uri=None, progress=Quiet(),
    )  # fmt: skip
    assert all(math.isfinite(value) for value in run.metrics.values())
    history = [json.loads(line) for line in (run.run / "metrics.jsonl").read_text().splitlines()]
    assert len(history) == 2
    result = evaluate(run=run.run.name, bootstrap=10, device="cpu", tracking_uri=None, progress=Quiet())
    check(result, cohort, "learned placeholder")
    assert "not asked with: learned placeholder" in result.table
    with np.load(result.directory / "embeddings.npz") as stored:
        lacking = ~present(cohort, "test")["ecg"]
        assert len(np.unique(stored["ecg"][lacking], axis=0)) == 1
        assert len(np.unique(stored["ecg"][~lacking], axis=0)) > 1


def test_a_model_that_never_saw_absence_is_marginalised(folder: Path, cohort: Cohort) -> None:
    complete = open_cohort(folder / "all")
    run = train(
        preset="demo", cohort=complete.path, name="complete", overrides=TINY, device="cpu", tracking_uri=None,
        progress=Quiet(),
    )  # fmt: skip
    here = present(cohort, "train")
    samples = int((here["ecg"] & here["labs"]).sum())
    result = evaluate(run=run.run.name, cohort=cohort.path, device="cpu", tracking_uri=None, progress=Quiet())
    check(result, cohort, f"marginalised over {samples} training samples")
