"""report.html of a small run: whole, without what is not there, escaped, private, without a place of this machine."""

from __future__ import annotations

import json
import re
import shutil
import stat
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from symile_clin import files
from symile_clin.cli import run as run_command
from symile_clin.data.store import Cohort
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.evaluation.page import Details, Table
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.reporting import report
from symile_clin.progress import Quiet
from symile_clin.report.attribution import attribution_section
from symile_clin.report.compose import read_embedded
from symile_clin.report.gallery_section import values_of
from symile_clin.schema import ATTRITION, EMBEDDINGS, METRICS_LOG, REPORT, RETRIEVAL
from tests.evaluation.test_page import Outline
from tests.report.evaluated import HOSTILE, evaluated_run

EVAL = Path("runs/one/eval/val")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        evaluated_run(folder)
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same again, to take things away from."""
    place = shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(place)
    monkeypatch.setattr("symile_clin.report.compose.attribution_section", partial(attribution_section, count=1))
    return place


def written(place: Path) -> Outline:
    return Outline((place / EVAL / REPORT).read_text(encoding="utf-8"))


def titles(page: Outline) -> list[str]:
    return [str(one["id"]) for one in page.named("section")]


def missing(page: Outline) -> list[str]:
    return [text.removeprefix("Not shown: ") for text in page.texts if text.startswith("Not shown: ")]


def test_an_evaluation_writes_the_page(folder: Path) -> None:
    page = written(folder)
    assert titles(page) == [
        "headline", "cohort", "training", "retrieval", "gallery", "measured", "embedding-map", "attribution", "made",
    ]  # fmt: skip
    assert stat.S_IMODE((folder / EVAL / REPORT).stat().st_mode) == 0o600
    metrics = files.read_json(folder / EVAL / "metrics.json")
    assert f"{metrics['val/blue/recall_at_1']:.3f}" in page.texts
    assert any(text.startswith("REAL PATIENTS.") for text in page.texts)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert all(one["alt"] for one in page.named("img"))
    assert all(one.get("scope") for one in page.named("th"))


def test_names_and_values_stay_text(folder: Path) -> None:
    page = written(folder)
    assert sum(HOSTILE in text for text in page.texts) >= 4  # title, headline, attrition, splits, ...
    assert not [one for one in page.tags if "onerror" in one[1]]
    assert not page.named("script")


def test_neither_paths_nor_ids_nor_addresses(folder: Path) -> None:
    text = re.sub(r"data:image/[^\"]*", "", (folder / EVAL / REPORT).read_text())
    assert str(folder) not in text
    assert "/tmp" not in text
    assert not re.search(r"https?:|file:|subject_id|hadm_id", text)


def test_the_gallery_shows_queries_as_the_model_ranks_them(folder: Path) -> None:
    page = written(folder)
    queries = [
        text
        for text in page.texts
        if re.fullmatch(r"Query \d of 5: the truth is ranked \d of 5(, level with \d)?", text)
    ]
    assert len(queries) == 5
    marked = [one for one in page.named("figure") if one.get("class") == "true"]
    assert len(marked) == 5  # the truth of each query, once
    assert sum("the truth: score" in text for text in page.texts) == 5
    assert any(text in ("low", "high") for text in page.texts)
    assert "red: this sample has none." not in missing(page)  # row 3, which lacks red, is a training sample


def test_it_comes_again_to_the_byte_and_by_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / EVAL / REPORT).read_bytes()
    assert run_command(["report", "one", "--split", "val", "--json", "--device", "cpu"]) == 0
    assert (folder / EVAL / REPORT).read_bytes() == before
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"run": "one", "path": str(EVAL / REPORT), "bytes": len(before), "patient_level": True}


def test_without_optional_parts_there_is_a_page_that_says_so(copy: Path) -> None:
    cohort = copy / "data" / "cohorts" / "tiny"
    (cohort / ATTRITION).unlink()
    (copy / "runs" / "one" / METRICS_LOG).unlink()
    for name in (RETRIEVAL, "subgroups.csv", "evaluation.json"):
        (copy / EVAL / name).unlink(missing_ok=True)
    for picture in (copy / EVAL).glob("*.png"):
        picture.unlink()
    report(run="one", split="val", device="cpu", progress=Quiet())
    said = missing(written(copy))
    for words in (
        "this cohort was imported", "this run was taken over", "the table of all ways of asking", "figures of ranks",
        "nothing was measured yet. Run symile-clin probe one --split val.",
    ):  # fmt: skip
        assert any(text.startswith(words) for text in said), (words, said)
    assert len(titles(written(copy))) == 9


def test_what_other_commands_left_is_shown(copy: Path) -> None:
    probes, information = copy / "runs/one/probes/val", copy / "runs/one/information/val"
    probes.mkdir(parents=True)
    information.mkdir(parents=True)
    pd.DataFrame({"finding": [HOSTILE] * 100, "auroc": [0.75] * 100}).to_csv(probes / "findings.csv", index=False)
    shutil.copy(next((copy / EVAL).glob("*.png")), probes / "auroc.png")
    files.write_json(
        information / "metrics.json",
        {"val/information/tc/lower_bound": 0.5, "val/information/tc/lower_bound_ci_low": 0.25,
         "val/information/tc/lower_bound_ci_high": 0.625, "val/information/tc/lower_bound_n": 12.0},
    )  # fmt: skip
    report(run="one", split="val", device="cpu", progress=Quiet())
    page = written(copy)
    assert "Probes: auroc" in page.texts
    assert sum(text == HOSTILE for text in page.texts) > 50
    assert any("The first 60 of 100 lines" in text for text in page.texts)
    assert "tc · lower bound" in page.texts
    assert "[0.250, 0.625]" in page.texts
    assert "12.000" not in page.texts


def test_no_evaluation_no_page(copy: Path) -> None:
    with pytest.raises(NotFoundError, match="symile-clin eval one --split test"):
        report(run="one", device="cpu", progress=Quiet())
    (copy / EVAL / EMBEDDINGS).unlink()
    with pytest.raises(NotFoundError, match="symile-clin eval one --split val"):
        report(run="one", split="val", device="cpu", progress=Quiet())


def test_embeddings_of_other_samples_are_refused(copy: Path) -> None:
    cohort = Cohort(copy / "data" / "cohorts" / "tiny", files.read_json(copy / "data/cohorts/tiny/manifest.json"))
    modalities = modalities_of(cohort.spec)
    embedded, rows = read_embedded(copy / EVAL, cohort, modalities, again="again")
    np.testing.assert_array_equal(rows, cohort.rows("val"))
    assert {name: len(one) for name, one in embedded.embeddings.items()} == dict.fromkeys(modalities, len(rows))
    np.savez(copy / EVAL / EMBEDDINGS, row=rows, blue=embedded.embeddings["blue"])
    with pytest.raises(MismatchError, match="is not of cohort"):
        read_embedded(copy / EVAL, cohort, modalities, again="again")


def test_of_many_values_those_with_a_flag_come_first() -> None:
    flags = pd.Series([""] * 20 + ["high", "low"])
    table = pd.DataFrame({"item": [f"item {n}" for n in range(22)], "value": "1", "flag": flags})
    first, folded = values_of(table, "blue")
    assert isinstance(first, Table)
    assert first.frame["item"].tolist() == ["item 20", "item 21"]
    assert "2 of 22 lines" in first.caption
    assert isinstance(folded, Details)
    (rest,) = folded.blocks
    assert isinstance(rest, Table)
    assert len(rest.frame) == 20

    (few,) = values_of(table.tail(5), "blue")  # few lines stay in their order
    assert isinstance(few, Table)
    assert (len(few.frame), few.marked) == (5, [3, 4])
    (none,) = values_of(table.head(20), "blue")  # nothing is set off
    assert isinstance(none, Details)
    (plain,) = values_of(table[["item", "value"]].head(3), "blue")  # a room without flags
    assert isinstance(plain, Table)
    (all_of,) = values_of(table.assign(flag="low"), "blue")
    assert isinstance(all_of, Table)
    assert len(all_of.frame) == 22
