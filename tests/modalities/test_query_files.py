"""Files to ask with: the released form of each room, and what a person writes by hand, right and wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symile_clin.errors import SourceError
from symile_clin.modalities.base import Modality, Refusal
from symile_clin.modalities.cxr.dicom_reader import read_dicom
from symile_clin.modalities.features.query_file import read_vector
from symile_clin.modalities.labs.query_file import read_values
from symile_clin.modalities.registry import ROOMS, released_forms
from symile_clin.rng import stream
from symile_clin.strict import validate
from tests.cohort.tree import jpeg, waveform, write_record
from tests.modalities.test_cxr_dicom import film, write

ITEMS = [50912, 50931]
STATE = {
    "50912": {"values": [0.5, 1.0, 2.0], "counts": [1, 2, 1]},
    "50931": {"values": [80.0, 200.0], "counts": [3, 1]},
}


def room(name: str, **options: Any) -> Modality:
    return ROOMS[name](name, validate(ROOMS[name].Options, options, source="it"))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file for each room of the release; the picture is wider than the square."""
    (tmp_path / "picture.jpg").write_bytes(jpeg(96, 61))
    write_record(tmp_path / "40000001", waveform(3))
    (tmp_path / "values.csv").write_text("itemid,valuenum\n50912,1.1\n")
    return {"cxr": tmp_path / "picture.jpg", "ecg": tmp_path / "40000001.hea", "labs": tmp_path / "values.csv"}


OPTIONS: dict[str, dict[str, Any]] = {"cxr": {"short_side": 32, "long_side": 40}, "ecg": {}, "labs": {"items": ITEMS}}
RELEASED: dict[str, dict[str, Any]] = {
    "cxr": {"short_side": 32, "long_side": 32, "stored": "released"}, "ecg": {"stored": "released"},
    "labs": {"items": ITEMS},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_release_gets_what_its_own_files_would_hold(name: str, files: dict[str, Path]) -> None:
    own, released = room(name, **OPTIONS[name]), room(name, **RELEASED[name])
    form = released_forms()[name](own)
    read = own.read_query(files[name], STATE)
    batch = {key: np.array(read[key])[None] for key in (*own.arrays, *own.input_columns)}
    written = form.write_arrays(batch, None)
    found = released.read_query(files[name], STATE)
    assert {array: found[array].shape for array in released.arrays} == {
        array: spec.shape for array, spec in released.arrays.items()
    }
    for stem, expected in form.arrays.items():
        array = expected.serves_as or {"labs_percentiles": "percentile", "labs_missingness": "observed"}[stem]
        np.testing.assert_array_equal(found[array], written[stem][0])
        assert expected.serves_as is None or found[array].dtype == written[stem].dtype


def test_a_record_is_found_with_and_without_an_ending(files: dict[str, Path]) -> None:
    ecg = room("ecg")
    first = ecg.read_query(files["ecg"], {})
    for path in (files["ecg"].with_suffix(""), files["ecg"].with_suffix(".dat")):
        np.testing.assert_array_equal(ecg.read_query(path, {})["signal"], first["signal"])
    np.testing.assert_array_equal(first["signal"], waveform(3))


@pytest.mark.parametrize("name", [".", "/", "absent", "absent.hea", "picture.jpg"])
def test_what_is_no_record_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("picture.jpg").touch()
    with pytest.raises(SourceError, match=r"file missing \(a record is a .hea and a .dat\)"):
        room("ecg").read_query(Path(name), {})


def test_a_dicom_is_anybodys_here(tmp_path: Path) -> None:
    path = tmp_path / "picture.DCM"
    write(path, film(), PatientID="10000009", StudyID="50000009")
    found = room("cxr", short_side=32, long_side=40).read_query(path, {})
    expected = read_dicom(
        path, rendering="mimic_jpg", subject_id=10_000_009, study_id=50_000_009, short_side=32, long_side=40
    )
    assert not isinstance(expected, Refusal)
    assert (int(found["cxr_height"]), int(found["cxr_width"])) == expected.shape == (40, 32)
    np.testing.assert_array_equal(found["image"][0, :, :32], expected)


@pytest.mark.parametrize(
    ("file", "text", "values"),
    [
        ("a.csv", "itemid,valuenum\n50912,1.5\n50931,\n", {50912: 1.5}),
        ("a.csv", "\ufeffvalue,itemid,unit\r\n90,50931.0,mg/dL\r\n\r\n1e0,50912,mg/dL\r\n", {50931: 90.0, 50912: 1.0}),
        ("a.csv", "itemid, valuenum\n 50912 , 2\n", {50912: 2.0}),
        ("a.json", '{"50912": 1.5, "50931": null}', {50912: 1.5}),
        ("a.json", '{"50931": 90}', {50931: 90.0}),
    ],
)
def test_values_as_a_person_writes_them(tmp_path: Path, file: str, text: str, values: dict[int, float]) -> None:
    (tmp_path / file).write_bytes(text.encode())
    assert read_values(tmp_path / file, items=ITEMS) == values


def test_percentiles_are_of_train_and_what_is_missing_takes_their_mean(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("itemid,valuenum\n50912,1.0\n")
    found = room("labs", items=ITEMS).read_query(tmp_path / "a.csv", STATE)
    # three of four are at most 1.0; of the other item three have 3/4 and one has 4/4
    np.testing.assert_array_equal(found["percentile"], np.array([0.75, (3 * 0.75 + 1) / 4], dtype=np.float32))
    np.testing.assert_array_equal(found["observed"], [True, False])
    assert found["lab_50912"] == 1.0
    assert np.isnan(found["lab_50931"])


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("a.csv", "50912,1.5\n", "has the columns 50912, 1.5. Expected a header with itemid and valuenum"),
        ("a.csv", "itemid,valuenum\n", "has no value"),
        ("a.csv", "itemid,valuenum\n50912,\n", "has no value"),
        ("a.csv", "itemid,valuenum\n50192,1\n", "Did you mean '50912'"),
        ("a.csv", "itemid,valuenum\ncreatinine,1\n", "'creatinine', which is not of this panel.* Valid: 50912, 50931"),
        ("a.csv", "itemid,valuenum\n50912,1\n50912,2\n", "itemid 50912 twice"),
        ("a.csv", "itemid,valuenum\n50912,high\n", "value of itemid 50912 is 'high'"),
        ("a.csv", "itemid,valuenum\n50912,inf\n", "value of itemid 50912 is 'inf'"),
        ("a.csv", 'itemid,valuenum\n"50912,1\n', "no CSV"),
        ("a.csv", "itemid,valuenum\n50931,90\n50912,1,5\n", "line 2 below the header .* 3 cells for 2 columns"),
        ("a.csv", "itemid,valuenum,valuenum\n50912,1,9\n", "Expected each once"),
        ("a.csv", "itemid,valuenum\n50912,1_5\n", "value of itemid 50912 is '1_5'"),
        ("a.csv", "", "has the columns of an empty file|empty file"),
        ("a.csv", "\n", "has the columns of an empty file"),
        ("a.csv", "itemid,valuenum\n50912\n", "has no value"),
        ("a.json", "[1, 2]", "holds other JSON"),
        ("a.json", '{"50912": {"value": 1}}', "holds other JSON"),
        ("a.json", '{"50912": 1, "50912": 2}', "itemid 50912 twice"),
        ("a.json", '{"50912": NaN}', "is 'nan'"),
        ("a.json", '{"50912": 1', "is no JSON"),
    ],
)
def test_values_that_cannot_be_meant_are_one_clear_error(tmp_path: Path, file: str, text: str, words: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(SourceError, match=words) as caught:
        read_values(tmp_path / file, items=ITEMS)
    assert "\n" not in str(caught.value)


def test_vectors_of_a_file_of_their_own(tmp_path: Path) -> None:
    vector = stream(0, "vector").standard_normal(5).astype(np.float16)
    np.save(tmp_path / "a.npy", vector)
    np.save(tmp_path / "b.npy", vector[None])
    (tmp_path / "c.csv").write_text(",".join(map(repr, vector.astype(float).tolist())) + "\n")
    for file in ("a.npy", "b.npy", "c.csv"):
        np.testing.assert_array_equal(read_vector(tmp_path / file, width=5), vector)
    with pytest.raises(SourceError, match="Expected one vector of 4 fractions"):
        read_vector(tmp_path / "a.npy", width=4)
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, content in (("junk.npy", b"junk"), ("junk.csv", b"a,b")):
        (tmp_path / name).write_bytes(content)
    for file in ("pickle.npy", "junk.npy", "junk.csv"):
        with pytest.raises(SourceError, match="is no"):
            read_vector(tmp_path / file, width=5)


def test_a_vector_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    features = room("features", path="a.npy", ids="ids.npy", key="hadm_id", width=2, dtype="float16", standardize=False)
    np.save(tmp_path / "large.npy", np.array([1.0, 1e6]))
    with pytest.raises(SourceError, match="too large to be stored"):
        features.read_query(tmp_path / "large.npy", {})
    np.save(tmp_path / "nan.npy", np.array([1.0, np.nan]))
    with pytest.raises(SourceError, match="NaN"):
        features.read_query(tmp_path / "nan.npy", {})
