"""X-ray files: the published resize, and every way a file can be wrong."""

from __future__ import annotations

import io
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.cxr import CXR, CxrOptions
from symile_clin.modalities.cxr.preprocess import MAX_PIXELS, read_xray, stored_size
from symile_clin.rng import stream


def encode(pixels: NDArray[np.uint8], *, mode: str = "L", kind: str = "JPEG", progressive: bool = False) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 95, "progressive": progressive} if kind == "JPEG" else {}
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def film(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth structure with a little grain, as an X-ray has."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    grain = stream(0, "test", "film").normal(0, 4, (height, width))
    pixels: NDArray[np.uint8] = (127 + 80 * np.sin(9 * x + 4 * y) * np.cos(7 * y) + grain).clip(0, 255).astype(np.uint8)
    return pixels


def read(folder: Path, data: bytes, *, short: int = 64, long: int = 80) -> NDArray[np.uint8] | Refusal:
    path = folder / "image.jpg"
    path.write_bytes(data)
    return read_xray(path, short_side=short, long_side=long)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (2500, 3050, (320, 390)),
        (3050, 2500, (390, 320)),
        (100, 100, (320, 320)),
        (3, 4, (320, 426)),
        (700, 701, (320, 320)),
    ],
)
def test_the_long_side_is_rounded_down(width: int, height: int, expected: tuple[int, int]) -> None:
    assert stored_size(width, height, 320) == expected


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(610, 500, (78, 64)), (500, 610, (64, 78)), (900, 450, (80, 64))]
)
def test_pictures_are_within_a_grey_level_of_a_full_decode(
    tmp_path: Path, height: int, width: int, shape: tuple[int, int]
) -> None:
    data = encode(film(height, width))
    found = read(tmp_path, data)
    assert isinstance(found, np.ndarray)
    assert found.shape == shape
    full = Image.open(io.BytesIO(data)).resize(stored_size(width, height, 64), Image.Resampling.BILINEAR)
    expected = np.asarray(full, dtype=np.int64)
    top, left = (expected.shape[0] - shape[0]) // 2, (expected.shape[1] - shape[1]) // 2
    difference = np.abs(found - expected[top : top + shape[0], left : left + shape[1]])
    assert difference.max() <= 1


def test_a_grey_picture_in_colour_is_the_same(tmp_path: Path) -> None:
    found = read(tmp_path, encode(film(200, 160), mode="RGB"))
    grey = read(tmp_path, encode(film(200, 160)))
    assert isinstance(found, np.ndarray)
    assert isinstance(grey, np.ndarray)
    assert np.abs(found.astype(int) - grey).max() <= 2


GOOD = encode(film(200, 160))
PROGRESSIVE = encode(film(200, 160), progressive=True)


def _bomb() -> bytes:
    """A small file whose header claims a huge picture."""
    place = GOOD.index(b"\xff\xc0") + 5
    return GOOD[:place] + (60_000).to_bytes(2, "big") + (60_000).to_bytes(2, "big") + GOOD[place + 4 :]


def _of_12_bits() -> bytes:
    place = GOOD.index(b"\xff\xc0") + 4
    return GOOD[:place] + b"\x0c" + GOOD[place + 1 :]


def _large() -> bytes:
    place = GOOD.index(b"\xff\xc0") + 5
    return GOOD[:place] + (6_000).to_bytes(2, "big") + (6_000).to_bytes(2, "big") + GOOD[place + 4 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (GOOD[: len(GOOD) // 2], Reason.TRUNCATED),
        (GOOD[:-2], Reason.TRUNCATED),
        (GOOD[: len(GOOD) // 2] + bytes(len(GOOD) - len(GOOD) // 2), Reason.TRUNCATED),
        (GOOD[:30] + b"\xff\xd9", Reason.UNDECODABLE),
        (b"\xff\xd8\xff\xd9", Reason.UNDECODABLE),
        (encode(film(200, 160), kind="PNG"), Reason.WRONG_FORMAT),
        (b"not a picture", Reason.WRONG_FORMAT),
        (encode(film(200, 160), mode="CMYK"), Reason.WRONG_FORMAT),
        (encode(film(1, 1)), Reason.WRONG_FORMAT),
        (encode(film(40, 400)), Reason.WRONG_FORMAT),
        (PROGRESSIVE[:-2] + b"\xff\xda" * 65 + b"\xff\xd9", Reason.TOO_LARGE),
        (encode(film(200, 160), mode="RGB")[:-2] + b"\xff\xda" * 65 + b"\xff\xd9", Reason.TOO_LARGE),
        (_of_12_bits(), Reason.UNDECODABLE),
        (_bomb(), Reason.TOO_LARGE),
        (_large(), Reason.TOO_LARGE),
    ],
)
def test_what_is_no_whole_xray_is_refused_with_its_reason(tmp_path: Path, data: bytes, reason: Reason) -> None:
    found = read(tmp_path, data)
    assert isinstance(found, Refusal)
    assert found.reason == reason


def test_no_cut_raises_or_gives_a_picture(tmp_path: Path) -> None:
    for cut in stream(0, "test", "cutting").integers(0, len(GOOD) - 1, 40):
        assert isinstance(read(tmp_path, GOOD[:cut]), Refusal)
        # a marker at the end of what is left does not make it whole
        assert isinstance(read(tmp_path, GOOD[:cut] + b"\xff\xd9"), Refusal | np.ndarray)


def test_no_changed_byte_of_the_header_raises(tmp_path: Path) -> None:
    rng = stream(0, "test", "spoiling")
    for place, value in zip(rng.integers(0, 600, 150), rng.integers(0, 256, 150), strict=True):
        found = read(tmp_path, GOOD[:place] + bytes([value]) + GOOD[place + 1 :])
        assert isinstance(found, Refusal | np.ndarray)


@pytest.mark.parametrize("data", [_bomb(), _large()])
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, GOOD)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert isinstance(read(tmp_path, data), Refusal)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_a_progressive_jpeg_is_the_same_picture(tmp_path: Path) -> None:
    found, expected = read(tmp_path, PROGRESSIVE), read(tmp_path, GOOD)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)


def test_an_orientation_in_exif_is_not_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    Image.fromarray(film(200, 160)).save(buffer, "JPEG", quality=95, exif=exif)
    found = read(tmp_path, buffer.getvalue())
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, read(tmp_path, GOOD))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_neither_hangs_nor_is_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.jpg")
    found = read_xray(tmp_path / "a.jpg", short_side=64, long_side=80)
    assert found == Refusal(Reason.WRONG_FORMAT, "no regular file")
    room = CXR("cxr", CxrOptions())
    refused = room.is_valid({"path": "a.jpg", "labelled": True}, tmp_path)
    assert isinstance(refused, Refusal)
    assert refused.reason in (Reason.MISSING, Reason.OUTSIDE)


def test_a_link_that_leaves_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "a.jpg").write_bytes(GOOD)
    (tmp_path / "source/a.jpg").symlink_to(tmp_path / "a.jpg")
    room = CXR("cxr", CxrOptions())
    row = {"path": "a.jpg", "labelled": True}
    assert room.is_valid(row, tmp_path / "source") == Refusal(Reason.OUTSIDE)
    assert room.read(row, tmp_path / "source") == Refusal(Reason.OUTSIDE, then="drop")


def test_the_limit_is_above_a_real_film() -> None:
    assert MAX_PIXELS > 3 * 2500 * 3050


def test_the_picture_lies_in_the_corner_of_a_square_with_its_size_as_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(GOOD)
    room = CXR("cxr", CxrOptions(short_side=64, long_side=96))
    read = room.read({"path": "a.jpg"}, tmp_path)
    assert isinstance(read, dict)
    assert read["image"].shape == (1, 96, 96)
    assert (int(read["cxr_height"]), int(read["cxr_width"])) == (80, 64)
    assert not read["image"][0, 80:].any()
    assert not read["image"][0, :, 64:].any()
    picture = room.render({"image": read["image"]}, {name: read[name] for name in room.input_columns})
    assert picture.shape == (80, 64, 3)
