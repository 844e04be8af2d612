"""Nothing that is read is run: each evil file stands where the program reads, and would run where nobody looks."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import symile_clin
from symile_clin import files
from symile_clin.cli import run
from symile_clin.cohort.spec import IndexSpec, load_spec
from symile_clin.config import load_config
from symile_clin.data.candidates import CandidateLists, read_candidates, write_candidates
from symile_clin.data.release_samples import read_small
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.encoders.lightning import read_lightning
from symile_clin.encoders.weights import load_start, read_state
from symile_clin.errors import ConfigError, MismatchError, SymileClinError
from symile_clin.evaluation.page import Banner, Section, render_page
from symile_clin.modalities.features.query_file import read_vector
from symile_clin.modalities.features.vectors import open_vectors, read_keys
from symile_clin.modalities.registry import ROOMS, modalities_of
from symile_clin.objectives.registry import build_objective
from symile_clin.pipeline.exported import ExportedModel
from symile_clin.pipeline.exporting import STAGE
from symile_clin.pipeline.models import build_model
from symile_clin.pipeline.published import read_weights
from symile_clin.report.compose import read_embedded
from symile_clin.search.index import Index
from symile_clin.strict import apply_overrides, dump_yaml, load_yaml
from symile_clin.training.checkpoint import (
    TRAINING_STATE,
    WEIGHTS,
    load_checkpoint,
    load_weights,
    read_training_state,
    save_checkpoint,
    save_weights,
)
from symile_clin.training.state import TrainingState
from tests.faults import evil
from tests.pipeline.tiny_cohort import ITEMS, NAMES, PRESET, tiny_cohort

Maker = Callable[[Path, Path], Path]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that no test may make but to show that another would have."""
    return tmp_path / "canary"


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return tiny_cohort(tmp_path)


def _modalities() -> Any:
    return modalities_of({"modalities": {name: {"room": "labs", "items": ITEMS} for name in NAMES}})


def _small() -> dict[str, Any]:
    model = nn.Linear(2, 2)
    objective = build_objective("clip", {}, dim=2, modalities=["a", "b"])
    return {"model": model, "objective": objective}


def _export(folder: Path) -> Path:
    """What `symile-clin export` writes of the tiny cohort's model."""
    (folder / "preset.yaml").write_text(dump_yaml(PRESET))
    modalities = _modalities()
    config = load_config(str(folder / "preset.yaml"), overrides=[], objective=None, modalities=modalities)
    model, objective = build_model(config, modalities, pretrained=False)
    out = folder / "exported"
    save_weights(out, model=model, objective=objective)
    specs = {name: {"room": "labs", "items": ITEMS} for name in NAMES}
    about = {"run": "x", "config": config.model_dump(mode="json"), "modalities": specs, "order": list(NAMES)}
    files.write_json(out / "model.json", about)
    for name in NAMES:
        files.write_json(out / "state" / f"{name}.json", {})
    _list(out)
    return out


def _list(exported: Path) -> None:
    listed = files.listing(exported, leave_out=["manifest.json"])
    files.write_manifest(exported, stage=STAGE, content={"files": listed})


def _read_array(path: Path) -> object:
    return open_cohort(path.parents[2]).array(path.parent.name, path.stem)


def _load_exported(path: Path) -> object:
    _list(path.parent)
    return symile_clin.load(path.parent)


def _index(path: Path) -> object:
    return Index(path.parent, {"samples": 4, "dim": 2, "modalities": [path.stem]}).matrices


def _init(path: Path) -> object:
    return read_weights(path, _modalities())


#: What is written where, and what reads it there.
READERS: dict[str, tuple[Maker, str, Callable[[Path], object]]] = {
    "training state": (evil.pickled_tensors, f"last/{TRAINING_STATE}", lambda path: read_training_state(path.parent)),
    "training state, bare": (evil.pickled, f"last/{TRAINING_STATE}", lambda path: read_training_state(path.parent)),
    "--checkpoint": (evil.lightning, "released.ckpt", read_lightning),
    "--checkpoint, bare": (evil.pickled, "released.ckpt", read_lightning),
    "--init-from .ckpt": (evil.lightning, "start.ckpt", _init),
    "--init-from .safetensors": (evil.pickled, "start.safetensors", _init),
    "--init-from .safetensors of torch": (evil.pickled_tensors, "start.safetensors", _init),
    "weights: .pt": (evil.pickled_tensors, "resnet.pt", lambda path: load_start(nn.Linear(2, 2), str(path))),
    "weights: .pth": (evil.pickled, "resnet.pth", lambda path: load_start(nn.Linear(2, 2), str(path))),
    "weights: archive": (evil.archived, "resnet.pt", read_state),
    "a run's weights": (evil.pickled_tensors, f"best/{WEIGHTS}", lambda path: load_weights(path.parent, **_small())),
    "vectors": (evil.objects, "vectors.npy", lambda path: open_vectors(path, key=None, column=None)),
    "vectors, bare": (evil.pickled, "vectors.npy", lambda path: open_vectors(path, key=None, column=None)),
    "vectors, archived": (evil.archived, "vectors.npy", lambda path: open_vectors(path, key=None, column=None)),
    "keys": (evil.objects, "keys.npy", lambda path: read_keys(path, "id")),
    "keys, archived": (evil.archived, "keys.npy", lambda path: read_keys(path, "id")),
    "a query": (evil.objects, "query.npy", lambda path: read_vector(path, width=1)),
    "a query, bare": (evil.pickled, "query.npy", lambda path: read_vector(path, width=1)),
    "an index": (evil.objects, "blue.npy", _index),
    "an index, archived": (evil.archived, "blue.npy", _index),
    "a release": (evil.objects, "data_npy/test/hadm_id_test.npy",
                  lambda path: read_small(path.parents[2], "test", "hadm_id")),
    "a release, archived": (evil.archived, "data_npy/test/hadm_id_test.npy",
                            lambda path: read_small(path.parents[2], "test", "hadm_id")),
}  # fmt: skip


@pytest.mark.parametrize("place", READERS)
def test_no_file_is_unpickled(tmp_path: Path, canary: Path, place: str) -> None:
    write, name, read = READERS[place]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, canary)
    with pytest.raises(SymileClinError):
        read(path)
    assert not canary.exists()
    evil.load_carelessly(path)
    assert canary.exists(), "the file is not evil: it proves nothing"


@pytest.mark.parametrize("name", ["percentile.npy", "observed.npy"])
@pytest.mark.parametrize("write", [evil.objects, evil.pickled, evil.archived])
def test_no_array_of_a_cohort_is_unpickled(cohort: Cohort, canary: Path, write: Maker, name: str) -> None:
    path = write(cohort.path / "arrays" / "red" / name, canary)
    with pytest.raises(SymileClinError):
        _read_array(path)
    assert not canary.exists()
    evil.load_carelessly(path)
    assert canary.exists()


@pytest.mark.parametrize("write", [evil.pickled, evil.pickled_tensors, evil.archived])
def test_no_exported_model_is_unpickled(tmp_path: Path, canary: Path, write: Maker) -> None:
    exported = _export(tmp_path)
    assert isinstance(symile_clin.load(exported), ExportedModel)
    path = write(exported / WEIGHTS, canary)
    with pytest.raises(MismatchError, match="cannot be read as weights"):
        _load_exported(path)
    assert not canary.exists()
    evil.load_carelessly(path)
    assert canary.exists()


@pytest.mark.parametrize("write", [evil.archived, evil.pickled, evil.objects])
def test_no_embeddings_are_unpickled_or_unpacked(cohort: Cohort, canary: Path, tmp_path: Path, write: Maker) -> None:
    folder = tmp_path / "eval"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    path = write(folder / "embeddings.npz", canary)
    with pytest.raises(MismatchError, match="embeddings"):
        read_embedded(folder, cohort, _modalities(), again="eval")
    assert not canary.exists()
    assert not list(tmp_path.rglob("escaped*"))
    evil.load_carelessly(path)
    assert canary.exists()


def test_parquet_metadata_and_strange_types_are_data(tmp_path: Path, canary: Path) -> None:
    """Pandas' metadata names types, and Arrow's extension types carry bytes of their own: nobody reads either."""
    path = tmp_path / "lists.parquet"
    lists = CandidateLists(np.array([0]), np.array([[0, 1]]), np.array([[True, False]]))
    write_candidates(path, lists)
    table = pq.read_table(path)
    pickle = evil.pickled(tmp_path / "pickle", canary).read_bytes()
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle}
    fields = [field.with_metadata(extension) for field in table.schema]
    evil_pandas = {b"pandas": b'{"columns": [{"pandas_type": "object", "numpy_type": "object", "metadata": null}]}'}
    pq.write_table(pa.table(table.columns, schema=pa.schema(fields, metadata=evil_pandas)), path)
    np.testing.assert_array_equal(read_candidates(path).candidate_rows, lists.candidate_rows)
    assert not canary.exists()


SETTINGS: dict[str, Callable[[Path], object]] = {
    "a spec": lambda path: load_spec(str(path), [], ROOMS),
    "a preset": lambda path: load_config(str(path), overrides=[], objective=None, modalities=_modalities()),
    "a run's config": load_yaml,
    "--set": lambda path: apply_overrides({}, [f"x={path.read_text()}"]),
}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("reader", SETTINGS)
def test_no_tag_of_yaml_is_called(tmp_path: Path, canary: Path, reader: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(evil.tagged(canary))
    with pytest.raises(ConfigError):
        SETTINGS[reader](path)
    assert not canary.exists()
    evil.load_carelessly(path)
    assert canary.exists()


@pytest.mark.parametrize("reader", SETTINGS)
@pytest.mark.parametrize(
    "text", [BOMB, "a: " + "[" * 49_000, "? " * 40_000, "- " * 40_000, "{a: " * 30_000, "a: 0x" + "f" * 90_000],
    ids=["billion laughs", "brackets", "questions", "dashes", "braces", "digits"],
)  # fmt: skip
def test_bombs_of_yaml_go_off_nowhere(tmp_path: Path, reader: str, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ConfigError):
        SETTINGS[reader](path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 100 << 10  # kB
    assert after.ru_utime - before.ru_utime < 20  # of this process alone, on any machine; it took minutes


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "\0", "{", "[]", "1", "null", '"x"'])
def test_manifests_are_json_of_a_sane_form(cohort: Cohort, text: str) -> None:
    (cohort.path / "manifest.json").write_text(text)
    with pytest.raises(MismatchError):
        open_cohort(cohort.path)


def _poisoned(**changed: Any) -> dict[str, Any]:
    return {**vars(TrainingState(step=3, history=[{"val/loss": 1.0}], best_epoch=1)), **changed}


@pytest.mark.parametrize(
    "values",
    [
        _poisoned(step=-1), _poisoned(step=10**30), _poisoned(step=True), _poisoned(step=1.0), _poisoned(step="3"),
        _poisoned(best_epoch=9), _poisoned(best_epoch=-1), _poisoned(loss=float("nan")), _poisoned(loss=None),
        _poisoned(seconds=float("inf")), _poisoned(history={}), _poisoned(history=[1]), _poisoned(history=[{1: 1.0}]),
        _poisoned(history=[{"val/loss": "x"}]), _poisoned(extra=1), {"step": 3}, {}, [1],
    ],
    ids=repr,
)  # fmt: skip
def test_a_poisoned_training_state_is_refused(tmp_path: Path, values: Any) -> None:
    content = {**values, "optimizer": {}} if isinstance(values, dict) else values
    torch.save(content, tmp_path / TRAINING_STATE)
    with pytest.raises(MismatchError):
        read_training_state(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda moments: moments["state"].clear() or moments["param_groups"].clear(),
        lambda moments: moments["state"][0].update(exp_avg=torch.zeros(7)),
        lambda moments: moments["state"][0].update(exp_avg=torch.full((2, 2), torch.nan)),
        lambda moments: moments["state"][0].update(exp_avg_sq=torch.full((2, 2), torch.inf)),
        lambda moments: moments["state"][0].update(exp_avg="x"),
        lambda moments: moments["param_groups"][0].update(params=[0]),
    ],
)
def test_poisoned_moments_are_refused(tmp_path: Path, spoil: Callable[[Any], object]) -> None:
    small = _small()
    optimizer = torch.optim.AdamW(small["model"].parameters())
    small["model"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "last", **small, optimizer=optimizer, state=TrainingState(step=1))
    load_checkpoint(tmp_path / "last", **small, optimizer=optimizer)
    content = torch.load(tmp_path / "last" / TRAINING_STATE, weights_only=True)
    spoil(content["optimizer"])
    torch.save(content, tmp_path / "last" / TRAINING_STATE)
    fresh = torch.optim.AdamW(small["model"].parameters())
    with pytest.raises(MismatchError):
        load_checkpoint(tmp_path / "last", **small, optimizer=fresh)


def test_arrays_that_do_not_fit_an_exported_model_are_said_in_words(tmp_path: Path) -> None:
    model = symile_clin.load(_export(tmp_path))
    good: dict[str, Any] = {"percentile": np.zeros((2, 3), np.float32), "observed": np.ones((2, 3), np.bool_)}
    assert model.embed({"red": good})["red"].shape == (2, 16)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"percentile": np.zeros((2, 4), np.float32)}, r"float32\[2, 4\]\. Expected float32\[b, 3\]"),
        ({"percentile": np.zeros(3, np.float32)}, r"float32\[3\]\. Expected float32\[b, 3\]"),
        ({"percentile": np.float32(1)}, r"float32\[\]\. Expected float32\[b, 3\]"),
        ({"percentile": np.zeros((2, 3), object)}, r"object\[2, 3\]"),
        ({"percentile": np.full((2, 3), "x")}, r"<U1\[2, 3\]"),
        ({"percentile": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"observed": np.ones((3, 3), np.bool_)}, r"bool\[3, 3\]\. Expected bool\[2, 3\]"),
    ]
    for change, words in changes:
        with pytest.raises(MismatchError, match=words):
            model.embed({"red": {**good, **change}})
    with pytest.raises(MismatchError, match="no array 'observed' of red"):
        model.embed({"red": {"percentile": good["percentile"]}})


@pytest.mark.parametrize("change", [{"order": ["../../x"]}, {"order": [1]}, {"order": "red"}, {"modalities": []},
                                    {"config": 1}, {"order": ["gone"]}, {"config": {}}])  # fmt: skip
def test_a_model_that_describes_itself_wrongly_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    exported = _export(tmp_path)
    about = files.read_json(exported / "model.json")
    files.write_json(exported / "model.json", {**about, **change})
    with pytest.raises(SymileClinError):
        _load_exported(exported / WEIGHTS)


def test_a_column_of_sql_is_a_column(tmp_path: Path) -> None:
    """Names of columns and files are quoted by the engine's own compiler; none is pasted into SQL."""
    from symile_clin.cohort.named_table import read_named

    name = "id\"); DROP TABLE admissions; COPY (SELECT 1) TO 'owned.csv'; --"
    path = tmp_path / "x'; DROP TABLE y; --.parquet"
    pd.DataFrame({name: ["a'--", 'b"'], "subject_id": [1, 2], "t": pd.to_datetime(["2150-01-01"] * 2)}).to_parquet(path)
    read = read_named(IndexSpec(event="table", path=str(path), id=name, time="t"))
    assert read["sample_id"].tolist() == ["a'--", 'b"']
    assert not list(tmp_path.glob("owned*"))


def test_text_of_files_is_no_template() -> None:
    """Names of runs, cohorts and groups are values of a template, never its text; tests/evaluation has markup."""
    text = "{{ 7 * 7 }}{% include '/etc/passwd' %}{{ ''.__class__.__mro__ }}"
    page = render_page(text, [Section(text, "one", [])], subtitle=text, banner=Banner(text, "warning"))
    assert page.count("{{ 7 * 7 }}{% include") >= 4
    assert "49" not in page.split("<body")[1]


def test_text_of_files_does_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text('"\\e[2J\\e]0;owned\\a\\r": 1\n')
    assert run(["cohort", "build", str(path), "--mimic-iv", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "u001b[2J" in said
    assert not set(said) & {"\x1b", "\a", "\r"}
    assert len(said.splitlines()) == 1
