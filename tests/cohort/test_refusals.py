"""A build stops by itself when more than a set share of a modality's files is refused, and keeps what it has read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.refusals import LEAST_REFUSED, RefusalLimit, TooManyRefusedError
from symile_clin.errors import CohortError
from symile_clin.modalities.base import Reason, Refusal
from symile_clin.pipeline.cohorts import BuildResult, build_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree, jpeg

SAMPLES = 120
CUT = jpeg()[:-40] + bytes(40)  # as long as a whole one


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Admissions with an X-ray and a lab, and no ECG."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(SAMPLES):
        subject = 10_000_000 + number
        tree.admission(subject, 20_000_000 + number)
        tree.xray(subject, 50_000_000 + number, ADMITTED + 30 * HOUR)
        tree.lab(subject, ADMITTED + HOUR, float(number))
        tree.lab(subject, ADMITTED + HOUR, float(number), item=50931)
    tree.write()
    return tree


def spoil(tree: Tree, cut: int, missing: int = 0) -> None:
    """Cut the first X-rays, take the next ones away, and mend all others."""
    every = sorted((tree.roots["mimic_cxr"] / "files").rglob("p*/s*"))
    for number, folder in enumerate(every):
        dicom_id = next(row["dicom_id"] for row in tree.rows["cxr_metadata"] if f"s{row['study_id']}" == folder.name)
        path = folder / f"{dicom_id}.jpg"
        if number < cut:
            path.write_bytes(CUT)
        elif number < cut + missing:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(jpeg())


def build(tree: Tree, out: Path, *overrides: str) -> BuildResult:
    modalities = {name: SPEC["modalities"][name] for name in ("cxr", "labs")}
    values: dict[str, Any] = {**SPEC, "modalities": modalities, "require": ["labs", "cxr"]}
    spec = out.parent / "tiny.yaml"
    spec.write_text(dump_yaml(values))
    roots: dict[str, Any] = {"mimic_iv": tree.roots["mimic_iv"], "mimic_cxr": tree.roots["mimic_cxr"]}
    return build_cohort(
        spec=str(spec), **roots, out=out, overrides=overrides, workers=1, tracking_uri=None, progress=Quiet()
    )


def test_a_wrong_mount_stops_the_build_with_counts_and_the_list(tree: Tree, tmp_path: Path) -> None:
    spoil(tree, cut=0, missing=SAMPLES)
    with pytest.raises(CohortError) as caught:
        build(tree, tmp_path / "tiny")
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert "120 of the 120 files of 'cxr' to be looked at are refused already" in text
    assert "more than the 20% that the spec allows: file missing 120" in text
    assert "--set max_refused=1" in text  # no smaller share would do
    assert "\n" not in text
    listed = tmp_path / "tiny.quarantine.parquet"
    assert str(listed) in text
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    assert (pd.read_parquet(listed)["reason"] == str(Reason.MISSING)).sum() == SAMPLES
    assert not (tmp_path / "tiny").exists()


def test_a_broken_download_stops_while_it_is_read_and_what_was_read_is_kept(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symile_clin.cohort.reading.SHARD_EVENTS", 10)
    spoil(tree, cut=LEAST_REFUSED)  # the first ones, so that the rest need not be read to know
    with pytest.raises(CohortError, match=r"50 of the 120 files of 'cxr' to be read .* allows: truncated 50"):
        build(tree, tmp_path / "tiny")
    shards = list((tmp_path / ".tiny.building" / "shards").iterdir())
    assert len(shards) == LEAST_REFUSED // 10, "it went on reading"
    refused = pd.read_parquet(tmp_path / "tiny.quarantine.parquet")
    assert refused["reason"].tolist() == [str(Reason.TRUNCATED)] * LEAST_REFUSED
    # the same command, allowing more, goes on with what was read: of files that look the same, answers are the same
    for path in (tree.roots["mimic_cxr"] / "files").rglob("*.jpg"):
        times = path.stat().st_mtime_ns
        path.write_bytes(jpeg())
        os.utime(path, ns=(times, times))
    result = build(tree, tmp_path / "tiny", "max_refused=0.5")
    assert sum(result.samples.values()) == SAMPLES - LEAST_REFUSED
    # and the list is gone with the fault
    assert not (tmp_path / "tiny.quarantine.parquet").exists()
    assert len(pd.read_parquet(tmp_path / "tiny" / "quarantine.parquet")) == LEAST_REFUSED


@pytest.mark.parametrize(
    ("refused", "share", "stops"),
    [(LEAST_REFUSED - 1, 0.1, False), (LEAST_REFUSED, 0.42, False), (LEAST_REFUSED, 0.41, True), (SAMPLES, 1.0, False)],
)
def test_a_share_that_is_allowed_and_a_few_files_of_few_never_stop_a_build(
    refused: int, share: float, stops: bool
) -> None:
    books = Attrition(pd.DataFrame({"sample_id": ["1"]}))
    limit = RefusalLimit("cxr", "read", share=share, attrition=books)
    limit.expect(SAMPLES)
    for _ in range(refused):
        limit.count(Refusal(Reason.TRUNCATED))
        limit.count(Refusal(Reason.UNLABELLED))  # not about a file
        limit.count(None)
    assert limit.exceeded == stops
    if stops:
        with pytest.raises(TooManyRefusedError, match="50 of the 120 files"):
            limit.stop_if_exceeded()


def test_answers_that_are_known_from_an_earlier_build_stop_it_too(tree: Tree, tmp_path: Path) -> None:
    spoil(tree, cut=0, missing=SAMPLES)
    for _ in range(2):
        with pytest.raises(CohortError, match="120 of the 120 files"):
            build(tree, tmp_path / "tiny")
    assert (tmp_path / ".cache" / "answers.sqlite").stat().st_size
    assert len(pd.read_parquet(tmp_path / "tiny.quarantine.parquet")) == SAMPLES
