"""Run directories: names are reserved once, unfinished ones are not taken, and a checkpoint must fit its cohort."""

from pathlib import Path
from typing import Any

import pytest

from symile_clin import files
from symile_clin.data.store import Cohort
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.runs import check_fit, new_run_directory, open_run, signature
from symile_clin.schema import CONFIG
from symile_clin.strict import find_preset, load_yaml


def _finish(path: Path, **content: Any) -> None:
    files.write_text(path / CONFIG, "seed: 0\n")
    files.write_manifest(path, stage="run", content=content)


def _new(root: Path, name: str | None, *, default: str) -> Path:
    """A run directory with something in it."""
    with new_run_directory(root, name, default=default) as (path, folder):
        (folder / "begun").touch()
    return path


def test_names_are_numbered_and_reserved(tmp_path: Path) -> None:
    assert [_new(tmp_path, None, default="demo-symile").name for _ in range(3)] == [
        "demo-symile-1",
        "demo-symile-2",
        "demo-symile-3",
    ]
    _new(tmp_path, "mine", default="x")
    with pytest.raises(ConfigError, match="a run called 'mine' already"):
        _new(tmp_path, "mine", default="x")


def test_a_name_is_taken_from_the_start_and_seen_at_the_end(tmp_path: Path) -> None:
    with new_run_directory(tmp_path, "mine", default="x") as (path, folder):
        (folder / "1").touch()
        assert not path.exists()
        with pytest.raises(ConfigError, match="a run called 'mine' already"):
            _new(tmp_path, "mine", default="x")
        with new_run_directory(tmp_path, None, default="mine") as (other, _):
            assert other.name == "mine-1"
            assert _new(tmp_path, None, default="mine").name == "mine-2"
    assert [file.name for file in path.iterdir()] == ["1"]


def test_a_name_without_content_is_free(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert _new(tmp_path, "mine", default="x") == tmp_path / "mine"
    assert not list(tmp_path.glob(".*.building"))


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "/tmp/x", ""])
def test_a_name_cannot_leave_the_runs_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a plain name"):
        _new(tmp_path / "runs", name, default="x")
    assert list(tmp_path.iterdir()) == []


def test_the_run_that_finished_last_is_the_default_and_unfinished_ones_are_not_taken(tmp_path: Path) -> None:
    for name in ("one", "two", "unfinished"):
        path = _new(tmp_path, name, default="x")
        if name != "unfinished":
            _finish(path)
    assert open_run(tmp_path, None).name == "two"
    open_run(tmp_path, "one").touch()
    assert open_run(tmp_path, None).name == "one"
    with pytest.raises(NotFoundError, match="run 'unfinished' did not finish"):
        open_run(tmp_path, "unfinished")
    with pytest.raises(NotFoundError, match="Did you mean 'two'"):
        open_run(tmp_path, "twoo")


def test_another_directory_is_no_run(tmp_path: Path) -> None:
    files.write_manifest(tmp_path / "cohort", stage="cohort", content={})
    with pytest.raises(MismatchError, match="holds a cohort"):
        open_run(tmp_path, "cohort")


def _cohort(tmp_path: Path, **changes: Any) -> Cohort:
    spec = load_yaml(find_preset("cohorts", "demo"))
    spec["modalities"] = {name: {"room": name, **values} for name, values in spec["modalities"].items()}
    for key, value in changes.items():
        modality, option = key.split("__")
        spec["modalities"][modality][option] = value
    return Cohort(tmp_path, {"name": "other", "spec": spec})


def test_a_checkpoint_fits_only_cohorts_with_its_inputs(tmp_path: Path) -> None:
    trained = modalities_of(_cohort(tmp_path).spec)
    _finish(tmp_path / "run", signature=signature(trained))
    run = open_run(tmp_path, "run")
    same = _cohort(tmp_path, ecg__window={"start": "-12h"})
    check_fit(run, same, modalities_of(same.spec))
    imported = _cohort(tmp_path, cxr__stored="released", ecg__stored="released")
    check_fit(run, imported, modalities_of(imported.spec))  # arrays are stored otherwise, inputs are the same
    for changed, named in (
        (_cohort(tmp_path, labs__items=[50912, 50971]), "labs differs in its columns"),
        (_cohort(tmp_path, cxr__short_side=96, cxr__long_side=120), "cxr differs in its input shape"),
    ):
        with pytest.raises(MismatchError, match=named):
            check_fit(run, changed, modalities_of(changed.spec))
    fewer = {name: modality for name, modality in trained.items() if name != "ecg"}
    with pytest.raises(MismatchError, match="was trained on cxr, ecg, labs but cohort 'other' has cxr, labs"):
        check_fit(run, same, fewer)
