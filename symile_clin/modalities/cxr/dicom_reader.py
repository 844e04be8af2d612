"""A DICOM of MIMIC-CXR to the same small grey picture that its JPG gives.

pydicom takes much for granted that a file need not keep to, so everything a size hangs on is looked at before pixels
are decoded, and what it would merely warn of is refused.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.cxr.grey import published_grey
from symile_clin.modalities.cxr.preprocess import MAX_PIXELS, fit, refuse_size
from symile_clin.modalities.whole_file import open_regular, unreadable

Rendering = Literal["mimic_jpg", "voi"]

NATIVE: Final = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
#: Compressed forms whose size can be read before anything is decoded. Deflate and RLE can't: a small file may hold any
#: number of bytes.
COMPRESSED: Final = (JPEGBaseline8Bit, JPEG2000Lossless)
#: All pixels of two bytes, and a description.
MAX_FILE_BYTES: Final = 2 * MAX_PIXELS + (4 << 20)
#: How MIMIC-CXR writes ids; anything else in these elements says nothing.
SUBJECT_ID: Final = re.compile(r"1\d{7}")
STUDY_ID: Final = re.compile(r"5\d{7}")


class _Refused(Exception):  # noqa: N818  a way out of nested checks, not an error
    """Carries the reason up to `read_dicom`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.refusal = Refusal(reason, detail)


def read_dicom(
    path: Path, *, rendering: Rendering, subject_id: int | None, study_id: int | None, short_side: int, long_side: int
) -> NDArray[np.uint8] | Refusal:
    """Decode a DICOM, turn its values into 8-bit grey, and fit it.

    Args:
        rendering: "mimic_jpg" is the recipe that MIMIC-CXR-JPG was made by, without VOI LUT; "voi" applies modality LUT
            or rescaling, then VOI LUT or window, and inverts MONOCHROME1, without equalisation.
        subject_id, study_id: of the table's row; None where there is no table. A file that says it is another's is
            refused: another patient's picture would spoil a sample without a trace. The id of the image is not in the
            file, and not compared.

    Returns:
        (height, width) uint8, rows as in the file, or why the file is refused.
    """
    with open_regular(path, limit=MAX_FILE_BYTES) as file:
        if isinstance(file, Refusal):
            return file
        grey = _shown(file, rendering=rendering, subject_id=subject_id, study_id=study_id)
    return grey if isinstance(grey, Refusal) else fit(grey, short_side=short_side, long_side=long_side)


def _shown(
    file: BinaryIO, *, rendering: Rendering, subject_id: int | None, study_id: int | None
) -> NDArray[np.uint8] | Refusal:
    """An open file's picture, 8-bit grey, (rows, columns), or why it is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns where this module refuses
            dataset = _parse(file)
            _refuse_mixed_up(dataset, subject_id=subject_id, study_id=study_id)
            stored = _stored_values(dataset)
            inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
            if stored.min() == stored.max():
                raise _Refused(Reason.CONSTANT, "a single grey level")
            if rendering == "mimic_jpg":
                return published_grey(stored, inverted=inverted)
            return _windowed(dataset, stored, inverted=inverted)
    except _Refused as refused:
        return refused.refusal
    except InvalidDicomError:
        return Refusal(Reason.WRONG_FORMAT, "no DICOM")
    except OSError as error:
        return unreadable(error) if error.errno is not None else Refusal(Reason.UNDECODABLE, type(error).__name__)
    except Exception as error:  # pydicom may raise anything on a hostile file; it costs that file only
        return Refusal(Reason.UNDECODABLE, type(error).__name__)


def _parse(file: BinaryIO) -> pydicom.Dataset:
    """The dataset, unless its form could hold more than its bytes say, or its picture is too large."""
    read_preamble(file, False)
    # group 2 alone says how the rest is written; it is always explicit and little-endian
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    syntax = UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax not in (*NATIVE, *COMPRESSED):
        raise _Refused(Reason.WRONG_FORMAT, f"transfer syntax {syntax.name or 'not given'} is not read")
    file.seek(0)
    described = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    _refuse_size(described)  # before the pixels are in memory
    file.seek(0)
    return pydicom.dcmread(file)


def _refuse_size(dataset: pydicom.Dataset) -> tuple[int, int]:
    """Rows and columns of a picture that is not too large."""
    rows, columns = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
    refusal = refuse_size(columns, rows)
    if refusal is not None:
        raise _Refused(refusal.reason, refusal.detail)
    return rows, columns


def _refuse_mixed_up(dataset: pydicom.Dataset, *, subject_id: int | None, study_id: int | None) -> None:
    for element, form, expected in (("PatientID", SUBJECT_ID, subject_id), ("StudyID", STUDY_ID, study_id)):
        found = str(dataset.get(element, "")).strip()
        if expected is not None and form.fullmatch(found) and int(found) != expected:
            raise _Refused(Reason.MIXED_UP, f"{element} is another than the table's")


def _stored_values(dataset: pydicom.Dataset) -> NDArray[np.integer[Any]]:
    """The picture as it is stored, (rows, columns), once its description is known to fit it."""
    if "PixelData" not in dataset:
        raise _Refused(Reason.WRONG_FORMAT, "no pixel data")
    rows, columns = _refuse_size(dataset)
    photometric, samples = str(dataset.get("PhotometricInterpretation", "")), int(dataset.get("SamplesPerPixel", 1))
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        raise _Refused(
            Reason.WRONG_FORMAT, f"{photometric or 'no photometric interpretation'}, {samples} samples a pixel"
        )
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise _Refused(Reason.WRONG_FORMAT, "several frames")
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16) or not 2 <= bits <= allocated or int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise _Refused(Reason.WRONG_FORMAT, f"{bits} bits stored in {allocated}")
    if dataset.file_meta.TransferSyntaxUID in NATIVE:
        expected, found = rows * columns * allocated // 8, len(dataset.PixelData or b"")
        if found < expected:
            raise _Refused(Reason.TRUNCATED, f"{found:,} bytes of pixels instead of {expected:,}")
        if found > expected + expected % 2:
            raise _Refused(Reason.WRONG_FORMAT, f"{found:,} bytes of pixels instead of {expected:,}")
    else:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        with Image.open(io.BytesIO(frame), formats=["JPEG", "JPEG2000"]) as image:
            if image.size != (columns, rows):
                raise _Refused(Reason.WRONG_FORMAT, "the compressed picture has another size")
    # bits above those stored are not the picture's: pydicom clears them, as the standard says (PS3.5, 8.1.1)
    stored: NDArray[np.integer[Any]] = dataset.pixel_array
    if stored.shape != (rows, columns):
        raise _Refused(Reason.WRONG_FORMAT, f"pixels in {stored.ndim} dimensions")
    return stored


def _windowed(dataset: pydicom.Dataset, stored: NDArray[np.integer[Any]], *, inverted: bool) -> NDArray[np.uint8]:
    """As a viewer shows it: darkest and brightest are what the least and greatest possible values become.

    Without VOI LUT and window, they are what the least and greatest values of this picture become.
    """
    described = bool(dataset.get("VOILUTSequence")) or (dataset.get("WindowWidth") and "WindowCenter" in dataset)
    bits = int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    least, greatest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not described:
        least, greatest = int(stored.min()), int(stored.max())
    for table in dataset.get("VOILUTSequence") or ():
        # pydicom keeps the places in a table of 8-bit entries in 8 bits, too: from 256 entries on they would wrap
        table.LUTDescriptor = [*table.LUTDescriptor[:2], 16]
    # every possible value goes through the tables once, instead of every pixel
    possible = np.arange(least, greatest + 1, dtype=stored.dtype)
    shown = np.asarray(apply_voi_lut(apply_modality_lut(possible, dataset), dataset), dtype=np.float64)
    low, high = shown.min(), shown.max()
    if not np.isfinite(high - low) or low == high:
        raise _Refused(Reason.WRONG_FORMAT, "a window that shows nothing")
    levels = np.rint((shown - low) / (high - low) * 255).astype(np.uint8)
    grey: NDArray[np.uint8] = levels[stored.astype(np.int32) - least]
    return 255 - grey if inverted else grey
