"""Every kind of bad X-ray, as JPEG and as DICOM: made of a good file, with the reason it must be refused for."""

from __future__ import annotations

import gzip
import io
import os
import warnings
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from symile_clin.modalities.base import Reason
from symile_clin.modalities.cxr.dicom import write_dicom
from symile_clin.rng import stream
from tests.faults.kinds import Kind, write

SIZE: Final = (80, 64)
SCAN, END = b"\xff\xda", b"\xff\xd9"


@cache
def good_jpeg(**options: Any) -> bytes:
    """A grey picture with grain, so that it has some thousand bytes."""
    buffer = io.BytesIO()
    grain = stream(0, "test", "corrupt").integers(0, 256, SIZE).astype(np.uint8)
    Image.fromarray(grain).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def picture(form: str, size: tuple[int, int] = (64, 80), mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 100 if mode == "L" else None).save(buffer, form)
    return buffer.getvalue()


def sized(width: int, height: int) -> bytes:
    """The good JPEG, with another size in its header."""
    data = good_jpeg()
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[frame + 9 :]


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _hole(data: bytes, begin: int, size: int) -> bytes:
    return data[:begin] + bytes(size) + data[begin + size :]


def _many_scans() -> bytes:
    data = good_jpeg(progressive=True)
    last = data[data.rindex(SCAN) : -2]
    return data[:-2] + last * 80 + END


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(65 << 20)  # a hole on the disk: it takes no room


def _in_pixels(data: bytes) -> int:
    return data.rindex(SCAN) + (len(data) - data.rindex(SCAN)) // 2


def jpegs() -> list[Kind]:
    """Of a .jpg."""
    good, progressive = good_jpeg(), good_jpeg(progressive=True)
    rows: list[tuple[str, str, bytes | Callable[[Path], None], Reason | None]] = [
        ("truncated", "empty", b"", Reason.TRUNCATED),
        ("truncated", "in the first marker", good[:3], Reason.TRUNCATED),
        ("truncated", "in the header", good[:100], Reason.TRUNCATED),
        ("truncated", "in the pixels", good[: len(good) // 2], Reason.TRUNCATED),
        ("truncated", "by the last byte", good[:-1], Reason.TRUNCATED),
        ("truncated", "a header and an end", good[: good.index(SCAN)] + END, Reason.UNDECODABLE),
        ("truncated", "and closed by an end", good[: len(good) * 2 // 3] + END, None),
        ("zero-filled", "all of it", bytes(len(good)), Reason.WRONG_FORMAT),
        ("zero-filled", "the last third", good[: len(good) * 2 // 3] + bytes(len(good) // 3), Reason.TRUNCATED),
        ("zero-filled", "a sector in the middle", _hole(good, _in_pixels(good), 512), Reason.TRUNCATED),
        ("zero-filled", "in the middle, progressive", _hole(progressive, len(progressive) // 2, 512), None),
        ("flipped byte", "in the first marker", _flipped(good, 0), Reason.WRONG_FORMAT),
        ("flipped byte", "in the last marker", _flipped(good, len(good) - 1), Reason.TRUNCATED),
        ("flipped byte", "in the pixels", _flipped(good, _in_pixels(good)), None),
        ("wrong type", "a PNG", picture("PNG"), Reason.WRONG_FORMAT),
        ("wrong type", "a GIF", picture("GIF"), Reason.WRONG_FORMAT),
        ("wrong type", "a page of a login", b"<!DOCTYPE html><html><body>Log in</body></html>", Reason.WRONG_FORMAT),
        ("wrong type", "gzipped", gzip.compress(good), Reason.WRONG_FORMAT),
        ("wrong type", "four colours", picture("JPEG", mode="CMYK"), Reason.WRONG_FORMAT),
        ("wrong type", "12 bits a sample", _flipped_precision(good), Reason.UNDECODABLE),
        ("wrong type", "a directory", _directory, Reason.MISSING),
        ("wrong type", "a pipe", _pipe, Reason.MISSING),
        ("wrong type", "a device by a link", _device, Reason.OUTSIDE),
        ("swapped header", "rows and columns", sized(80, 64), None),
        ("swapped header", "a smaller picture's size", sized(8, 8), Reason.WRONG_FORMAT),
        ("bomb", "65,500 x 65,500 by its header", sized(65_500, 65_500), Reason.TOO_LARGE),
        ("bomb", "31 million pixels", picture("JPEG", (5_600, 5_600)), Reason.TOO_LARGE),
        ("bomb", "80 scans", _many_scans(), Reason.TOO_LARGE),
        ("bomb", "65 MB", _large, Reason.TOO_LARGE),
        ("missing", "no file", Path.unlink, Reason.MISSING),
        ("trailing bytes", "after the end", good + b"and so on", Reason.TRUNCATED),
        ("wrong size", "no X-ray's shape", picture("JPEG", (400, 40)), Reason.WRONG_FORMAT),
    ]
    return [
        Kind("JPG", fault, how, write(made) if isinstance(made, bytes) else made, reason)
        for fault, how, made, reason in rows
    ]


def _flipped_precision(data: bytes) -> bytes:
    at = data.index(b"\xff\xc0") + 4
    return data[:at] + b"\x0c" + data[at + 1 :]


def write_good_dicom(path: Path, *, subject_id: int, study_id: int, dicom_id: str) -> None:
    """A film with a window, as the picture's own."""
    stored = stream(0, "test", "corrupt").integers(0, 4000, SIZE).astype(np.uint16)
    write_dicom(
        path, stored, dicom_id=dicom_id, subject_id=subject_id, study_id=study_id, time=datetime(2150, 3, 2), view="AP",
        inverted=False,
    )  # fmt: skip


def elements(**elements: Any) -> Callable[[Path], None]:
    """Other elements than the writer's; None takes one away, bytes are written as they are."""

    def spoil(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's own, while writing nonsense
            dataset = pydicom.dcmread(path)
            for name, value in elements.items():
                if value is None:
                    delattr(dataset, name)
                elif isinstance(value, bytes) and name != "PixelData":
                    tag = pydicom.datadict.tag_for_keyword(name)
                    assert tag is not None
                    raw = pydicom.dataelem.RawDataElement(
                        pydicom.tag.Tag(tag), "DS", len(value), value, 0, False, True, True
                    )
                    dataset[tag] = raw
                else:
                    setattr(dataset, name, value)
            dataset.save_as(path)

    return spoil


def syntax(uid: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        data = path.read_bytes()
        meta = pydicom.dcmread(path).file_meta
        assert isinstance(meta, FileMetaDataset)
        own = str(meta.TransferSyntaxUID).encode()
        place = data.index(own) - 2
        length = data[place]
        value = uid.encode() + b"\0" * (len(uid) % 2)
        path.write_bytes(data[:place] + bytes([len(value), 0]) + value + data[place + 2 + length :])

    return spoil


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return spoil


PIXELS: Final = 2 * SIZE[0] * SIZE[1]


def dicoms() -> list[Kind]:
    """Of a .dcm that is shown through its window."""
    rows: list[tuple[str, str, Callable[[Path], None], Reason | None]] = [
        ("truncated", "empty", write(b""), Reason.TRUNCATED),
        ("truncated", "before its letters", _bytes(lambda data: data[:100]), Reason.WRONG_FORMAT),
        ("truncated", "in the pixels", _bytes(lambda data: data[: -PIXELS // 2]), Reason.TRUNCATED),
        ("truncated", "by the last byte", _bytes(lambda data: data[:-1]), Reason.TRUNCATED),
        ("zero-filled", "all of it", _bytes(lambda data: bytes(len(data))), Reason.WRONG_FORMAT),
        ("zero-filled", "all pixels", elements(PixelData=bytes(PIXELS)), Reason.CONSTANT),
        ("zero-filled", "some rows", _bytes(lambda data: _hole(data, len(data) - PIXELS // 2, 640)), None),
        ("flipped byte", "in its letters", _bytes(lambda data: _flipped(data, 128)), Reason.WRONG_FORMAT),
        ("flipped byte", "in the pixels", _bytes(lambda data: _flipped(data, len(data) - 100)), None),
        ("wrong type", "a JPEG", write(good_jpeg()), Reason.WRONG_FORMAT),
        ("wrong type", "a page of a login", write(b"<!DOCTYPE html>" * 20), Reason.WRONG_FORMAT),
        ("wrong type", "RGB", elements(PhotometricInterpretation="RGB", SamplesPerPixel=3), Reason.WRONG_FORMAT),
        ("wrong type", "another compression", syntax(RLELossless), Reason.WRONG_FORMAT),
        ("wrong type", "no syntax that there is", syntax("1.2.3.4"), Reason.WRONG_FORMAT),
        ("wrong type", "several frames", elements(NumberOfFrames=2, Rows=SIZE[0] // 2), Reason.WRONG_FORMAT),
        ("wrong type", "no pixels", elements(PixelData=None), Reason.WRONG_FORMAT),
        ("swapped header", "another patient's", elements(PatientID="10999999"), Reason.MIXED_UP),
        ("swapped header", "another study's", elements(StudyID="50999999"), Reason.MIXED_UP),
        ("too small Rows", "half of them", elements(Rows=SIZE[0] // 2), Reason.WRONG_FORMAT),
        ("too small Rows", "one", elements(Rows=1), Reason.WRONG_FORMAT),
        ("too small Rows", "none", elements(Rows=None), Reason.WRONG_FORMAT),
        ("wrong size", "more rows than pixels", elements(Rows=SIZE[0] + 1), Reason.TRUNCATED),
        ("wrong size", "more bits than there are", elements(BitsStored=20), Reason.WRONG_FORMAT),
        ("NaN", "as slope", elements(RescaleSlope=b"NaN ", RescaleIntercept=b"0 "), Reason.WRONG_FORMAT),
        ("inf", "as slope", elements(RescaleSlope=b"inf ", RescaleIntercept=b"0 "), Reason.WRONG_FORMAT),
        ("gain 0", "as slope", elements(RescaleSlope=b"0 ", RescaleIntercept=b"7 "), Reason.WRONG_FORMAT),
        ("NaN", "as window", elements(WindowCenter=b"NaN ", WindowWidth=b"NaN "), Reason.WRONG_FORMAT),
        ("wrong type", "words as window", elements(WindowCenter=b"left", WindowWidth=b"wide"), Reason.UNDECODABLE),
        ("bomb", "65,535 x 65,535", elements(Rows=65_535, Columns=65_535), Reason.TOO_LARGE),
        ("bomb", "deflated", syntax(DeflatedExplicitVRLittleEndian), Reason.WRONG_FORMAT),
        ("bomb", "65 MB", _large, Reason.TOO_LARGE),
    ]
    return [Kind("DICOM", fault, how, spoil, reason) for fault, how, spoil, reason in rows]
