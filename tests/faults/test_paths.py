"""Hostile paths, wherever a file can name another: none leads out, and what lies outside is never opened.

The canaries outside are valid files of their kind, so that whoever followed a path to one would take it; the kernel
says whether anybody opened them. `paths.inside` by itself is in tests/sources/test_paths.py.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import symile_clin
from symile_clin import files
from symile_clin.cohort.build import Assembled
from symile_clin.config import encoder_options, load_config
from symile_clin.data.release import is_released_array, verify_sums
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.encoders.weights import load_start
from symile_clin.errors import ConfigError, MismatchError, SymileClinError
from symile_clin.modalities.base import Reason
from symile_clin.modalities.ecg.preprocess import Ecg, read_ecg
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline import import_cohort
from symile_clin.pipeline.runs import new_run_directory, open_run
from symile_clin.progress import Quiet
from symile_clin.sources import paths
from symile_clin.sources.convert import convert
from symile_clin.sources.hosp import PATIENTS
from symile_clin.strict import dump_yaml
from tests.cohort.tree import Tree, build, waveform, write_record
from tests.faults.watched import watching
from tests.pipeline.tiny_cohort import tiny_cohort

#: Where the canaries are, beside the folders that paths should stay in, and what the folders hold.
OUTSIDE = "outside"


def hostile(canary: Path, *, deep: str) -> list[str]:
    """Ways from a folder to a file outside of it, `canary`, without the ending that is added to them.

    Args:
        deep: as many `..` as lead from where the paths start to the folder that holds `OUTSIDE`.
    """
    up = f"{deep}/{OUTSIDE}/{canary.name}"
    return [
        up,
        f"./{up}",
        f"files/../{up}",
        f"{deep}//{OUTSIDE}/./{canary.name}",
        f"files/p10/../../{up}",
        f"link/{canary.name}",
        f"hop/{canary.name}",
        f"files/../link/{canary.name}",
        "stolen",
        "loop/x",
        str(canary),
        f"/{canary}",
        f"//{canary}",
        f"/proc/self/root{canary}",
        f"/proc/self/cwd/../../../../../../../../../..{canary}",
        f"../../../../../../../../../../../../../../../../../../../..{canary}",
        f"file://{canary}",
        f"file:{up}",
        f"http://127.0.0.1:9/{canary.name}",
        f"s3://bucket/{canary.name}",
        f"~/../..{canary}",
        f"$HOME/../..{canary}",
        up.replace("..", "‥"),
        up.replace("..", "․․"),
        up.replace("..", "．．"),
        up.replace("/", "∕"),
        up.replace("/", "\\"),
        up.replace("..", "%2e%2e"),
        up.replace("..", "..\u200b"),
        up.replace("..", ".\u202e."),
        f" {up}",
        f"{up} ",
        f"{up}\0",
        f"{up}\0.jpg",
        f"\0{up}",
        "x" * 5000 + f"/../{up}",
        "x" * 300 + f"/../{up}",
        "../" * 400 + up,
        "",
        ".",
        "..",
    ]


def _links(root: Path, canary: Path, *endings: str) -> None:
    """Links in `root` out of it: to the folder, to a link to it, to the canary's files; and one to itself."""
    (root / "link").symlink_to(canary.parent)
    (root / "hop").symlink_to("link")
    (root / "loop").symlink_to("loop")
    for ending in endings:
        (root / f"stolen{ending}").symlink_to(canary.with_name(canary.name + ending))


def _quarantined(built: Assembled, modality: str) -> list[str]:
    """Reasons, one for each file that was refused."""
    table = built.attrition.quarantine()
    return [str(reason) for reason in table.loc[table["modality"] == modality, "reason"]]


def test_paths_of_the_record_list(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    canary = tmp_path / OUTSIDE / "40"
    write_record(canary, waveform())
    assert isinstance(read_ecg(canary), Ecg)
    tree.complete(1, 20_000_001)
    _links(tree.roots["mimic_ecg"], canary, ".hea", ".dat")
    ways = hostile(canary, deep="..")
    for number, way in enumerate(ways):
        subject = 100 + number
        tree.complete(subject, 20_000_100 + number)
        tree.rows["ecg_records"][-1]["path"] = way
    with watching(*canary.parent.iterdir()) as opened:
        built = build(tree)
    assert opened == []
    assert built.samples["subject_id"].tolist() == [1]
    refused = _quarantined(built, "ecg")
    assert len(refused) == len(ways) - 1  # an empty one is null, and no record
    assert set(refused) <= {Reason.OUTSIDE, Reason.MISSING, Reason.UNREADABLE}
    assert refused.count(Reason.OUTSIDE) >= 20


def test_ids_of_the_xrays_that_make_paths(tmp_path: Path) -> None:
    """Ids that are none make no event; links where the files of good ones should be are refused."""
    tree = Tree(tmp_path)
    canary = tmp_path / OUTSIDE / "film"
    canary.parent.mkdir()
    tree.complete(1, 20_000_001)
    ways = hostile(canary, deep="../../../../..")
    for number, way in enumerate(ways):
        tree.complete(10_000_100 + number, 20_000_100 + number)
        tree.rows["cxr_metadata"][-1]["dicom_id"] = way
    root, films = tree.roots["mimic_cxr"], {}
    for number in range(3):
        subject = 10_000_900 + number
        tree.complete(subject, 20_000_900 + number)
        row = tree.rows["cxr_metadata"][-1]
        films[number] = root / f"files/p10/p{subject}/s{row['study_id']}/{row['dicom_id']}.jpg"
    for number, entry in enumerate((films[0], films[1].parent, films[2].parents[1])):  # file, study, patient
        entry.rename(canary.parent / f"moved-{number}")
        entry.symlink_to(canary.parent / f"moved-{number}")
    assert all(film.is_file() for film in films.values()), "the ways are open"
    outside = [path for path in canary.parent.rglob("*") if path.is_file()]
    assert len(outside) == 3
    with watching(*outside) as opened:
        built = build(tree)
    assert opened == []
    assert built.samples["subject_id"].tolist() == [1]
    assert _quarantined(built, "cxr") == [Reason.OUTSIDE] * 3
    left = built.attrition.table().set_index("reason")["samples"]
    assert left["no event in the window"] == len(ways) >= 20


def test_a_header_names_no_other_file(tmp_path: Path) -> None:
    canary = tmp_path / OUTSIDE / "40"
    write_record(canary, waveform())
    record = tmp_path / "root" / "41"
    write_record(record, waveform())
    _links(record.parent, canary, ".dat")
    good = record.with_suffix(".hea").read_text()
    with watching(canary.with_suffix(".dat")) as opened:
        for way in hostile(canary, deep=".."):
            record.with_suffix(".hea").write_text(good.replace("41.dat", f"{way}.dat"))
            assert not isinstance(read_ecg(record), Ecg), way
    assert opened == []


# --- cohort directories that somebody gives you ---


@pytest.fixture
def given(tmp_path: Path) -> Cohort:
    """A cohort, and beside its arrays' folder and itself a canary that would serve as any of its parts."""
    cohort = tiny_cohort(tmp_path)
    canary = cohort.path.parent / OUTSIDE / "percentile.npy"
    canary.parent.mkdir()
    shutil.copy(cohort.path / "arrays" / "red" / "percentile.npy", canary)
    _links(cohort.path.parent, canary)  # not in the cohort, where they would be refused at once
    return cohort


def _canary(cohort: Cohort) -> Path:
    return cohort.path.parent / OUTSIDE / "percentile.npy"


@pytest.mark.parametrize("key", ["file", "row_map"])
def test_parts_that_a_manifest_names(given: Cohort, key: str) -> None:
    canary = _canary(given)
    ways = hostile(canary, deep="../../..")
    manifest = files.read_json(given.path / "manifest.json")
    entry = manifest["arrays"]["red"]["percentile"]
    part = dict(entry["parts"][0])
    with watching(canary) as opened:
        for way in [*ways, [str(canary)], {"x": 1}, None, 3]:
            if key == "file":
                entry["parts"] = [{**part, "file": way}]
            else:
                entry["row_map"] = way
            files.write_json(given.path / "manifest.json", manifest)
            with pytest.raises(SymileClinError):
                open_cohort(given.path).array("red", "percentile")
    assert opened == []
    assert given.array("red", "percentile").take(np.arange(2)).shape == (2, 3)


def test_names_that_a_manifest_makes_folders_of(given: Cohort) -> None:
    manifest = files.read_json(given.path / "manifest.json")
    for way in hostile(_canary(given), deep=".."):
        if not paths.is_plain_name(way):
            changes: list[dict[str, Any]] = [{"name": way}, {"spec": {"modalities": {way: {}}}}, {"arrays": {way: {}}}]
            for change in changes:
                files.write_json(given.path / "manifest.json", {**manifest, **change})
                with pytest.raises(MismatchError, match="a name that is none"):
                    open_cohort(given.path)


@pytest.mark.parametrize(
    "name", ["manifest.json", "samples.parquet", "arrays", "arrays/red", "arrays/red/observed.npy",
             "candidates/val.parquet", "state", "truth.parquet", "anything"],
)  # fmt: skip
def test_links_out_of_a_cohort(given: Cohort, name: str) -> None:
    entry, moved = given.path / name, given.path.parent / OUTSIDE / Path(name).name
    if entry.exists():
        entry.rename(moved)
    else:
        moved.write_bytes(b"x")
    entry.parent.mkdir(exist_ok=True)
    entry.symlink_to(os.path.relpath(moved, entry.parent))
    targets = [moved] if moved.is_file() else [path for path in moved.rglob("*") if path.is_file()]
    with watching(*targets) as opened, pytest.raises(MismatchError, match="is a link that leads out of"):
        open_cohort(given.path)
    assert opened == []


def test_links_that_are_the_users_own(given: Cohort, tmp_path: Path) -> None:
    """A cohort on another disk, by a link to the whole of it; and links within it."""
    (tmp_path / "elsewhere").symlink_to(given.path)
    (given.path / "again.npy").symlink_to("arrays/red/percentile.npy")
    assert open_cohort(tmp_path / "elsewhere").array("red", "percentile").take(np.arange(3)).shape == (3, 3)


@pytest.mark.parametrize(
    ("place", "is_one"),
    [("data_npy/test/cxr_test.npy", True), ("data_npy/test/cxr_train.npy", False),
     ("data_npy/other/cxr_other.npy", False), ("npy/test/cxr_test.npy", False), ("cxr_test.npy", False),
     ("data_npy/test/../test/cxr_test.npy", False), ("data_npy/val/linked_val.npy", False)],
)  # fmt: skip
def test_what_an_imported_cohort_may_name(tmp_path: Path, place: str, is_one: bool) -> None:
    """Only what can be an array of a release, in its place beside the release's own table."""
    path = tmp_path / "release" / place
    for folder in ("test", "val"):
        (tmp_path / "release/data_npy" / folder).mkdir(parents=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "linked" in place:
        (tmp_path / "secret.npy").touch()
        path.symlink_to(tmp_path / "secret.npy")
    else:
        path.touch()
    assert not is_released_array(path), "without the table, it is no release"
    (tmp_path / "release" / "symile_mimic_data.csv").touch()
    assert is_released_array(path) is is_one


# --- releases, runs and models ---


def test_links_out_of_a_release(tmp_path: Path) -> None:
    release, canary = tmp_path / "release", tmp_path / OUTSIDE / "symile_mimic_data.csv"
    for folder in (release, canary.parent):
        folder.mkdir()
    canary.write_text("subject_id\n")
    (release / canary.name).symlink_to(canary)
    with watching(canary) as opened, pytest.raises(MismatchError, match="is a link that leads out of"):
        import_cohort(release=release, out=tmp_path / "cohort", progress=Quiet())
    assert opened == []


def test_names_in_lists_of_checksums(tmp_path: Path) -> None:
    """A list is asked for the files that are read; what else it names is nobody's business."""
    canary = tmp_path / OUTSIDE / "secret"
    canary.parent.mkdir()
    canary.write_text("secret")
    root = tmp_path / "release"
    root.mkdir()
    (root / "train.csv").write_text("x")
    lines = [f"{'0' * 64}  {way}" for way in hostile(canary, deep="..") if way.strip() and len(way.splitlines()) == 1]
    (root / "SHA256SUMS.txt").write_text("\n".join([*lines, f"{files.sha256(root / 'train.csv')}  train.csv"]))
    with watching(canary) as opened:
        verify_sums(root, [root / "train.csv"], Quiet())
    assert opened == []


def _run(tmp_path: Path, **manifest: Any) -> Path:
    path = tmp_path / "runs" / "one"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("preset: x\n")
    files.write_manifest(path, stage="run", content=manifest)
    return path


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "checkpoints", "checkpoints/best/model.safetensors",
                                  "eval/test/embeddings.npz", "index/own/blue.npy"])  # fmt: skip
def test_links_out_of_a_run(tmp_path: Path, name: str) -> None:
    path = _run(tmp_path)
    canary = tmp_path / OUTSIDE / "x"
    canary.parent.mkdir()
    canary.write_bytes(b"x")
    (path / name).unlink(missing_ok=True)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).symlink_to(canary)
    with watching(canary) as opened, pytest.raises(MismatchError, match="is a link that leads out of"):
        open_run(tmp_path / "runs", "one")
    assert opened == []


def test_names_of_new_runs(tmp_path: Path) -> None:
    formulas = ["=1+1", "+x", "-x", "@x", "a\x1b[2J", "a\nb"]
    for way in [*hostile(tmp_path / OUTSIDE / "x", deep=".."), *formulas]:
        if not paths.is_plain_name(way) or way in formulas:
            with (
                pytest.raises(ConfigError, match="is not a plain name"),
                new_run_directory(tmp_path / "runs", way, default="x"),
            ):
                pytest.fail(f"{way!r} is a name")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_config_of_a_run_names(tmp_path: Path) -> None:
    """A model that a checkpoint fills is built without the weights it once started from."""
    canary = tmp_path / "secret.pt"
    canary.write_bytes(b"x")
    modalities = modalities_of({"modalities": {name: {"room": "ecg"} for name in ("a", "b")}})
    preset = {
        "objective": {"name": "clip"},
        "model": {"dim": 4, "encoders": {"a": {"arch": "small", "weights": str(canary)}}},
        "training": {"epochs": 1, "batch_size": 4, "lr": 0.1},
    }
    (tmp_path / "x.yaml").write_text(dump_yaml(preset))
    config = load_config(str(tmp_path / "x.yaml"), overrides=[], objective=None, modalities=modalities)
    options = encoder_options(config, modalities)["a"].blank()
    with watching(canary) as opened:
        modalities["a"].encoder(4, options)
    assert opened == []
    with watching(canary) as opened, pytest.raises(MismatchError):
        load_start(nn.Linear(1, 1), str(canary))
    assert opened, "what the user's own preset names is opened, and the watch sees it"


@pytest.mark.parametrize("name", ["manifest.json", "model.json", "model.safetensors", "state"])
def test_links_out_of_an_exported_model(tmp_path: Path, name: str) -> None:
    folder, canary = tmp_path / "model", tmp_path / OUTSIDE / "x"
    for one in (folder, canary.parent):
        one.mkdir()
    canary.write_bytes(b"x")
    files.write_manifest(folder, stage="export", content={"files": {}})
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(canary)
    with watching(canary) as opened, pytest.raises(MismatchError, match="is a link that leads out of"):
        symile_clin.load(folder)
    assert opened == []


# --- archives ---


@pytest.mark.parametrize("make", [str, os.path.basename, lambda path: f"../../{OUTSIDE}/{path.name}"])
def test_the_name_in_a_gzip_is_passed_over(tmp_path: Path, make: Callable[[Path], str]) -> None:
    """A gzip says what its file was called: nothing is opened or written by that name."""
    canary = tmp_path / OUTSIDE / "secret.csv"
    canary.parent.mkdir()
    canary.write_text("secret")
    tree = Tree(tmp_path / "tree")
    tree.admission(1, 2)
    tree.write()
    table = tree.roots["mimic_iv"] / "hosp/patients.csv.gz"
    plain, packed = gzip.decompress(table.read_bytes()), io.BytesIO()
    with gzip.GzipFile(make(canary), "wb", fileobj=packed, mtime=0) as file:
        file.write(plain)
    table.write_bytes(packed.getvalue())
    before = sorted(tmp_path.rglob("*"))
    with watching(canary) as opened:
        convert(PATIENTS, table, tmp_path / "typed.parquet")
    assert opened == []
    assert canary.read_text() == "secret"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "typed.parquet"])
