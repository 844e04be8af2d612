"""Cohorts of features, from files to retrieval: the page of the docs, any number of modalities, and beside MIMIC's."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import symile_clin
from symile_clin.cli import cli
from symile_clin.data.store import open_cohort
from symile_clin.errors import CohortError, ConfigError, SymileClinError
from symile_clin.pipeline.cohorts import BuildResult, build_cohort
from symile_clin.pipeline.embeddings import embed
from symile_clin.pipeline.evaluation import evaluate
from symile_clin.pipeline.exporting import export_run
from symile_clin.pipeline.training import train
from symile_clin.pipeline.verification import verify_cohort
from symile_clin.progress import Quiet
from symile_clin.rng import stream
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
TINY = ("training.epochs=2", "training.batch_size=24", "model.dim=8", "objective.negatives=permuted")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(spec: str, **arguments: Any) -> BuildResult:
    return build_cohort(spec=spec, workers=1, tracking_uri=None, progress=Quiet(), **arguments)


def trained(name: str, *overrides: str, **arguments: Any) -> dict[str, float]:
    """Train, evaluate; the test split's metrics."""
    run = train(name=name, overrides=overrides, device="cpu", tracking_uri=None, progress=Quiet(), **arguments).run
    result = evaluate(run=str(run), tracking_uri=None, progress=Quiet())
    metrics: dict[str, float] = json.loads((result.directory / "metrics.json").read_text())
    return metrics


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert found is not None
    return found[1]


def page() -> str:
    """Make the page's files."""
    exec(compile(block("python"), str(PAGE), "exec"), {})
    Path("my_triples.yaml").write_text(block("yaml"))
    return "my_triples.yaml"


def test_symile_learns_the_pages_triples_and_clip_cannot() -> None:
    result = build(page())
    assert result.samples == {"train": 960, "val": 120, "test": 120}
    quick = ("training.epochs=4", "model.dim=64", "training.batch_size=96", "training.lr=0.002")
    recall = {
        objective: trained(objective, *quick, objective=objective)["test/image/recall_at_1"]
        for objective in ("symile", "clip")
    }
    assert recall["symile"] > 0.7
    assert recall["clip"] < 0.25


def pairs(k: int, count: int = 96) -> str:
    """A table of `count` samples and k files that share three numbers."""
    rng = stream(0, "features", k)
    shared = rng.standard_normal((count, 3))
    names = [f"m{number}" for number in range(k)]
    for name in names:
        np.save(f"{name}.npy", shared @ rng.standard_normal((3, 5)) + 0.1 * rng.standard_normal((count, 5)))
    split = ["train"] * (count - 32) + ["val"] * 16 + ["test"] * 16
    pd.DataFrame({"id": np.arange(count), "split": split}).to_csv("index.csv", index=False)
    spec = {
        "name": f"of_{k}",
        "index": {"event": "table", "path": "index.csv", "id": "id"},
        "modalities": {name: {"room": "features", "path": f"{name}.npy", "key": "index_row"} for name in names},
        "require": names,
        "splits": {"from": "index.csv"},
        "candidates": {"target": "m0", "n": 4},
        "preset": "features",
    }
    Path("spec.yaml").write_text(dump_yaml(spec))
    return "spec.yaml"


def test_an_export_names_no_folder_and_embeds_a_vector_as_the_cohorts(folder: Path) -> None:
    spec = pairs(2)
    home = folder / "home_of_somebody"
    home.mkdir()
    for name in ("m0", "m1"):
        Path(f"{name}.npy").rename(home / f"{name}.npy")
    np.save(home / "ids.npy", np.arange(96))
    of_files = {"room": "features", "key": "sample_id", "ids": str(home / "ids.npy")}
    changes = [
        f"modalities.{name}={json.dumps({**of_files, 'path': str(home / f'{name}.npy')})}" for name in ("m0", "m1")
    ]
    build(spec, overrides=changes)
    train(name="run", overrides=TINY, device="cpu", tracking_uri=None, progress=Quiet())
    export_run(progress=Quiet())
    for path in Path("exports/run").rglob("*"):
        assert path.is_dir() or b"home_of_somebody" not in path.read_bytes()
    np.save("one.npy", np.load(home / "m1.npy")[3])
    (home / "m1.npy").unlink()
    vector = symile_clin.load("exports/run").embed({"m1": "one.npy"})["m1"]
    embed(run="run", split="all", out=Path("all.parquet"), device="cpu", progress=Quiet())
    every = pd.read_parquet("all.parquet")
    row = open_cohort(Path("data/cohorts/of_2")).samples.query("sample_id == '3'").index[0]
    np.testing.assert_allclose(vector[0].numpy(), every.loc[row, "m1"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [2, 4])
def test_any_number_of_modalities(k: int) -> None:
    result = build(pairs(k))
    assert result.samples == {"train": 64, "val": 16, "test": 16}
    samples = open_cohort(result.path).samples
    assert samples.loc[samples["split"] == "val", "sample_id"].astype(int).tolist() == list(range(64, 80))
    metrics = trained("run", *TINY)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["test/m0/recall_at_1_n"] == 16
    Path("m0.npy").unlink()  # what training and evaluation need is in the cohort
    assert trained("again", *TINY)["test/m0/recall_at_1"] == metrics["test/m0/recall_at_1"]


def test_a_cohort_is_built_again_only_if_a_file_changed_and_verification_notices() -> None:
    spec = pairs(2)
    first = build(spec)
    assert build(spec).skipped
    assert verify_cohort(sources=True, progress=Quiet()).found == 0
    np.save("m1.npy", np.load("m1.npy") + 1.0)
    found = verify_cohort(sources=True, progress=Quiet())
    assert {one.where for one in found.findings} == {"state/m1.json", "m1"}  # other vectors, another scale
    second = build(spec)
    assert not second.skipped
    assert second.hash == first.hash  # standardised, a shift is no difference
    np.save("m1.npy", np.load("m1.npy")[::-1])
    assert build(spec).hash != first.hash


def test_an_equal_cohort_from_a_parquet_in_another_order() -> None:
    first = build(pairs(2))
    vectors = np.load("m1.npy")
    order = stream(0, "order").permutation(len(vectors))
    pd.DataFrame({"id": order, "v": [row.tolist() for row in vectors[order]]}).to_parquet("m1.parquet")
    second = build(
        "spec.yaml", out=Path("other"), overrides=["modalities.m1={room: features, path: m1.parquet, id: id}"]
    )
    for split in ("train", "val", "test"):
        rows = open_cohort(first.path).rows(split)
        arrays = [open_cohort(one.path).array("m1", "vector").take(rows) for one in (first, second)]
        # moments are summed in another order
        np.testing.assert_allclose(arrays[0], arrays[1], rtol=1e-5, atol=1e-6)


def test_features_beside_modalities_of_mimic_some_samples_without() -> None:
    tree = Tree(Path("tree"))
    hadms = [20_000_000 + number for number in range(36)]
    for number, hadm in enumerate(hadms):
        tree.complete(10_000_000 + number, hadm, ADMITTED + number * HOUR)
    roots = tree.write()
    rng = stream(0, "notes")
    pd.DataFrame({"hadm_id": hadms[::2], "v": [row.tolist() for row in rng.standard_normal((18, 4))]}).to_parquet(
        "notes.parquet"
    )
    notes = "modalities.notes={room: features, path: notes.parquet, key: hadm_id}"
    Path("tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, [notes])))
    result = build("tiny.yaml", **roots)
    samples = open_cohort(result.path).samples
    assert samples["notes_present"].sum() == 18
    assert open_cohort(result.path).manifest["counts"]["samples"] == 36
    metrics = trained("run", "training.epochs=1", "training.batch_size=12", "model.dim=8")
    assert math.isfinite(metrics["test/cxr/recall_at_1"])


@pytest.mark.parametrize(
    ("override", "kind", "match"),
    [
        ("modalities.m1={room: features, path: m1.npy}", ConfigError, "'key: index_row' if row i belongs"),
        ("modalities.m1={room: features, path: none.npy, key: index_row}", ConfigError, r"no file none\.npy"),
        ("modalities.m1={room: features, path: short.npy, key: index_row}", CohortError, "short.npy has 5 rows"),
        ("modalities.m1={room: feature, path: m1.npy}", ConfigError, "did you mean 'features'"),
        ("index={event: table, path: index.csv, id: none}", SymileClinError, "has no column none"),
    ],
)
def test_mistakes_are_one_line(override: str, kind: type[SymileClinError], match: str) -> None:
    spec = pairs(2)
    np.save("short.npy", np.ones((5, 2)))
    with pytest.raises(kind, match=match):
        build(spec, overrides=[override])


def test_the_command_line_says_which_files_it_took() -> None:
    done = CliRunner().invoke(cli, ["cohort", "build", pairs(2), "--no-tracking"])
    assert done.exit_code == 0, done.output
    assert "m1: 96 of 96 samples have one in m1.npy." in done.stderr
