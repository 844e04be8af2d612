"""`cohort check` finds everything that would stop a build, all at once, and its estimates are near."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from symile_clin import cli
from symile_clin.modalities.labs.tables import LABEVENTS
from symile_clin.pipeline import machine, opened, preflight
from symile_clin.pipeline.preflight import check_cohort
from symile_clin.pipeline.readiness import Preflight
from symile_clin.progress import Quiet
from symile_clin.sources.glance import glance
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import SPEC, Tree, jpeg

Check = Callable[..., Preflight]
PATIENTS = 40
SOURCES = ("mimic_iv", "mimic_cxr", "mimic_ecg")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree from which a cohort can be built."""
    tree = Tree(tmp_path_factory.mktemp("whole"))
    for number in range(PATIENTS):
        tree.complete(10_000_000 + number, 20_000_000 + number)
    tree.write()
    (tree.root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    return tree.root


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "source"))


@pytest.fixture
def check(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check `source`, or folders that are given in its place."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def call(*overrides: str, **arguments: Any) -> Preflight:
        given = {"spec": str(source / "tiny.yaml"), **{name: source / name for name in SOURCES}, **arguments}
        return check_cohort(overrides=overrides, progress=Quiet(), **given)

    return call


def problem(found: Preflight) -> str:
    """The only one."""
    assert len(found.problems) == 1, [one.text() for one in found.problems]
    assert found.exit_code == 3
    return found.problems[0].text()


def test_a_whole_tree_can_be_built_from_and_its_small_tables_are_counted(check: Check) -> None:
    found = check()
    assert found.problems == []
    assert found.exit_code == 0
    rows = {"admissions": 40, "patients": 40, "cxr_metadata": 40, "cxr_chexpert": 40, "ecg_records": 40,
            "labevents": 80}  # fmt: skip
    assert {name: (one.rows, one.exact) for name, one in found.tables.items()} == {
        name: (count, True) for name, count in rows.items()
    }
    assert {name: (one.looked_at, one.fine, dict(one.refused)) for name, one in found.opened.items()} == {
        "cxr": (32, 32, {}),
        "ecg": (32, 32, {}),
    }
    assert "Cohort tiny can be built in data/cohorts/tiny." in found.text()
    assert found.cost is not None
    assert found.cost.samples == 2  # 2.7 % of 40, rounded up
    json.dumps(found.record(), allow_nan=False)


def test_nothing_is_written(check: Check, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check()
    assert sorted(tmp_path.rglob("*")) == before


def test_equal_checks_open_equal_files(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = opened._open

    def note(modality: Any, row: Any, root: Path) -> Any:
        asked.append(row["path"])
        return real(modality, row, root)

    monkeypatch.setattr(opened, "_open", note)
    check()
    first = list(asked)
    asked.clear()
    check()
    assert asked == first
    assert len(set(first)) == 64


def test_every_problem_is_told_at_once(check: Check, source: Path) -> None:
    shutil.rmtree(source / "mimic_ecg")
    (source / "mimic_iv/hosp/labevents.csv.gz").unlink()
    (source / "mimic_cxr/mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(b"")
    texts = [one.text() for one in check().problems]
    assert len(texts) == 3
    assert "has no hosp/labevents.csv.gz" in texts[0]
    assert "chexpert.csv.gz is empty" in texts[1]
    assert f"There is no folder {source / 'mimic_ecg'}" in texts[2]


def test_a_source_that_was_not_given_is_asked_for(check: Check) -> None:
    assert problem(check(mimic_ecg=None)) == "No folder was given for mimic_ecg. Add --mimic-ecg DIR."


def test_a_source_that_is_not_read_is_pointed_out(check: Check, source: Path) -> None:
    text = problem(check(mimic_cxr_dicom=source / "mimic_cxr"))
    assert text.startswith("--mimic-cxr-dicom was given, but the spec reads nothing of it")
    assert "modalities.cxr.files=dicom" in text


def test_a_file_in_a_folder_s_place_is_no_folder(check: Check, source: Path) -> None:
    assert "is not a folder" in problem(check(mimic_ecg=source / "tiny.yaml"))


def test_swapped_folders_are_told_by_what_is_in_them(check: Check, source: Path) -> None:
    found = check(mimic_iv=source / "mimic_cxr", mimic_cxr=source / "mimic_iv")
    first, second = (one.text() for one in found.problems)
    assert f"{source}/mimic_cxr was given as MIMIC-IV, but it is MIMIC-CXR-JPG: it has mimic-cxr-2.0.0" in first
    assert f"{source}/mimic_iv was given as MIMIC-CXR-JPG, but it is MIMIC-IV: it has hosp/" in second
    assert "with --mimic-iv, and this one with --mimic-cxr" in first


@pytest.mark.parametrize("given", ["mimic_iv/hosp", "."])
def test_a_folder_one_level_off_is_set_right(check: Check, source: Path, given: str) -> None:
    assert f"Give --mimic-iv {source / 'mimic_iv'}" in problem(check(mimic_iv=source / given))


def test_an_empty_folder_is_an_incomplete_download(check: Check, tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    text = problem(check(mimic_ecg=tmp_path / "a" / "empty"))
    assert "has none of the tables of MIMIC-IV-ECG, such as record_list.csv.gz" in text


def test_a_tree_of_dicoms_is_not_one_of_jpgs(check: Check, source: Path) -> None:
    root = source / "mimic_cxr"
    for table in root.glob("*.csv.gz"):
        table.unlink()
    (root / "cxr-record-list.csv.gz").write_bytes(gzip.compress(b"subject_id,study_id,dicom_id,path\n"))
    text = problem(check())
    assert "was given as MIMIC-CXR-JPG, but it is MIMIC-CXR: it has cxr-record-list.csv.gz" in text
    assert "--mimic-cxr-dicom" in text


def test_dicoms_where_jpgs_are_asked_for_are_named(check: Check, source: Path) -> None:
    for image in list((source / "mimic_cxr").rglob("*.jpg")):
        image.rename(image.with_suffix(".dcm"))
    text = problem(check())
    assert "None of 32 sampled files of 'cxr'" in text
    assert "file missing 32; .dcm files lie in their places" in text


def rewrite(path: Path, old: str, new: str, *, count: int = -1) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, count).encode()))


def test_renamed_repeated_and_unknown_columns_are_named(check: Check, source: Path) -> None:
    table = source / "mimic_iv/hosp/labevents.csv.gz"
    rewrite(table, "valuenum", "value_num", count=1)
    found = check()
    assert "labevents.csv.gz has no column valuenum" in problem(found)
    assert any("ignored: value_num" in note for note in found.notes)
    assert "no valuenum" in found.text()
    rewrite(table, "value_num", "itemid", count=1)
    texts = " ".join(one.text() for one in check().problems)
    assert "no column valuenum" in texts
    assert "has column itemid more than once" in texts


def test_values_of_another_type_are_named_by_column_and_not_quoted(check: Check, source: Path) -> None:
    table = source / "mimic_iv/hosp/labevents.csv.gz"
    rewrite(table, ",50912,", ",secret,", count=1)
    text = problem(check())
    assert "column itemid holds something that is no int64" in text
    assert "secret" not in text
    rewrite(table, ",secret,", ",50912,,,,,,,,,,,,,,,,,,,,,,", count=1)
    assert "a row has more or fewer fields than the header" in problem(check())


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda _: b"", "is empty"),
        (lambda data: data[:-20], "damaged archive: it ends in the middle"),
        (lambda data: data[:40] + b"\xff" * 40 + data[80:], "damaged archive"),
        (lambda _: b"not an archive", "damaged archive: it does not inflate"),
        (lambda _: gzip.compress(b""), "damaged archive: nothing is in it"),
        (lambda data: gzip.compress(gzip.decompress(data).split(b"\n")[0] + b"\n"), "has no rows"),
    ],
)
def test_damaged_archives_are_named(check: Check, source: Path, cut: Callable[[bytes], bytes], message: str) -> None:
    table = source / "mimic_iv/hosp/admissions.csv.gz"
    table.write_bytes(cut(table.read_bytes()))
    found = check()
    assert message in problem(found)
    found.text()


def test_every_form_of_a_table_is_found(check: Check, source: Path) -> None:
    for table in (source / "mimic_iv" / "hosp").glob("*.csv.gz"):
        plain = table.with_suffix("")
        plain.write_bytes(gzip.decompress(table.read_bytes()))
        table.unlink()
    assert {check().tables[name].form for name in ("labevents", "patients")} == {"csv"}


def test_a_table_that_is_parquet_has_exact_rows_and_costs_no_conversion(tmp_path: Path, source: Path) -> None:
    table = pacsv.read_csv(source / "mimic_iv/hosp/labevents.csv.gz")
    pq.write_table(table, tmp_path / "labevents.parquet", row_group_size=30)
    one = glance(LABEVENTS, tmp_path / "labevents.parquet", seconds=1)
    assert (one.form, one.rows, one.exact, one.convert_seconds) == ("parquet", 80, True, 0.0)
    assert one.sample.num_rows in (20, 30)
    pq.write_table(table.drop_columns(["valuenum"]), tmp_path / "labevents.parquet")
    assert glance(LABEVENTS, tmp_path / "labevents.parquet", seconds=1).missing == ("valuenum",)


def test_files_that_cannot_be_used_are_counted_by_their_reason(check: Check, source: Path) -> None:
    images = sorted((source / "mimic_cxr").rglob("*.jpg"))
    for image in images[:10]:
        image.write_bytes(jpeg()[:-9])
    for image in images[10:20]:
        image.unlink()
    found = check()
    one = found.opened["cxr"]
    assert found.exit_code == 0
    assert one.looked_at == 32
    assert one.fine + sum(one.refused.values()) == 32
    assert set(one.refused) == {"truncated", "file missing"}
    assert 3 <= one.missing <= 10
    assert any("of the sampled files cannot be used" in note for note in found.notes)
    assert any("it allows 20%, or more with --set max_refused" in note for note in found.notes)
    assert "truncated" in found.text()


def test_a_tree_without_files_cannot_be_built_from(check: Check, source: Path) -> None:
    shutil.rmtree(source / "mimic_ecg" / "files")
    found = check()
    assert "None of 32 sampled files of 'ecg'" in problem(found)
    assert found.cost is not None
    assert found.cost.unknown == ["ecg files: none could be read"]


def test_a_pipe_in_a_file_s_place_does_not_hang(check: Check, source: Path) -> None:
    (source / "mimic_ecg" / "record_list.csv").unlink()
    os.mkfifo(source / "mimic_ecg" / "record_list.csv")
    os.mkfifo(source / "mimic_iv" / "CHANGELOG.txt")
    started = time.monotonic()
    texts = [one.text() for one in check().problems]
    assert any("record_list.csv is not a file" in text for text in texts)
    assert time.monotonic() - started < preflight.SECONDS


def test_a_folder_that_does_not_answer_is_given_up(check: Check, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other sources are looked at all the same."""
    real = glance

    def slow(spec: Any, path: Path, *, seconds: float) -> Any:
        if spec.source == "mimic_iv":
            time.sleep(5)
        return real(spec, path, seconds=seconds)

    monkeypatch.setattr(preflight, "glance", slow)
    monkeypatch.setattr(preflight, "SECONDS_PER_TABLE", 0.5)
    found = check()
    assert f"{source / 'mimic_iv'} does not answer" in problem(found)
    assert set(found.opened) == {"cxr", "ecg"}
    assert found.cost is None


def test_what_could_not_be_looked_at_in_time_is_no_problem(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SECONDS", 0.0)
    found = check()
    assert found.problems == []
    assert len(found.notes) == 3
    assert all("the time was up" in note for note in found.notes)


def test_files_that_do_not_answer_are_given_up(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "_open", lambda *_: time.sleep(5))
    monkeypatch.setattr(opened, "SECONDS_PER_FILE", 0.2)
    assert [one.text().split(". ")[0] for one in check().problems] == [
        f"Files below {root} do not answer" for root in check().roots.values() if root.name != "mimic_iv"
    ]


def test_a_file_that_may_not_be_read_is_named(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: Any, path: Path, *, seconds: float) -> Any:  # noqa: ARG001  the real one's arguments
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(preflight, "glance", refuse)
    texts = [one.text() for one in check().problems]
    assert len(texts) == 6
    assert all("cannot be read: Permission denied. Check its permissions." in text for text in texts)


def test_a_disk_that_is_full_or_read_only_is_no_place_for_a_cohort(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    texts = [one.text() for one in check(out=Path("deep/er/cohort")).problems if "may not be read" not in one.found]
    assert any("may not be written to. Choose another place with --out" in text for text in texts)
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert "has 1 kB free, but about" in problem(check())


def test_releases_that_are_not_the_paper_s_are_pointed_out(check: Check, source: Path) -> None:
    (source / "mimic_iv" / "CHANGELOG.txt").write_text("## v3.1\n")
    found = check("name=symile_mimic")
    assert found.releases["mimic_iv"].version == "3.1"
    assert "Counts will differ from the paper's 11,622 admissions: MIMIC-IV 3.1 instead of 2.2." in found.notes
    assert not any("paper" in note for note in check().notes)


def test_rows_of_a_large_table_are_estimated_within_a_fifth(tmp_path: Path) -> None:
    """Rows that grow longer towards the end, as sorted tables may; in an archive only the head is read."""
    header = ",".join(LABEVENTS.columns) + "\n"
    rows = [
        f"{i},{10_000_000 + i // 400},,{i // 9},{50800 + i % 900},,2150-03-01 12:00:00,2150-03-01 13:00:00,"
        f"{i % 977 / 10},{i % 977 / 10},mg/dL,0,50,,ROUTINE,{'x' * (i % 40)}\n"
        for i in range(200_000)
    ]
    data = (header + "".join(rows)).encode()
    archive, plain = tmp_path / "labevents.csv.gz", tmp_path / "labevents.csv"
    archive.write_bytes(b"".join(gzip.compress(data[i : i + 3_000_000], 1) for i in range(0, len(data), 3_000_000)))
    plain.write_bytes(data)
    exact = glance(LABEVENTS, archive, seconds=5)
    assert (exact.rows, exact.exact) == (200_000, True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WHOLE_ARCHIVE_BYTES", 1), ("HEAD_BYTES", 2 << 20), ("RAW_BYTES", 1 << 20)):
            patch.setattr(f"symile_clin.sources.part.{name}", value)
        patch.setattr("symile_clin.sources.part.BLOCK_BYTES", 1 << 17)
        patch.setattr("symile_clin.sources.part.CHUNK_BYTES", 1 << 17)
        for path in (archive, plain):
            estimated = glance(LABEVENTS, path, seconds=5)
            assert not estimated.exact
            assert estimated.sample.num_rows < 50_000
            assert abs(estimated.rows - 200_000) < 40_000
            assert abs(estimated.copy_bytes - exact.copy_bytes) < 0.5 * exact.copy_bytes
    shown = Preflight("tiny", tmp_path, machine.look_at_machine(tmp_path), {}, tables={"labevents": estimated}).text()
    assert " (estimated)" in shown


def test_a_byte_order_mark_and_a_missing_last_line_feed_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "labevents.csv"
    path.write_text("\ufeff" + ",".join(LABEVENTS.columns) + "\r\n" + "1," * 15 + "\r\n" + "2," * 15)
    one = glance(LABEVENTS, path, seconds=1)
    assert (one.rows, one.missing, one.unknown) == (2, (), ())


def test_the_command_prints_a_table_or_one_object_and_its_exit_code(
    check: Check, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check()  # in the test's folder
    command = ["cohort", "check", str(source / "tiny.yaml")]
    folders = [part for name in SOURCES for part in (f"--{name.replace('_', '-')}", str(source / name))]
    assert cli.run([*command, *folders]) == 0
    assert "Cost, estimated" in capsys.readouterr().out
    assert cli.run([*command, *folders, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    assert cli.run([*command, "--json", "--quiet"]) == 3
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 3


def test_the_cost_is_that_of_the_spec_that_was_given(check: Check) -> None:
    small, large = check().cost, check("modalities.cxr.short_side=320", "modalities.cxr.long_side=400").cost
    assert small is not None
    assert large is not None
    assert large.total_disk > small.total_disk


def test_stays_and_named_tables_are_counted_as_index_events(check: Check, source: Path, tmp_path: Path) -> None:
    events = tmp_path / "visits.csv"
    events.write_text("subject_id,visit,seen\n" + "10000000,1,2150-03-01 12:00:00\n" * 1000)
    named = ["index.event=table", f"index.path={events}", "index.id=visit", "index.time=seen"]
    found = check(*named)
    assert found.problems == []
    assert found.cost is not None
    assert found.cost.samples == 27
    assert "has no column when" in problem(check(*named[:3], "index.time=when"))
    events.unlink()
    assert "Set 'index.path' of the spec" in problem(check(*named))
    assert "has no icu/icustays.csv.gz" in problem(check("index.event=icu_stay", "index.time=intime"))
    (source / "mimic_iv" / "icu").mkdir()
    table = source / "mimic_iv" / "icu" / "icustays.csv"
    columns = "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los\n"
    table.write_text(columns + "10000000,20000000,30000000,,,2150-03-01 12:00:00,,\n" * 100)
    found = check("index.event=icu_stay", "index.time=intime")
    assert found.problems == []
    assert found.cost is not None
    assert found.cost.samples == 3


def test_splits_that_ask_for_more_than_there_can_be_are_a_problem(check: Check) -> None:
    sizes = ["splits.train=30", "splits.val=11"]
    assert problem(check(*sizes)).startswith("The splits ask for 41 samples of 40 index events. Ask for shares")
    found = check("splits.train=30", "splits.val=10")
    assert found.problems == []
    assert "the splits ask for 40 samples, but about 2 are expected" in found.notes


def test_a_release_that_takes_too_long_to_tell_is_unknown(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "detect", lambda *_: time.sleep(3))
    monkeypatch.setattr(preflight, "SECONDS_PER_FOLDER", 0.1)
    found = check()
    assert found.problems == []
    assert {one.evidence for one in found.releases.values()} == {"it took too long to find out"}
