"""What must not happen to data of patients: sent away, named outside the cohort, open to others, told by counts."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from symile_clin import cli
from symile_clin.cohort.small_cells import HIDDEN, WITHHELD, shared_attrition
from symile_clin.pipeline.tracked import recorded
from tests.conftest import WATCHED
from tests.faults import canaries
from tests.faults.real_session import (
    Session,
    all_but_cohorts,
    artifacts_of,
    check_quiet,
    prepare,
    run_session,
    tags_of,
)


def _commands(options: list[str]) -> list[list[str]]:
    lines = [
        "train fast.yaml --name a",
        "eval a",
        "index a",
        "search --run a --sample row:3 -k 3 --html hits.html",
        "embed a --out vectors.npz",
        "export a",
        "cohort describe",
        "cohort diff data/cohorts/tiny data/cohorts/tiny",
        "eval nobody",
        "search --run a --sample 99999999",
    ]
    build = ["cohort", "build", "tiny.yaml", *options, "--workers", "1"]
    return [["cohort", "check", "tiny.yaml", *options], build, *(line.split() for line in lines)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session on real patients whose ids, times and paths are known."""
    folder, options, failing = prepare(tmp_path_factory.mktemp("real"))
    flagged = ["cohort", "build", "tiny.yaml", *options, "--out", "data/cohorts/flagged", "--set", "name=flagged"]
    commands = [*_commands(options), *failing, [*flagged, "--log-patient-level"]]
    yield run_session(folder, commands)
    shutil.rmtree(folder.parent)


def test_no_canary_is_in_what_commands_print(real: Session) -> None:
    failed = {command: code for command, code in real.codes.items() if code}
    assert sorted(set(failed.values())) == [2, 3], {c: real.output[c] for c in failed}
    assert len(failed) == 5 + 1 + 2
    assert {command: found for command, text in real.output.items() if (found := canaries.in_text(text))} == {}
    assert "Traceback" not in "".join(real.output.values())


def test_no_canary_is_in_any_file_outside_the_cohort(real: Session) -> None:
    files = all_but_cohorts(real.folder)
    kinds = {path.suffix for path in files}
    assert {
        ".db",
        ".html",
        ".json",
        ".jsonl",
        ".npy",
        ".npz",
        ".parquet",
        ".png",
        ".pt",
        ".safetensors",
        ".yaml",
    } <= kinds
    assert {str(path): found for path in files if (found := canaries.in_file(path))} == {}
    assert canaries.in_text("\n".join(real.figures)) == []
    assert len(real.figures) > 100


def test_the_search_finds_each_kind_of_canary(real: Session, tmp_path: Path) -> None:
    cohort = real.folder / "data/cohorts/tiny"
    for name in ("samples.parquet", "inputs.parquet", "quarantine.parquet", "attrition.parquet"):
        assert canaries.in_file(cohort / name), name
    (tmp_path / "a.npy").write_bytes(b"x" * 3 + canaries.SUBJECTS[7].to_bytes(8, "little"))
    (tmp_path / "b.bin").write_bytes(pd.Timestamp(canaries.ADMITTED[7]).value.to_bytes(8, "little"))
    (tmp_path / "c.gz").write_bytes(gzip.compress(f"hadm {canaries.ADMISSIONS[7]}".encode()))
    pd.DataFrame({"t": [pd.Timestamp(canaries.ADMITTED[7])]}).to_parquet(tmp_path / "d.parquet")
    with closing(sqlite3.connect(tmp_path / "e.db")) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT {canaries.RECORDS[7]} AS record")
        connection.commit()
    (tmp_path / "f.txt").write_text(f"{canaries.IMAGES[7]:08x}-00000000 /data/{canaries.FOLDER}/files")
    assert all(canaries.in_file(path) for path in sorted(tmp_path.iterdir()))


def test_what_is_written_is_its_users_alone_from_python_too(real: Session) -> None:
    """The session's process had umask 0, and no `main` that would have changed it."""
    given = {real.folder / "tiny.yaml", real.folder / "fast.yaml"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in real.folder.rglob("*") if path not in given}
    assert {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert len(modes) > 150
    assert real.umasks == {0}, "a command leaves the process as it found it"


def test_only_a_run_with_the_flag_gets_patient_level_files_and_its_tags_say_so(real: Session) -> None:
    tags = tags_of(real.folder)
    assert {name for name, own in tags.items() if own["patient_level_artifacts"] == "true"} == {"flagged"}
    assert {own["remote_tracking"] for own in tags.values()} == {"false"}
    assert {own["patients"] for own in tags.values()} == {"real"}
    assert artifacts_of(real.folder, "tiny").keys() == {"attrition.csv"}
    assert artifacts_of(real.folder, "flagged").keys() == {"attrition.csv", "events.csv"}
    evaluated = artifacts_of(real.folder, "a").keys() | artifacts_of(real.folder, "a-eval-test").keys()
    assert "metrics.json" in evaluated
    assert not evaluated & {"report.html", "gallery.html", "ranks.parquet", "embeddings.npz"}


def test_small_cells_are_in_the_cohort_and_not_in_the_store(real: Session) -> None:
    own = pd.read_csv(real.folder / "data/cohorts/tiny/attrition.csv")
    assert (own["subjects"].iloc[1:-1] < 10).all()
    shown = pd.read_csv(artifacts_of(real.folder, "tiny")["attrition.csv"])
    assert set(shown["subjects"].iloc[1:-1]) == {HIDDEN}
    assert shown["samples"].iloc[0] == WITHHELD, "else how many left would follow from who is there"
    for path in all_but_cohorts(real.folder):
        if path.name == "subgroups.csv":
            groups = pd.read_csv(path)
            assert (groups["n_subjects"].dropna() >= 10).all()


@pytest.mark.parametrize(
    ("subjects", "shown"),
    [
        ([100, 30, 20, 50], [100, 30, 20, 50]),
        ([100, 4, 30, 20, 46], [100, HIDDEN, 30, WITHHELD, 46]),
        ([100, 4, 6, 30, 60], [100, HIDDEN, HIDDEN, 30, 60]),
        ([100, 3, 97], [WITHHELD, HIDDEN, 97]),
        ([100, 100], [100, 100]),
    ],
)
def test_no_small_count_follows_from_what_is_shown(subjects: list[int], shown: list[Any]) -> None:
    table = pd.DataFrame({"step": "s", "reason": "r", "samples": subjects, "subjects": subjects})
    found = shared_attrition(table)
    assert found["subjects"].tolist() == found["samples"].tolist() == shown
    left = [count for count, cell in zip(subjects[1:-1], shown[1:-1], strict=True) if isinstance(cell, str)]
    assert not left or sum(left) >= 10 or shown[0] == WITHHELD


def test_settings_are_recorded_without_the_folders_of_this_machine() -> None:
    settings = {"modalities": {"notes": {"path": f"/data/{canaries.FOLDER}/p18/notes.npy", "window": {}}}, "seed": 0}
    assert recorded(settings) == {
        "modalities.notes.path": "notes.npy",
        "modalities.notes.window": {},
        "seed": 0,
    }


def test_an_error_that_nobody_foresaw_keeps_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(**_: object) -> None:
        try:
            int(f"zebrafish {canaries.SUBJECTS[0]}")
        except ValueError:
            pd.Series([1.0])[str(canaries.ADMISSIONS[0])]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("symile_clin.pipeline.describe_cohort", fail, raising=False)
    assert cli.run(["cohort", "describe"]) == 1
    said = capsys.readouterr().err
    assert canaries.in_text(said) == []
    assert said.count("\n") == 1
    assert "KeyError from ValueError at" in said
    assert "test_privacy.py" in said
    assert str(Path(__file__).parent) not in said
    with pytest.raises(KeyError):
        cli.run(["--traceback", "cohort", "describe"])


def test_a_file_that_cannot_be_read_is_named_without_its_ids(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise PermissionError(13, "Permission denied", f"/data/cxr/files/p18/p{canaries.SUBJECTS[0]}/s1/x.jpg")

    monkeypatch.setattr("symile_clin.pipeline.describe_cohort", fail, raising=False)
    assert cli.run(["cohort", "describe"]) == 1
    assert capsys.readouterr().err == "symile-clin: Permission denied (/data/cxr/files/p18/.../s1/x.jpg).\n"


def test_a_session_on_real_patients_asks_for_no_other_machine(real: Session) -> None:
    check_quiet(real.folder.parent / WATCHED)


@pytest.mark.slow
def test_a_long_session_on_real_patients_leaks_nothing(tmp_path: Path) -> None:
    """Two runs, with all that can be asked of them, and a cohort of another design."""
    folder, options, _ = prepare(tmp_path)
    lines = [
        "train fast.yaml --name a",
        "train fast.yaml --name b --objective clip",
        "eval a --bootstrap 5",
        "eval b",
        "eval b --split val",
        "compare a b",
        "information a",
        "probe a --min-positives 2",
        "audit a --split all",
        "index a",
        "search --run a --sample row:3 -k 3 --html hits.html",
        "embed a --split all --out vectors.parquet",
        "report a",
        "export a",
        "cohort describe",
        "track sync a",
    ]
    build = ["cohort", "build", "tiny.yaml", *options]
    stays = [*build, "--set", "index.event=icu_stay", "--set", "index.time=intime", "--out", "data/cohorts/stays"]
    plan = [[*build, "--dry-run"], [*stays, "--set", "name=stays", "--no-tracking"], [*build, "--workers", "2"]]
    real = run_session(folder, [*plan, *(line.split() for line in lines)])
    assert {command: real.output[command] for command, code in real.codes.items() if code} == {}
    assert {command: found for command, text in real.output.items() if (found := canaries.in_text(text))} == {}
    assert {str(path): found for path in all_but_cohorts(folder) if (found := canaries.in_file(path))} == {}
    assert canaries.in_text("\n".join(real.figures)) == []
    assert any(canaries.in_file(path) for path in (folder / "data/cohorts/stays").glob("*.parquet"))
    given = {folder / "tiny.yaml", folder / "fast.yaml"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path not in given}
    assert {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    check_quiet(folder.parent / WATCHED)
