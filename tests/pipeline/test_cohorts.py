"""`cohort build` and `cohort describe` on small trees: whole directories, equal hashes, one line for every failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from symile_clin import files
from symile_clin.cohort import workers
from symile_clin.data.store import open_cohort
from symile_clin.errors import BusyError, CohortError, ConfigError, SourceError, SymileClinError
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.cohorts import BuildResult, build_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree, jpeg

Build = Callable[..., BuildResult]
ADMISSIONS = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 admissions of 40 patients that qualify, two that do not."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(ADMISSIONS):
        tree.complete(10_000_000 + number * 2 // 3, 20_000_000 + number, ADMITTED + number % 3 * 400 * HOUR)
    tree.admission(10_000_999, 20_000_998)
    tree.admission(10_000_999, 20_000_999, ADMITTED + 400 * HOUR)
    tree.xray(10_000_999, 50_000_999, ADMITTED + 430 * HOUR, content=jpeg()[:-9])
    tree.ecg(10_000_999, 40_000_999, ADMITTED + 400 * HOUR)
    tree.lab(10_000_999, ADMITTED + 400 * HOUR)
    tree.write()
    (tree.root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    return tree.root


@pytest.fixture
def build(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build from `source` in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, **arguments: Any) -> BuildResult:
        roots = {name: source / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
        given = {"spec": str(source / "tiny.yaml"), "workers": 1, "progress": Quiet(), **roots, **arguments}
        return build_cohort(overrides=overrides, tracking_uri=None, **given)

    return call


def test_a_cohort_directory_is_complete_and_opens(build: Build) -> None:
    result = build()
    assert result.path == Path("data/cohorts/tiny")
    found = sorted(str(path.relative_to(result.path)) for path in result.path.rglob("*") if path.is_file())
    assert found == [
        "arrays/cxr/image.npy", "arrays/ecg/signal.npy", "arrays/labs/observed.npy", "arrays/labs/percentile.npy",
        "attrition.csv", "attrition.parquet", "candidates/test.parquet", "candidates/test_matched.parquet",
        "candidates/test_other_subjects.parquet", "candidates/val.parquet", "candidates/val_matched.parquet",
        "candidates/val_other_subjects.parquet", "events.csv", "inputs.parquet", "manifest.json", "quarantine.parquet",
        "samples.parquet", "state/cxr.json", "state/ecg.json", "state/labs.json", "ties.parquet",
    ]  # fmt: skip
    cohort = open_cohort(result.path)
    samples = cohort.samples
    assert samples["row"].tolist() == list(range(ADMISSIONS))
    assert samples["hadm_id"].tolist() == sorted(samples["hadm_id"])
    assert not cohort.synthetic
    assert cohort.truth is None
    assert {split: len(cohort.rows(split)) for split in ("train", "val", "test")} == result.samples
    for name, modality in modalities_of(cohort.spec).items():
        assert set(modality.columns) < set(samples.columns)
        for array, spec in modality.arrays.items():
            taken = cohort.array(name, array).take(samples["row"].to_numpy()[::-1])
            assert taken.shape == (ADMISSIONS, *spec.shape)
            assert taken.dtype == spec.dtype
    assert "60 samples of 40 patients" in result.text()
    json.dumps(result.record())


def test_every_index_event_that_left_is_in_the_patient_level_book(build: Build) -> None:
    path = build().path
    left = pd.read_parquet(path / "attrition.parquet")
    assert left.columns.tolist() == ["sample_id", "subject_id", "step", "reason"]
    assert left["sample_id"].tolist() == ["20000998", "20000999"]
    table = pd.read_csv(path / "attrition.csv", keep_default_na=False).iloc[1:-1]
    counted = left.groupby(["step", "reason"]).size()
    assert {(row.step, row.reason): row.samples for row in table.itertuples() if row.samples} == counted.to_dict()
    assert (path / "attrition.parquet").stat().st_mode & 0o077 == 0


def test_arrays_are_in_the_order_of_the_rows(build: Build, source: Path) -> None:
    """Each ECG is the one its row names, after a file before it was refused."""
    cohort = open_cohort(build().path)
    signals = cohort.array("ecg", "signal").take(np.arange(ADMISSIONS))
    for row, path in zip(cohort.samples["row"], cohort.samples["ecg_path"], strict=True):
        raw = np.fromfile(source / "mimic_ecg" / f"{path}.dat", dtype="<i2").reshape(5000, 12)
        np.testing.assert_array_equal(signals[row], raw)


def test_attrition_and_events_add_up(build: Build) -> None:
    path = build().path
    attrition = pd.read_csv(path / "attrition.csv", keep_default_na=False)
    assert attrition.to_numpy().tolist() == [
        ["index events", "", 62, 41],
        ["cxr", "no event in the window", 1, 1],
        ["cxr file", "truncated", 1, 1],
        ["cohort", "", 60, 40],
    ]
    events = pd.read_csv(path / "events.csv")
    assert events.groupby("modality")["events"].sum().to_dict() == {"cxr": 61, "ecg": 61, "labs": 121}
    (refused,) = pd.read_parquet(path / "quarantine.parquet").to_dict("records")
    assert (refused["modality"], refused["reason"], refused["detail"]) == ("cxr", "truncated", "no end-of-image marker")


def test_equal_inputs_give_an_equal_hash_whatever_the_place_and_the_workers(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WORTH_STARTING_SECONDS", 0.0)
    first = build(out=Path("a"))
    second = build(out=Path("elsewhere/b"), workers=2)
    assert first.hash == second.hash
    others = [build(override, out=Path(f"c{i}")).hash for i, override in enumerate(
        ["splits.seed=1", "candidates.seed=1", "modalities.cxr.short_side=33", "modalities.labs.items=[50912]"]
    )]  # fmt: skip
    assert len({first.hash, *others}) == 5


def test_a_second_build_is_skipped_until_something_changes(build: Build, source: Path) -> None:
    first = build()
    written = (first.path / "manifest.json").stat().st_mtime_ns
    again = build()
    assert again.skipped
    assert again.hash == first.hash
    assert (first.path / "manifest.json").stat().st_mtime_ns == written
    assert not build("splits.seed=3").skipped
    table = source / "mimic_ecg" / "record_list.csv"
    os.utime(table, ns=(1, 1))
    assert not build("splits.seed=3").skipped


def test_a_rebuild_names_the_source_that_changed_since(build: Build, source: Path) -> None:
    class Told(Quiet):
        lines: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.lines.append(text.strip())

    build()
    table = source / "mimic_ecg" / "record_list.csv"
    was = table.read_bytes()
    try:
        table.write_bytes(was + was.splitlines(keepends=True)[-1].replace(b"40000", b"40009"))
        build(progress=Told())
    finally:
        table.write_bytes(was)
    sizes = f"{len(was):,} bytes then, {len(was) + len(was.splitlines(keepends=True)[-1]):,} now"
    assert f"record_list.csv changed since ({sizes})." in Told.lines


def test_percentiles_are_fitted_on_train_only(build: Build) -> None:
    cohort = open_cohort(build().path)
    train = cohort.samples.loc[cohort.rows("train"), "lab_50912"].dropna().to_numpy()
    for value, percentile in zip(cohort.samples["lab_50912"], cohort.samples["lab_50912_percentile"], strict=True):
        assert percentile == (train <= value).mean()


def test_the_papers_split_rule_drops_admissions_and_counts_them(build: Build) -> None:
    result = build("splits={by: admission_then_drop, train: 20, val: 10, test: rest}")
    attrition = result.attrition.set_index("step")["samples"]
    assert attrition["splits"] > 0
    assert attrition["index events"] == attrition.iloc[1:].sum()
    assert attrition["cohort"] == sum(result.samples.values()) == len(open_cohort(result.path).samples)
    assert (
        len(open_cohort(result.path).array("ecg", "signal").take(np.arange(attrition["cohort"]))) == attrition["cohort"]
    )
    events = pd.read_csv(result.path / "events.csv")
    in_cohort = events[(events["modality"] == "cxr") & (events["reason"] == "in the cohort")]
    assert in_cohort["events"].tolist() == [attrition["cohort"]]


def test_given_splits_are_part_of_the_inputs(build: Build, tmp_path: Path) -> None:
    hadm = 20_000_000 + np.arange(ADMISSIONS)
    subjects = np.arange(ADMISSIONS) * 2 // 3
    given = pd.DataFrame({"hadm_id": hadm, "split": np.array(["train", "val", "test"])[subjects % 3]})[:-3]
    path = tmp_path / "splits.csv"
    given.to_csv(path, index=False)
    result = build(f"splits={{from: {path}}}")
    assert result.attrition.set_index("reason")["samples"]["not in the given splits"] == 3
    given[:-1].to_csv(path, index=False)
    assert not build(f"splits={{from: {path}}}").skipped


def test_an_optional_modality_that_is_absent_is_marked(build: Build, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "copy")
    table = tmp_path / "copy" / "mimic_ecg" / "record_list.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:1] + lines[4:]))
    result = build("require=[cxr, labs]", mimic_ecg=tmp_path / "copy" / "mimic_ecg")
    cohort = open_cohort(result.path)
    absent = ~cohort.samples["ecg_present"].to_numpy()
    assert absent.sum() == 3
    assert cohort.samples.loc[absent, "ecg_study_id"].isna().all()
    signals = cohort.array("ecg", "signal").take(np.arange(ADMISSIONS))
    assert not signals[absent].any()
    assert signals[~absent].any(axis=(1, 2)).all()


@pytest.mark.parametrize(
    ("overrides", "arguments", "error", "message"),
    [
        ([], {"mimic_cxr": Path("nowhere")}, SourceError, "no directory nowhere"),
        ([], {"mimic_ecg": None}, ConfigError, "Add --mimic-ecg DIR"),
        (["modalities.cxr.window.end=25h"], {}, CohortError, r"cohort is empty: of 62 index events"),
        (["splits.train=1000"], {}, CohortError, "60 samples do not fill"),
        (["candidates.n=50"], {}, CohortError, "Expected 49 for lists of 50"),
        (["modalities.labs.items=[50912, 4]"], {}, CohortError, "lab 4 "),
        (["splits={from: none.csv}"], {}, ConfigError, "no file none.csv"),
        (["nmae=x"], {}, ConfigError, "did you mean 'name'"),
        ([], {"demo": True}, ConfigError, "--demo and --mimic-iv were both given"),
    ],
)
def test_failures_are_one_line_and_leave_nothing_but_what_was_read(
    build: Build, overrides: list[str], arguments: dict[str, Any], error: type[SymileClinError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        build(*overrides, **arguments)
    assert "\n" not in str(caught.value)
    left = [path for path in Path("data").rglob("*") if ".cache" not in path.parts and path.suffix != ".lock"]
    kept = Path("data/cohorts/.tiny.building/shards")  # what was read, for the next build
    assert [path for path in left if path.is_file() and not path.is_relative_to(kept)] == []
    assert not Path("data/cohorts/tiny").exists()


def test_a_failed_rebuild_keeps_the_old_cohort(build: Build) -> None:
    first = build()
    with pytest.raises(CohortError):
        build("modalities.cxr.window.end=25h")
    assert open_cohort(first.path).hash == first.hash


def test_a_directory_with_other_things_in_it_is_not_replaced(build: Build) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="not empty and not a cohort"):
        build(out=Path("mine"))
    files.write_manifest(Path("mine"), stage="run", content={})
    with pytest.raises(ConfigError, match="holds a run"):
        build(out=Path("mine"))
    assert Path("mine/thesis.txt").exists()


def test_a_second_build_at_once_is_refused(build: Build) -> None:
    with files.atomic_directory(Path("data/cohorts/tiny")) as building:
        with pytest.raises(BusyError, match="another process"):
            build()
        (building / "x").touch()


def test_the_planted_factors_of_a_synthetic_tree_travel_in_row_order(
    build: Build, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "tree")
    hadm = np.random.default_rng(0).permutation(20_000_000 + np.arange(ADMISSIONS))
    pd.DataFrame({"hadm_id": hadm, "cxr_0": hadm % 2}).to_parquet(tmp_path / "tree" / "truth.parquet")
    files.write_manifest(tmp_path / "tree", stage="synthetic", content={"planted": {"target": "cxr"}})
    roots = {name: tmp_path / "tree" / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
    cohort = open_cohort(build(**roots).path)
    assert cohort.synthetic
    assert cohort.planted == {"target": "cxr"}
    assert cohort.truth is not None
    assert cohort.truth["hadm_id"].tolist() == cohort.samples["hadm_id"].tolist()
    assert cohort.truth["cxr_0"].tolist() == (cohort.samples["hadm_id"] % 2).tolist()


PROGRAM = """
import sys
from pathlib import Path
from symile_clin.cohort import workers
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.progress import Quiet

if __name__ == "__main__":
    workers.WORTH_STARTING_SECONDS = 0.0
    source = Path(sys.argv[1])
    roots = {name: source / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
    build_cohort(spec=str(source / "tiny.yaml"), workers=2, tracking_uri=None, progress=Quiet(), **roots)
    print([name for name in ("torch", "monai", "mlflow", "matplotlib") if name in sys.modules])
"""


def test_a_build_ends_without_torch(source: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(source)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=True, timeout=300)
    assert done.stdout.strip() == "[]"


def test_releases_are_in_the_manifest_but_do_not_make_a_cohort_another(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_cohort(build().path).manifest
    assert {name: one["version"] for name, one in manifest["inputs"]["releases"].items()} == {
        "mimic_iv": None, "mimic_cxr": None, "mimic_ecg": None,
    }  # fmt: skip
    assert "releases" not in manifest
    monkeypatch.setattr("symile_clin.pipeline.provenance.detect_all", lambda _roots: {})
    assert build().skipped
