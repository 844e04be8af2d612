"""Synthetic X-rays: findings where anatomy has them, files and tables as MIMIC-CXR-JPG has them, dirt when asked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from symile_clin.modalities.cxr import phantom
from symile_clin.modalities.cxr.grey import published_grey
from symile_clin.modalities.cxr.synthetic import FACTORS, _describe, _labels, write
from symile_clin.modalities.cxr.tables import CHEXPERT, DICOM_RECORDS, DICOM_STUDIES, FINDINGS, METADATA
from symile_clin.modalities.synthetic_patient import SyntheticOptions, TableRows
from tests.modalities.synthetic_patient import make_patient

CLEAN = SyntheticOptions(dirt=0.0)
HEALTHY = (0, 0, 0, 0)


def _write(source: Path, *, findings: tuple[int, ...] = HEALTHY, options: SyntheticOptions = CLEAN) -> TableRows:
    patient = make_patient({"cxr": findings}, admissions=4)
    return write(patient, source, np.random.default_rng(1), options, name="cxr")


def _file(source: Path, row: Any) -> Path:
    return source / f"files/p12/p12345678/s{row['study_id']}/{row['dicom_id']}.jpg"


#: finding -> box it must brighten, as (x from, x to, y from, y to) in body coordinates
PLACES = {
    0: (0.40, 0.50, 0.66, 0.72),
    1: (0.42, 0.58, 0.46, 0.52),
    2: (-0.80, -0.60, 0.72, 0.80),
    3: (-0.60, -0.30, 0.25, 0.35),
}


@pytest.mark.parametrize("shown", range(FACTORS))
def test_a_finding_brightens_its_place_and_no_others(shown: int) -> None:
    findings = tuple(int(j == shown) for j in range(FACTORS))
    gain = np.zeros(FACTORS)
    for seed in range(3):
        with_it = phantom.frontal(np.random.default_rng(seed), findings, (0.0,) * 4)
        without = phantom.frontal(np.random.default_rng(seed), HEALTHY, (0.0,) * 4)
        for j, (x0, x1, y0, y1) in PLACES.items():
            rows = slice(*(round((y + 0.08) / 1.16 * with_it.shape[0]) for y in (y0, y1)))
            columns = slice(*(round((x + 1.4) / 2.8 * with_it.shape[1]) for x in (x0, x1)))
            gain[j] += (with_it[rows, columns] - without[rows, columns]).mean() / 3
    assert gain[shown] > 0.10
    assert np.abs(np.delete(gain, shown)).max() < 0.04


def test_every_row_has_its_film_at_its_size_and_every_study_its_labels(tmp_path: Path) -> None:
    tables = _write(tmp_path)
    metadata, chexpert = tables[METADATA.name], tables[CHEXPERT.name]
    assert all(set(row) == set(METADATA.columns) for row in metadata)
    assert all(set(row) <= set(CHEXPERT.columns) for row in chexpert)
    assert {row["study_id"] for row in metadata} == {row["study_id"] for row in chexpert}
    assert len({row["dicom_id"] for row in metadata}) == len(metadata)
    for row in metadata:
        with Image.open(_file(tmp_path, row)) as film:
            assert (film.format, film.mode, film.size) == ("JPEG", "L", (row["Columns"], row["Rows"]))
            assert min(film.size) == 512
            assert film.getextrema() == (0, 255)
    assert len(list(tmp_path.rglob("*.jpg"))) == len(metadata)


def test_nothing_but_pixels_and_labels_depends_on_the_findings(tmp_path: Path) -> None:
    healthy, ill = _write(tmp_path / "a"), _write(tmp_path / "b", findings=(1, 1, 1, 1))
    assert healthy[METADATA.name] == ill[METADATA.name]
    ids = [[(row["subject_id"], row["study_id"]) for row in tables[CHEXPERT.name]] for tables in (healthy, ill)]
    assert ids[0] == ids[1]


def test_images_of_a_study_share_its_time_and_times_have_lost_their_leading_zeros() -> None:
    film = np.zeros((4, 3), dtype=np.uint16)
    row = _describe("PA", ("PA", "LATERAL"), datetime(2180, 5, 6, 0, 5, 7, 250_000), film)
    assert (row["StudyDate"], row["StudyTime"], row["Rows"], row["Columns"]) == (21800506, 507.25, 4, 3)
    assert _describe("AP", ("AP",), datetime(2180, 5, 6, 21, 30, 14, 531_000), film)["StudyTime"] == 213014.531


def test_labels_agree_with_the_findings() -> None:
    rng = np.random.default_rng(0)
    names = ("Cardiomegaly", "Edema", "Pleural Effusion", "Consolidation")
    uncertain = 0
    for _ in range(300):
        findings = tuple(int(bit) for bit in rng.integers(0, 2, FACTORS))
        labels = _labels(rng, findings)
        assert set(labels) <= set(FINDINGS)
        for name, present in zip(names, findings, strict=True):
            assert labels[name] in ((1.0, -1.0) if present else (0.0, None))
            uncertain += labels[name] == -1.0
        assert (labels["No Finding"] == 1.0) == (not any(findings))
        assert (labels["Lung Opacity"] in (1.0, -1.0)) == bool(findings[1] or findings[3])
    assert 20 < uncertain < 90


def test_dirt_leaves_out_and_truncates_films_and_loses_labels(tmp_path: Path) -> None:
    tables = _write(tmp_path, options=SyntheticOptions(dirt=1.0))
    files = [_file(tmp_path, row) for row in tables[METADATA.name]]
    there = [file for file in files if file.exists()]
    assert 0 < len(there) < len(files)
    for file in there:
        with Image.open(file) as film, pytest.raises(OSError, match="truncated"):
            film.load()
    labelled = [row["study_id"] for row in tables[CHEXPERT.name]]
    assert set(labelled) < {row["study_id"] for row in tables[METADATA.name]}


def test_dicom_holds_the_same_films_and_changes_nothing_else(tmp_path: Path) -> None:
    jpg = tmp_path / "mimic-cxr-jpg"
    tables = _write(jpg, options=SyntheticOptions(dicom=True, dirt=0.0))
    alone = _write(tmp_path / "alone")
    assert all(alone[name] == tables[name] for name in alone)
    records = tables[DICOM_RECORDS.name]
    assert [row["dicom_id"] for row in records] == [row["dicom_id"] for row in tables[METADATA.name]]
    assert {row["study_id"] for row in tables[DICOM_STUDIES.name]} == {row["study_id"] for row in records}
    inverted = 0
    for record, row in zip(records, tables[METADATA.name], strict=True):
        dataset = pydicom.dcmread(tmp_path / "mimic-cxr" / record["path"])
        darkest_is_white = dataset.PhotometricInterpretation == "MONOCHROME1"
        inverted += darkest_is_white
        with Image.open(_file(jpg, row)) as film:
            grey = published_grey(dataset.pixel_array, inverted=darkest_is_white)
            difference = np.abs(grey.astype(int) - np.asarray(film).astype(int))
        assert difference.mean() < 3  # what JPG at quality 95 loses of the grain
        assert float(dataset.StudyTime) == row["StudyTime"]
    assert 0 < inverted < len(records)


def test_a_landscape_film_shows_the_same_scale() -> None:
    canvas = phantom.frontal(np.random.default_rng(0), HEALTHY, (0.0,) * 4)
    still = {"tilt": 0.0, "zoom": (1.0, 1.0), "shift": (0.0, 0.0)}
    upright = phantom.place(canvas, rows=624, columns=512, **still)  # type: ignore[arg-type]  # mixed keywords
    wide = phantom.place(canvas, rows=512, columns=624, **still)  # type: ignore[arg-type]  # mixed keywords
    # the same 400 x 400 of the body, 256 and 260 pixels to the unit
    middle = [image[image.shape[0] // 2 - 200 :, image.shape[1] // 2 - 200 :][:400, :400] for image in (upright, wide)]
    assert np.corrcoef(middle[0].ravel(), middle[1].ravel())[0, 1] > 0.95
