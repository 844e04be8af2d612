"""X-rays as DICOM: the published recipe, the viewer's way, and every way a file can be wrong."""

from __future__ import annotations

import io
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.cxr import CXR, CxrOptions
from symile_clin.modalities.cxr.dicom import write_dicom
from symile_clin.modalities.cxr.dicom_reader import read_dicom
from symile_clin.modalities.cxr.grey import published_grey
from symile_clin.modalities.cxr.preprocess import fit, read_xray
from symile_clin.rng import stream

SUBJECT, STUDY = 10_000_032, 50_414_267
DICOM_ID = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
Stored = NDArray[np.uint16]


def film(height: int = 120, width: int = 90) -> Stored:
    """Bright in the upper left corner alone, so that no turn of it looks the same."""
    grain = stream(0, "test", "dicom").integers(0, 900, (height, width))
    grain[: height // 3, : width // 4] += 3000
    return grain.astype(np.uint16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.dcm"


def write(path: Path, stored: Stored, *, inverted: bool = False, **elements: Any) -> None:
    """A DICOM with other elements than the writer's; None takes one away."""
    write_dicom(
        path, stored, dicom_id=DICOM_ID, subject_id=SUBJECT, study_id=STUDY, time=datetime(2180, 5, 6), view="AP",
        inverted=inverted,
    )  # fmt: skip
    if elements:
        dataset = pydicom.dcmread(path)
        for name, value in elements.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(path)


def read(path: Path, rendering: Literal["mimic_jpg", "voi"] = "mimic_jpg") -> NDArray[np.uint8] | Refusal:
    """Read it without a resize; a warning that leaks fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_dicom(
            path, rendering=rendering, subject_id=SUBJECT, study_id=STUDY, short_side=90, long_side=120
        )  # fmt: skip


def pixels(path: Path, rendering: Literal["mimic_jpg", "voi"] = "mimic_jpg") -> NDArray[np.uint8]:
    found = read(path, rendering)
    assert isinstance(found, np.ndarray), found
    return found


@pytest.mark.parametrize("inverted", [False, True])
def test_the_default_is_the_published_recipe_inverted_once_and_without_a_window(path: Path, inverted: bool) -> None:
    write(path, film(), inverted=inverted, WindowCenter=100, WindowWidth=20, RescaleSlope=2, RescaleIntercept=7)
    np.testing.assert_array_equal(pixels(path), published_grey(film(), inverted=inverted))


@pytest.mark.parametrize("rendering", ["mimic_jpg", "voi"])
@pytest.mark.parametrize("inverted", [False, True])
def test_rows_stay_rows_and_bright_stays_bright(
    path: Path, rendering: Literal["mimic_jpg", "voi"], inverted: bool
) -> None:
    stored = 4095 - film() if inverted else film()
    write(path, stored, inverted=inverted)
    found = pixels(path, rendering).astype(int)
    assert found.shape == (120, 90)
    upper_left, rest = found[:40, :22].mean(), found[40:].mean()
    assert upper_left > rest + 60
    assert found[:40, 22:].mean() < upper_left - 60
    # as the jpg of the same film shows it
    buffer = io.BytesIO()
    Image.fromarray(published_grey(stored, inverted=inverted)).save(buffer, "JPEG", quality=95)
    path.with_suffix(".jpg").write_bytes(buffer.getvalue())
    jpg = read_xray(path.with_suffix(".jpg"), short_side=90, long_side=120)
    assert isinstance(jpg, np.ndarray)
    assert np.corrcoef(jpg.ravel(), found.ravel())[0, 1] > (0.6 if rendering == "voi" else 0.99)


def window_by_hand(value: int, *, centre: float, width: float) -> float:
    """DICOM PS3.3 C.11.2.1.2.1, to 0 ... 255."""
    if value <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if value > centre - 0.5 + (width - 1) / 2:
        return 255.0
    return ((value - (centre - 0.5)) / (width - 1) + 0.5) * 255


@pytest.mark.parametrize("inverted", [False, True])
def test_voi_applies_rescaling_then_the_window_and_inverts_once(path: Path, inverted: bool) -> None:
    write(path, film(), inverted=inverted, WindowCenter=1500, WindowWidth=1200, RescaleSlope=2, RescaleIntercept=-300)
    by_hand = [[window_by_hand(2 * int(v) - 300, centre=1500, width=1200) for v in row] for row in film()]
    expected = np.array(by_hand)
    np.testing.assert_allclose(pixels(path, "voi"), 255 - expected if inverted else expected, atol=0.501)


def test_the_first_of_several_windows_is_taken(path: Path) -> None:
    write(path, film(), WindowCenter=[700, 3000], WindowWidth=[500, 10])
    by_hand = [[window_by_hand(int(v), centre=700, width=500) for v in row] for row in film()]
    np.testing.assert_allclose(pixels(path, "voi"), by_hand, atol=0.501)


def test_voi_takes_the_table_where_there_is_one(path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 8]
    table.LUTData = [value // 16 for value in range(4096)][::-1]
    table["LUTData"].VR = "US"
    write(path, film(), VOILUTSequence=[table], WindowCenter=5, WindowWidth=5)
    np.testing.assert_array_equal(pixels(path, "voi"), 255 - film() // 16)


def test_voi_without_a_window_spans_the_picture_without_equalising(path: Path) -> None:
    write(path, film())
    low, high = int(film().min()), int(film().max())
    np.testing.assert_allclose(pixels(path, "voi"), (film().astype(int) - low) / (high - low) * 255, atol=0.501)


@pytest.mark.parametrize("rendering", ["mimic_jpg", "voi"])
def test_signed_values_keep_their_order(path: Path, rendering: Literal["mimic_jpg", "voi"]) -> None:
    signed = film().astype(np.int16) - 2000
    plain = path.with_name("plain.dcm")
    write(plain, film())
    write(path, film(), PixelRepresentation=1, PixelData=signed.tobytes(), BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(pixels(path, rendering), pixels(plain, rendering))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless])
def test_other_ways_to_write_the_same_values_give_the_same_picture(path: Path, syntax: pydicom.uid.UID) -> None:
    write(path, film())
    expected = pixels(path)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed:
        buffer = io.BytesIO()
        Image.fromarray(film()).save(buffer, "JPEG2000", no_jp2=True)
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].is_undefined_length = True
    elif not syntax.is_little_endian:
        dataset.PixelData = film().astype(">u2").tobytes()
    pydicom.dcmwrite(path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    np.testing.assert_array_equal(pixels(path), expected)


def test_a_jpg_of_the_same_film_is_near_but_not_equal(path: Path) -> None:
    write(path, film())
    buffer = io.BytesIO()
    Image.fromarray(published_grey(film(), inverted=False)).save(buffer, "JPEG", quality=95)
    path.with_suffix(".jpg").write_bytes(buffer.getvalue())
    jpg = read_xray(path.with_suffix(".jpg"), short_side=45, long_side=60)
    dicom = read_dicom(
        path, rendering="mimic_jpg", subject_id=SUBJECT, study_id=STUDY, short_side=45, long_side=60
    )  # fmt: skip
    assert isinstance(jpg, np.ndarray)
    assert isinstance(dicom, np.ndarray)
    difference = np.abs(jpg.astype(int) - dicom)
    assert difference.any()
    assert difference.mean() < 2


@pytest.mark.parametrize(
    ("elements", "reason", "words"),
    [
        ({"PixelData": None}, Reason.WRONG_FORMAT, "no pixel data"),
        ({"Rows": None}, Reason.WRONG_FORMAT, "90 x 0"),
        ({"Rows": 60}, Reason.WRONG_FORMAT, "21,600 bytes of pixels instead of 10,800"),
        ({"Rows": 40}, Reason.WRONG_FORMAT, "bytes of pixels"),
        ({"Rows": 121}, Reason.TRUNCATED, "bytes of pixels"),
        ({"PixelData": b""}, Reason.TRUNCATED, "0 bytes"),
        ({"NumberOfFrames": 2, "Rows": 60}, Reason.WRONG_FORMAT, "several frames"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, Reason.WRONG_FORMAT, "RGB, 3 samples"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.WRONG_FORMAT, "PALETTE COLOR"),
        ({"PhotometricInterpretation": None}, Reason.WRONG_FORMAT, "no photometric interpretation"),
        ({"SamplesPerPixel": 3}, Reason.WRONG_FORMAT, "3 samples"),
        ({"BitsStored": 20}, Reason.WRONG_FORMAT, "20 bits stored in 16"),
        ({"BitsStored": 0}, Reason.WRONG_FORMAT, "0 bits stored in 16"),
        ({"HighBit": 15}, Reason.WRONG_FORMAT, "12 bits stored in 16"),
        ({"BitsAllocated": 32}, Reason.WRONG_FORMAT, "12 bits stored in 32"),
        ({"BitsAllocated": 1, "BitsStored": 1}, Reason.WRONG_FORMAT, "1 bits stored in 1"),
        ({"PixelData": bytes(120 * 90 * 2)}, Reason.CONSTANT, "a single grey level"),
        ({"Rows": 65_535, "Columns": 65_535}, Reason.TOO_LARGE, "65535 x 65535 pixels"),
        ({"Rows": 20, "Columns": 540}, Reason.WRONG_FORMAT, "no X-ray"),
        ({"PatientID": "10000033"}, Reason.MIXED_UP, "PatientID is another than the table's"),
        ({"StudyID": "50414268"}, Reason.MIXED_UP, "StudyID is another than the table's"),
    ],
)
def test_what_does_not_fit_its_description_is_refused_with_its_reason(
    path: Path, elements: dict[str, Any], reason: Reason, words: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's own, while writing nonsense
        write(path, film(), **elements)
    found = read(path)
    assert isinstance(found, Refusal)
    assert (found.reason, words in found.detail) == (reason, True), found


@pytest.mark.parametrize("elements", [{"PatientID": ""}, {"PatientID": "anonymous"}, {"StudyID": None}])
def test_ids_of_another_form_say_nothing(path: Path, elements: dict[str, Any]) -> None:
    write(path, film(), **elements)
    assert isinstance(read(path), np.ndarray)


@pytest.mark.parametrize("elements", [{"WindowWidth": 0, "WindowCenter": 7}, {"WindowWidth": -5, "WindowCenter": 7}])
def test_a_window_that_is_none(path: Path, elements: dict[str, Any]) -> None:
    write(path, film(), **elements)
    assert isinstance(read(path, "voi"), Refusal | np.ndarray)
    assert isinstance(read(path, "mimic_jpg"), np.ndarray)


def test_bits_above_those_stored_are_not_part_of_the_picture(path: Path) -> None:
    write(path, film())
    expected = pixels(path)
    write(path, film() | np.uint16(0xF000))
    np.testing.assert_array_equal(pixels(path), expected)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, RLELossless, DeflatedExplicitVRLittleEndian, "1.2.3.4"])
def test_forms_without_a_decoder_or_without_a_bound_are_refused_by_name(path: Path, syntax: str) -> None:
    write(path, film())
    data = path.read_bytes()
    known = pydicom.uid.ExplicitVRLittleEndian.encode()
    element = data.index(known) - 2
    length = data[element]
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = data[element + 2 + length :]
    if syntax == DeflatedExplicitVRLittleEndian:
        # 200 MB in 200 kB
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = packer.compress(body) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    path.write_bytes(data[:element] + bytes([len(value), 0]) + value + body)
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Refusal)
    assert found.reason == Reason.WRONG_FORMAT
    assert "is not read" in found.detail
    assert peak < 20 << 20


def test_a_compressed_picture_of_another_size_is_refused_before_it_is_decoded(path: Path) -> None:
    write(path, film())
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((3000, 2000), dtype=np.uint16)).save(buffer, "JPEG2000", no_jp2=True)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    found = read(path)
    assert isinstance(found, Refusal)
    assert found.detail == "the compressed picture has another size"


def _jpg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((film() >> 4).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spoil", "reasons"),
    [
        (lambda _: b"", {Reason.TRUNCATED}),
        (lambda _: b"not a picture", {Reason.WRONG_FORMAT}),
        (lambda _: _jpg(), {Reason.WRONG_FORMAT}),
        (lambda data: data[:100], {Reason.WRONG_FORMAT}),
        (lambda data: data[:132], {Reason.WRONG_FORMAT, Reason.UNDECODABLE}),
        (lambda data: data[:200], {Reason.WRONG_FORMAT, Reason.UNDECODABLE, Reason.TRUNCATED}),
        (lambda data: data[: len(data) // 2], {Reason.TRUNCATED, Reason.UNDECODABLE}),
        (lambda data: data[:-1], {Reason.TRUNCATED, Reason.UNDECODABLE}),
        (lambda data: data[:132] + bytes(5000), {Reason.WRONG_FORMAT, Reason.UNDECODABLE}),
        (lambda data: data[:132] + b"\xff" * 5000, {Reason.WRONG_FORMAT, Reason.UNDECODABLE}),
    ],
)
def test_what_is_no_whole_dicom_is_refused(path: Path, spoil: Callable[[bytes], bytes], reasons: set[Reason]) -> None:
    write(path, film())
    path.write_bytes(spoil(path.read_bytes()))
    found = read(path)
    assert isinstance(found, Refusal)
    assert found.reason in reasons


def test_no_cut_and_no_flipped_byte_of_the_description_raises_or_warns(path: Path) -> None:
    write(path, film(), WindowCenter=100, WindowWidth=20)
    data = path.read_bytes()
    rng = stream(0, "test", "spoiling")
    described = len(data) - film().nbytes
    for cut in rng.integers(0, described, 60):
        path.write_bytes(data[:cut])
        assert isinstance(read(path), Refusal)
    for place, value in zip(rng.integers(128, described, 150), rng.integers(0, 256, 150), strict=True):
        path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
        assert isinstance(read(path, "voi"), Refusal | np.ndarray)


def test_a_huge_description_costs_no_memory(path: Path) -> None:
    write(path, film(), Rows=6000, Columns=6000)
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Refusal)
    assert found.reason == Reason.TOO_LARGE
    assert peak < 50 << 20


def test_the_room_reads_dicom_where_its_spec_says_so(tmp_path: Path) -> None:
    room = CXR("cxr", CxrOptions(files="dicom", short_side=64, long_side=96))
    assert room.reads_from == "mimic_cxr_dicom"
    row = {"path": "files/a.dcm", "subject_id": SUBJECT, "study_id": STUDY, "labelled": True}
    assert room.is_valid(row, tmp_path) == Refusal(Reason.MISSING)
    write(tmp_path / "files/a.dcm", film())
    assert room.is_valid(row, tmp_path) is None
    found = room.read(row, tmp_path)
    assert isinstance(found, dict)
    expected = fit(published_grey(film(), inverted=False), short_side=64, long_side=96)
    np.testing.assert_array_equal(found["image"][0, :85, :64], expected)
    mixed_up = room.read({**row, "subject_id": SUBJECT + 1}, tmp_path)
    assert isinstance(mixed_up, Refusal)
    assert (mixed_up.reason, mixed_up.then) == (Reason.MIXED_UP, "drop")


def test_a_rendering_without_dicom_files_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="'dicom: voi' needs 'files: dicom'"):
        CxrOptions(dicom="voi")
