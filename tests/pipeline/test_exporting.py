"""An exported model: loads without its cohort, embeds as the run does, carries no path, and has a card that says so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import symile_clin
from symile_clin import files
from symile_clin.cli import run
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import open_cohort
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.evaluation.embed import embed
from symile_clin.pipeline.exporting import export_run
from symile_clin.pipeline.runs import open_run
from symile_clin.pipeline.trained import open_trained
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from symile_clin.report.model_card import model_card
from tests.pipeline.tiny_cohort import NAMES, tiny_cohort


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporting")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cohort = tiny_cohort(folder)
        for name in NAMES:
            files.write_json(cohort.path / "state" / f"{name}.json", {"fitted on": name})
        train(
            preset="tiny.yaml", name="one", overrides=["training.epochs=2"], device="cpu", tracking_uri=None,
            progress=Quiet(),
        )  # fmt: skip
        export_run(progress=Quiet())
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_it_embeds_as_the_run_does(folder: Path) -> None:
    cohort = open_cohort(folder / "data" / "cohorts" / "tiny")
    trained = open_trained(open_run(Path("runs"), "one"), cohort, device="cpu")
    dataset = CohortDataset(cohort, trained.modalities, cohort.rows("val"))
    expected = embed(model=trained.model, dataset=dataset, batch_size=64, device="cpu").embeddings
    model = symile_clin.load("exports/one")
    arrays = {
        name: {key: cohort.array(name, key).take(dataset.rows) for key in modality.arrays}
        for name, modality in model.modalities.items()
    }
    found = model.embed(arrays)
    for name in NAMES:
        np.testing.assert_array_equal(found[name].numpy(), expected[name])
    queries = {name: one for name, one in found.items() if name != "green"}
    scores = model.score(queries, found["green"], target="green")
    for others in (found, {"blue": found["blue"]}, {**queries, "gren": found["green"]}, {}):
        with pytest.raises(ConfigError, match="Expected blue and red, from which green is to be found"):
            model.score(others, found["green"], target="green")
    with pytest.raises(ConfigError, match="no modality 'gren'"):
        model.score(queries, found["green"], target="gren")
    by_hand = torch.einsum("qd,qd,cd->qc", found["blue"], found["red"], found["green"])
    torch.testing.assert_close(scores, by_hand)


def test_it_needs_neither_cohort_nor_commands(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "exports" / "one", tmp_path / "one")
    code = (
        "import symile_clin, sys\n"
        "model = symile_clin.load('one')\n"
        "print(sorted(model.modalities), model.state['red'])\n"
        "assert 'click' not in sys.modules and 'mlflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['blue', 'green', 'red'] {'fitted on': 'red'}"


def test_no_path_of_this_machine_travels(folder: Path) -> None:
    for path in (folder / "exports" / "one").rglob("*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text()
            assert str(folder) not in text
            assert "data/cohorts" not in text


def test_files_are_named_with_their_digests(folder: Path) -> None:
    exported = folder / "exports" / "one"
    listed = json.loads((exported / "manifest.json").read_text())["files"]
    there = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert set(listed) == there - {"manifest.json"}
    assert all(listed[name]["sha256"] == files.sha256(exported / name) for name in listed)


def test_what_is_there_is_not_overwritten() -> None:
    with pytest.raises(ConfigError, match="is there already"):
        export_run(progress=Quiet())


def test_unknown_names_have_a_hint(folder: Path) -> None:
    model = symile_clin.load("exports/one")
    with pytest.raises(ConfigError, match=r"no modality 'gren'.*green"):
        model.embed({"gren": "x"})
    with pytest.raises(NotFoundError, match="no exported model"):
        symile_clin.load(folder)
    with pytest.raises(MismatchError, match="holds a run"):
        symile_clin.load(folder / "runs" / "one")
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        symile_clin.lode  # noqa: B018


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "state/red.json"])
def test_a_file_that_changed_on_its_way_is_noticed(tmp_path: Path, name: str) -> None:
    shutil.copytree("exports/one", tmp_path / "one")
    (tmp_path / "one" / "README.md").write_text("a card may be edited")
    symile_clin.load(tmp_path / "one")
    changed = bytearray((tmp_path / "one" / name).read_bytes())
    changed[-3] ^= 1
    (tmp_path / "one" / name).write_bytes(changed)
    with pytest.raises(MismatchError, match=f"{Path(name).name} is not the file that was exported"):
        symile_clin.load(tmp_path / "one")
    (tmp_path / "one" / name).unlink()
    with pytest.raises(MismatchError, match="is not the file that was exported"):
        symile_clin.load(tmp_path / "one")


def test_a_room_of_another_version_is_one_clear_error(tmp_path: Path) -> None:
    shutil.copytree("exports/one", tmp_path / "one")
    about = files.read_json(tmp_path / "one" / "model.json")
    about["modalities"]["red"]["room"] = "lab"
    files.write_json(tmp_path / "one" / "model.json", about)
    manifest = files.read_json(tmp_path / "one" / "manifest.json")
    files.write_json(tmp_path / "one" / "manifest.json", {**manifest, "files": files.listing(tmp_path / "one")})
    with pytest.raises(ConfigError, match=r"no room is called 'lab'. Did you mean 'labs'\?"):
        symile_clin.load(tmp_path / "one")


def test_a_model_is_not_exported_with_another_cohorts_state(folder: Path) -> None:
    manifest = folder / "data" / "cohorts" / "tiny" / "manifest.json"
    own = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(own), "hash": "2"}))
    try:
        with pytest.raises(MismatchError, match=r"no longer the cohort that run 'one' was trained on.*hash 1, not 2"):
            export_run(out=Path("rebuilt"), progress=Quiet())
    finally:
        manifest.write_text(own)
    assert not Path("rebuilt").exists()


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "exports" / "one", tmp_path / "one")
    about = json.loads((tmp_path / "one" / "model.json").read_text())
    about["config"]["model"]["dim"] = 8
    (tmp_path / "one" / "model.json").write_text(json.dumps(about))
    manifest = files.read_json(tmp_path / "one" / "manifest.json")
    manifest["files"] = files.listing(tmp_path / "one")
    files.write_json(tmp_path / "one" / "manifest.json", manifest)
    with pytest.raises(MismatchError, match="does not fit the network"):
        symile_clin.load(tmp_path / "one")


def test_the_command_says_how_to_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "one", "--out", "elsewhere"]) == 0
    assert 'symile_clin.load("elsewhere")' in capsys.readouterr().out
    assert run(["export", "one", "--out", "elsewhere"]) == 2
    assert run(["export", "two"]) == 2


def test_a_card_has_metrics_with_their_intervals_and_says_whose_data_it_is(folder: Path) -> None:
    prefix = "test/green/"
    metrics = {f"{prefix}recall_at_1_n": 40.0, f"{prefix}recall_at_1_n_subjects": 30.0}
    for name, value in (("recall_at_1", 0.5), ("gap/sex/recall_at_1", 0.2)):
        metrics |= {f"{prefix}{name}{part}": value + of for part, of in (("", 0), ("_ci_low", -0.1), ("_ci_high", 0.1))}
    metrics[f"{prefix}recall_at_1_chance"] = 0.1
    metrics[f"{prefix}candidates/demographics/recall_at_1"] = 0.23
    what = {"target": "green", "query": ["blue", "red"], "cohort": {"name": "real"}}

    def card(*, synthetic: bool) -> str:
        about = json.loads((folder / "exports" / "one" / "model.json").read_text())
        return model_card(
            name="one",
            settings=about["config"],
            modalities=about["modalities"],
            cohort={"name": "real", "hash": "f" * 64, "synthetic": synthetic, "splits": {"train": (40, 40)}},
            best={"epoch": 2, "metrics": {"val/loss": 1.0, "train/loss": 2.0}},
            evaluations={"test": (what, metrics)},
            files=["model.safetensors"],
        )

    real, made_up = card(synthetic=False), card(synthetic=True)
    assert "| recall_at_1 | 0.500 | [0.400, 0.600] | 0.100 |" in real
    assert "recall_at_1 0.230 on the same lists" in real
    assert "- sex: 0.200 [0.100, 0.300]" in real
    assert "Data Use Agreement" in real
    assert "Data Use Agreement" not in made_up
    assert "synthetic patients" in made_up
    assert "val/loss 1.000" in real
    assert "train/loss" not in real
