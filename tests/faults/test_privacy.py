"""What must not happen to data of patients: sent away, named outside the cohort, open to others, told by counts."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from symile_clin import cli
from symile_clin.cohort.small_cells import HIDDEN, WITHHELD, shared_attrition
from symile_clin.progress import Quiet
from symile_clin.tracking import Artifact, add_results, start_run
from tests.cohort.tree import SPEC
from tests.conftest import WATCHED, watched_environment
from tests.faults import canaries

PRESET = {
    "objective": {"name": "symile", "negatives": "exhaustive", "normalization": "layernorm"},
    "model": {
        "dim": 16,
        "encoders": {
            "cxr": {"arch": "small"},
            "ecg": {"arch": "small"},
            "labs": {"arch": "mlp", "hidden": [16]},
        },
    },
    "training": {"epochs": 1, "batch_size": 16, "lr": 2e-3},
}
#: MLflow's own names of stores. The program's option is explicit, and wins: nobody must be asked at that address.
MOVES_STORES = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_ARTIFACT_URI",
)  # fmt: skip
SOURCES = {"mimic_iv": "--mimic-iv", "mimic_cxr": "--mimic-cxr", "mimic_ecg": "--mimic-ecg"}


@dataclass(frozen=True)
class Session:
    """Commands on real patients, run in one process under umask 0.

    Attributes:
        folder: the working directory.
        codes: by command line, of what it returned.
        output: by command line, what it printed, without the source folders that it was given.
        figures: texts on figures.
        umasks: the process's after each command.
    """

    folder: Path
    codes: dict[str, int]
    output: dict[str, str]
    figures: list[str]
    umasks: set[int]


def _options(tree: Path) -> list[str]:
    return [word for name, option in SOURCES.items() for word in (option, str(tree / name))]


def _run(folder: Path, commands: list[list[str]]) -> Session:
    file = folder.parent / "commands.json"
    file.write_text(json.dumps(commands))
    command = [sys.executable, "-m", "tests.faults.canary_session", str(file)]
    environment = {**watched_environment(folder.parent / WATCHED), "PYTHONWARNINGS": "default"}
    environment |= dict.fromkeys(MOVES_STORES, "http://192.0.2.1:1")
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[2])
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(file.with_suffix(".said").read_text())
    output = {"stderr": done.stderr, "stdout": done.stdout}
    for one in said["commands"]:
        text = one["output"]
        for word in one["command"]:
            text = text.replace(word, "GIVEN") if canaries.FOLDER in word else text
        output[" ".join(one["command"])] = text
    return Session(
        folder=folder,
        codes={" ".join(one["command"]): one["code"] for one in said["commands"]},
        output=output,
        figures=said["figures"],
        umasks={one["umask"] for one in said["commands"]},
    )


def _spoiled(text: str) -> dict[str, tuple[str, str]]:
    """By name, a table of which one value is spoiled, and its text."""
    lines = text.splitlines(keepends=True)
    return {
        "time": ("admissions", text.replace("2187-03-04 00:54:43", "2187-03-04 zebrafish")),
        "id": ("admissions", text.replace(f"\n{canaries.SUBJECTS[1]},", f"\n{canaries.SUBJECTS[1]}x,")),
        "columns": ("admissions", text.replace(f"\n{canaries.SUBJECTS[1]},", f"\n{canaries.SUBJECTS[1]},quagga,")),
        "quote": ("admissions", text.replace(f"\n{canaries.SUBJECTS[1]},", f'\n"{canaries.SUBJECTS[1]},')),
        "twice": ("admissions", text + lines[3]),
    }


def _prepare(root: Path) -> tuple[Path, list[str], list[list[str]]]:
    """Plant the canaries; the working directory, the options that name the sources, and builds that must fail."""
    tree = canaries.plant(root)
    tree.write()
    folder = root / "work"
    folder.mkdir(mode=0o700)
    splits = {"by": "subject", "train": 0.5, "val": 0.2, "test": "rest"}
    (folder / "tiny.yaml").write_text(json.dumps({**SPEC, "splits": splits}))
    (folder / "fast.yaml").write_text(json.dumps(PRESET))
    table = tree.root / "mimic_iv/hosp/admissions.csv.gz"
    failing = []
    for name, (_, text) in _spoiled(gzip.decompress(table.read_bytes()).decode()).items():
        copy = root / name / canaries.FOLDER
        shutil.copytree(tree.root, copy, copy_function=os.link)
        (copy / table.relative_to(tree.root)).unlink()
        (copy / table.relative_to(tree.root)).write_bytes(gzip.compress(text.encode()))
        failing.append(["cohort", "build", "tiny.yaml", *_options(copy), "--out", f"data/cohorts/{name}"])
    # an image that is not what it was when the cohort was built
    copy = root / "changed" / canaries.FOLDER
    shutil.copytree(tree.root, copy, copy_function=os.link)
    image = next(copy.glob("mimic_cxr/files/*/*/*/*.jpg"))
    image.unlink()
    image.write_bytes(b"zebrafish")
    failing.append(["cohort", "verify", "--sources", *_options(copy)])
    return folder, _options(tree.root), failing


def _commands(options: list[str]) -> list[list[str]]:
    lines = [
        "train fast.yaml --name a",
        "eval a",
        "audit a",
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
    folder, options, failing = _prepare(tmp_path_factory.mktemp("real"))
    flagged = ["cohort", "build", "tiny.yaml", *options, "--out", "data/cohorts/flagged", "--set", "name=flagged"]
    commands = [*_commands(options), *failing, [*flagged, "--log-patient-level"]]
    yield _run(folder, commands)
    shutil.rmtree(folder.parent)


def _all_but_cohorts(folder: Path) -> list[Path]:
    """Files of a session; what a cohort directory holds is patient-level, and stays there."""
    kept = (folder / "data" / "cohorts", folder / "tiny.yaml")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not any(map(path.is_relative_to, kept))]


def test_no_canary_is_in_what_commands_print(real: Session) -> None:
    failed = {command: code for command, code in real.codes.items() if code}
    assert sorted(set(failed.values())) == [2, 3], {c: real.output[c] for c in failed}
    assert len(failed) == 5 + 1 + 2
    assert {command: found for command, text in real.output.items() if (found := canaries.in_text(text))} == {}
    assert "Traceback" not in "".join(real.output.values())


def test_no_canary_is_in_any_file_outside_the_cohort(real: Session) -> None:
    files = _all_but_cohorts(real.folder)
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


def _tags(folder: Path) -> dict[str, dict[str, str]]:
    """Tags of a store's runs by their names."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        rows = connection.execute("SELECT name, key, value FROM runs JOIN tags USING (run_uuid)").fetchall()
    return {run: {key: value for name, key, value in rows if name == run} for run, _, _ in rows}


def _recorded(folder: Path, name: str) -> dict[str, Path]:
    """Artifacts of a run by their names."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        [(run,)] = connection.execute("SELECT run_uuid FROM runs WHERE name = ?", (name,)).fetchall()
    return {path.name: path for path in (folder / "mlartifacts").rglob("*") if path.is_file() and run in path.parts}


def test_only_a_run_with_the_flag_gets_patient_level_files_and_its_tags_say_so(real: Session) -> None:
    tags = _tags(real.folder)
    assert {name for name, own in tags.items() if own["patient_level_artifacts"] == "true"} == {"flagged"}
    assert {own["remote_tracking"] for own in tags.values()} == {"false"}
    assert {own["patients"] for own in tags.values()} == {"real"}
    assert _recorded(real.folder, "tiny").keys() == {"attrition.csv"}
    assert _recorded(real.folder, "flagged").keys() == {"attrition.csv", "events.csv"}
    evaluated = _recorded(real.folder, "a").keys() | _recorded(real.folder, "a-eval-test").keys()
    assert "metrics.json" in evaluated
    assert not evaluated & {"report.html", "gallery.html", "ranks.parquet", "embeddings.npz"}


def test_small_cells_are_in_the_cohort_and_not_in_the_store(real: Session) -> None:
    own = pd.read_csv(real.folder / "data/cohorts/tiny/attrition.csv")
    assert (own["subjects"].iloc[1:-1] < 10).all()
    shown = pd.read_csv(_recorded(real.folder, "tiny")["attrition.csv"])
    assert set(shown["subjects"].iloc[1:-1]) == {HIDDEN}
    assert shown["samples"].iloc[0] == WITHHELD, "else how many left would follow from who is there"
    for path in _all_but_cohorts(real.folder):
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


# --- No other machine ---


def test_the_watch_sees_and_refuses_every_way_out(tmp_path: Path) -> None:
    """Else an empty record would prove nothing."""
    attempts = (
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.getaddrinfo('localhost', 80)",
        "socket.gethostbyname('example.org')",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.socket().bind(('0.0.0.0', 0))",
        "urllib.request.urlopen('http://192.0.2.1')",
    )
    for attempt in attempts:
        code = f"import socket, urllib.request\ntry: {attempt}\nexcept OSError: pass\nelse: raise SystemExit(1)"
        subprocess.run([sys.executable, "-c", code], env=watched_environment(tmp_path / WATCHED), check=True)
    lines = (tmp_path / WATCHED).read_text().splitlines()
    assert len(lines) == len(attempts)
    allowed = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    subprocess.run([sys.executable, "-c", allowed], env=watched_environment(tmp_path / WATCHED), check=True)
    assert len((tmp_path / WATCHED).read_text().splitlines()) == len(attempts)


def _watched(file: Path) -> tuple[list[str], list[str]]:
    """Attempts to get out, and first imports of what may send telemetry."""
    lines = [line.partition(" ")[2] for line in file.read_text().splitlines()]
    return [line for line in lines if not line.startswith("import ")], [
        one for one in lines if one.startswith("import ")
    ]


def _check_quiet(file: Path) -> None:
    attempts, imports = _watched(file)
    assert attempts == []
    assert {line.split()[1] for line in imports} >= {"mlflow", "torch", "duckdb"}
    assert {line.split()[2] for line in imports} == {"telemetry-disabled=true"}


def test_no_command_of_a_new_users_session_asks_for_another_machine(session: Path) -> None:
    """Every command of the README, `demo` and `ui` among them, and all the processes that they start."""
    _check_quiet(session / WATCHED)


def test_nor_does_a_session_on_real_patients(real: Session) -> None:
    _check_quiet(real.folder.parent / WATCHED)


def test_the_users_own_wish_about_telemetry_stands() -> None:
    code = "import os, symile_clin; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    for wish, found in (({"MLFLOW_DISABLE_TELEMETRY": "false"}, "false"), ({}, "true")):
        inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**inherited, **wish}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == found


TRACKING = ("cohort build --demo", "train", "eval", "compare a b", "probe", "information", "audit", "xor", "demo")
ELSEWHERE = (
    "http://127.0.0.1:5000", "https://h", "postgresql://h/x", "mysql+pymysql://h/x", "databricks", "databricks://x",
    "s3://b/x", "file:///tmp/x",
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "uri"),
    [*((one, "https://h") for one in TRACKING), *(("cohort build --demo", one) for one in ELSEWHERE)],
)
def test_a_store_elsewhere_is_refused_before_any_work(
    command: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([*command.split(), "--tracking-uri", uri]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("--allow-remote-tracking" in said) == ("://" in uri and not uri.startswith("file"))
    assert list(tmp_path.iterdir()) == []


def _store(folder: Path, location: str) -> str:
    """A local store whose experiment keeps its files at `location`."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    start_run(uri=uri, experiment="symile-clin", run_name="first", tags={}, progress=Quiet())
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'symile-clin'", (location,))
        connection.commit()
    return uri


def test_a_local_store_whose_files_go_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = _store(tmp_path, "s3://bucket/x")
    for location in (
        "s3://bucket/x",
        "http://h/x",
        "mlflow-artifacts://h/x",
        "gs://b",
        "ftp://h/x",
        "file://h/x",
        "dbfs:/x",
    ):
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'symile-clin'", (location,))
            connection.commit()
        assert cli.run(["train", "--tracking-uri", uri]) == 1
        said = capsys.readouterr().err
        assert "may be on another machine" in said
        assert "--allow-remote-tracking" in said
    assert cli.run(["train", "--tracking-uri", uri, "--allow-remote-tracking"]) == 2, "no cohort: it went on"


def test_results_that_are_added_with_the_flag_change_the_tag_of_the_run(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = start_run(uri=uri, experiment="e", run_name="r", tags={"patient_level_artifacts": "false"}, progress=Quiet())
    run.finish()
    assert run.run_id is not None
    (tmp_path / "gallery.html").write_text("x")
    page = Artifact(tmp_path / "gallery.html", patient_level=True)
    for allowed in (False, True):
        add_results(
            uri=uri, run_id=run.run_id, metrics={}, artifacts=[page], allow_patient_level=allowed, progress=Quiet()
        )
        assert _tags(tmp_path)["r"]["patient_level_artifacts"] == str(allowed).lower()
        assert bool(_recorded(tmp_path, "r")) == allowed
