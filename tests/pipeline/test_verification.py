"""`cohort verify`: whatever is changed in a cohort or in its sources is found and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from symile_clin import files
from symile_clin.cli import run
from symile_clin.data.prepare import hash_cohort, hash_lists
from symile_clin.data.store import open_cohort
from symile_clin.errors import ConfigError
from symile_clin.pipeline.verification import Verification, verify_cohort
from symile_clin.progress import Quiet
from tests.pipeline.verified_cohort import SAMPLES, SOURCES, build_tiny, forge


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree `tree` and its cohort `cohorts/tiny`."""
    root = tmp_path_factory.mktemp("verify")
    build_tiny(root)
    return root


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


def verify(root: Path, **options: Any) -> Verification:
    return verify_cohort(cohort=root / "cohorts" / "tiny", progress=Quiet(), **options)


def verify_sources(root: Path) -> Verification:
    return verify(root, sources=True, **{source: root / "tree" / source for source in SOURCES})


def found(result: Verification) -> dict[str, str]:
    return {one.where: one.what for one in result.findings}


def test_a_cohort_as_it_was_built_has_no_findings(built: Path) -> None:
    result = verify(built)
    assert (result.found, result.exit_code) == (0, 0)
    assert result.checked == sum(path.is_file() for path in (built / "cohorts" / "tiny").rglob("*")) - 1
    assert "All as they were built" in result.text()
    sources = verify_sources(built)
    assert (sources.found, sources.sources) == (0, 6 + 3 * SAMPLES)


def test_one_flipped_byte_is_found_in_any_file_and_the_file_named(copy: Path) -> None:
    cohort = copy / "cohorts" / "tiny"
    rng = np.random.default_rng(0)
    for path in sorted(cohort.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            kept = path.read_bytes()
            flipped = bytearray(kept)
            flipped[rng.integers(len(kept))] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            result = verify(copy)
            assert path.relative_to(cohort).as_posix() in found(result)
            assert result.exit_code == 3
            path.write_bytes(kept)
    assert verify(copy).found == 0


def test_missing_extra_and_shortened_files_are_named(copy: Path) -> None:
    cohort = copy / "cohorts" / "tiny"
    (cohort / "events.csv").unlink()
    (cohort / "arrays" / "ecg" / "notes.txt").write_text("x")
    built_bytes = (cohort / "arrays" / "cxr" / "image.npy").stat().st_size
    with (cohort / "arrays" / "cxr" / "image.npy").open("r+b") as handle:
        handle.truncate(1000)
    assert found(verify(copy)) == {
        "events.csv": "is missing",
        "arrays/ecg/notes.txt": "was not there when the cohort was built",
        "arrays/cxr/image.npy": f"has 1,000 bytes instead of {built_bytes:,}",
    }


def test_figures_of_describe_are_no_finding(copy: Path) -> None:
    (copy / "cohorts" / "tiny" / "figures").mkdir()
    (copy / "cohorts" / "tiny" / "figures" / "attrition.png").write_bytes(b"x")
    assert verify(copy).found == 0


def _patient_in_two_splits(cohort: Path) -> str:
    samples = pd.read_parquet(cohort / "samples.parquet")
    twice = samples["subject_id"].duplicated(keep="last")
    row = samples.index[twice][0]
    samples.loc[row, "split"] = "test" if samples.loc[row, "split"] != "test" else "train"
    samples.to_parquet(cohort / "samples.parquet", index=False)
    return "samples.parquet"


def _positive_not_first(cohort: Path) -> str:
    table = pd.read_parquet(cohort / "candidates" / "test.parquet")
    table["candidate_rows"] = [rows[::-1] for rows in table["candidate_rows"]]
    table.to_parquet(cohort / "candidates" / "test.parquet", index=False)
    return "candidates/test.parquet"


def _candidate_of_another_split(cohort: Path) -> str:
    table = pd.read_parquet(cohort / "candidates" / "val.parquet")
    other = open_cohort(cohort).rows("train")[0]
    table["candidate_rows"] = [[rows[0], other] for rows in table["candidate_rows"]]
    table.to_parquet(cohort / "candidates" / "val.parquet", index=False)
    return "candidates/val.parquet"


def _other_pixels(cohort: Path) -> str:
    image = np.load(cohort / "arrays" / "cxr" / "image.npy")
    image[3, 0, 5, 5] += 1
    np.save(cohort / "arrays" / "cxr" / "image.npy", image)
    return "arrays/cxr/image.npy"


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (_patient_in_two_splits, "samples.parquet", "1 patients are in more than one split"),
        (_positive_not_first, "candidates/test.parquet", "does not list the positive first"),
        (_candidate_of_another_split, "candidates/val.parquet", "lists candidates that are not in val"),
        (_other_pixels, "cxr/image", "holds other values than when the cohort was built"),
    ],
)
def test_what_must_hold_is_proved_whatever_the_manifest_says(
    copy: Path, change: Callable[[Path], str], where: str, what: str
) -> None:
    cohort = copy / "cohorts" / "tiny"
    forge(cohort, change(cohort))
    findings = [(one.where, one.what) for one in verify(copy).findings]
    assert (where, what) in findings
    assert ("manifest.json", "its hash is not that of the samples, arrays and candidate lists") in findings


def test_inputs_list_every_file_that_was_read_in_order(built: Path) -> None:
    cohort = open_cohort(built / "cohorts" / "tiny")
    table = pq.read_table(cohort.path / "inputs.parquet")
    assert table.column_names == ["modality", "path", "bytes", "sha256"]
    ecg = [row for row in table.to_pylist() if row["modality"] == "ecg"]
    assert [row["path"] for row in ecg[1::2]] == [f"{path}.dat" for path in cohort.samples["ecg_path"]]
    for row in table.to_pylist():
        path = built / "tree" / {"cxr": "mimic_cxr", "ecg": "mimic_ecg"}[row["modality"]] / row["path"]
        assert (row["bytes"], row["sha256"]) == (path.stat().st_size, files.sha256(path))
    assert (cohort.path / "inputs.parquet").stat().st_mode & 0o077 == 0


def test_what_changed_in_the_sources_since_is_named_without_ids(copy: Path) -> None:
    rows = pq.read_table(copy / "cohorts" / "tiny" / "inputs.parquet").to_pylist()
    image, signal = 4, SAMPLES + 11
    path = copy / "tree" / "mimic_cxr" / rows[image]["path"]
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    stat = path.stat()
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and time speak for it
    (copy / "tree" / "mimic_ecg" / rows[signal]["path"]).unlink()
    with (copy / "tree" / "mimic_ecg" / "record_list.csv").open("a") as table:
        table.write("10000000,1,1,2150-01-01 00:00:00,files/x\n")
    assert verify(copy).found == 0
    result = verify_sources(copy)
    assert found(result) == {
        "ecg_records": "this source table has changed since the build",
        f"inputs.parquet row {image} (cxr)": "this file has changed since the build",
        f"inputs.parquet row {signal} (ecg)": "this file is missing",
    }
    assert "p1000" not in result.text()


def test_many_findings_are_capped_and_counted(copy: Path) -> None:
    for number in range(70):
        (copy / "cohorts" / "tiny" / f"{number}.txt").write_text("x")
    result = verify(copy)
    assert (len(result.findings), result.found) == (50, 70)
    assert "... and 20 more" in result.text()


def test_the_command_leaves_with_3_and_tells_programs_what_it_found(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cohort", "verify", str(copy / "cohorts" / "tiny"), "--json", "--quiet"]
    assert run(arguments) == 0
    (copy / "cohorts" / "tiny" / "events.csv").unlink()
    assert run(arguments) == 3
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["found"] == 1
    assert record["findings"] == [{"where": "events.csv", "what": "is missing"}]


def test_sources_and_their_directories_go_together(built: Path) -> None:
    with pytest.raises(ConfigError, match="go together"):
        verify(built, sources=True)
    with pytest.raises(ConfigError, match="go together"):
        verify(built, mimic_iv=built)


def test_a_hash_hangs_on_every_part(built: Path) -> None:
    """`hash_cohort` of the same parts is the manifest's; of any other part it is not."""
    cohort = open_cohort(built / "cohorts" / "tiny")
    arrays = {
        name: {array: entry["sha256"] for array, entry in of.items()} for name, of in cohort.manifest["arrays"].items()
    }
    lists = [
        hash_lists(cohort.candidates(split, other_subjects=others))
        for split in ("val", "test")
        for others in (False, True)
    ]
    if len(list((cohort.path / "candidates").iterdir())) == len(lists):
        assert hash_cohort(cohort.samples, arrays, lists) == cohort.hash
    assert hash_cohort(cohort.samples, arrays, lists[:-1]) != cohort.hash
