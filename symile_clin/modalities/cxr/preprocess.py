"""A JPEG of MIMIC-CXR-JPG to a small grey picture: what is done once, before the crops of training."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.cxr.jpeg import frame_size, has_hole
from symile_clin.modalities.cxr.resize import shrink
from symile_clin.modalities.whole_file import read_whole

MAX_PIXELS: Final = 30_000_000
#: More than any JPEG of so many pixels needs; what is larger is not read.
MAX_FILE_BYTES: Final = 32 << 20
MIN_SIDE: Final = 32
#: Beyond this, the resized long side would be far larger than any X-ray's.
MAX_ASPECT: Final = 4
START_OF_IMAGE: Final = b"\xff\xd8"
END_OF_IMAGE: Final = b"\xff\xd9"
START_OF_SCAN: Final = b"\xff\xda"
#: A progressive JPEG has about ten; each costs the decoder a pass over all pixels, however few bytes it has.
MAX_SCANS: Final = 64


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the short side at `short_side`; the long one is rounded down, as torchvision's Resize."""
    if width <= height:
        return short_side, short_side * height // width
    return short_side * width // height, short_side


def refuse_size(width: int, height: int) -> Refusal | None:
    """Why a picture of this size is not decoded."""
    if width * height > MAX_PIXELS:
        return Refusal(Reason.TOO_LARGE, f"{width} x {height} pixels")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        return Refusal(Reason.WRONG_FORMAT, f"{width} x {height} pixels are no X-ray")
    return None


def fit(picture: NDArray[np.uint8], *, short_side: int, long_side: int) -> NDArray[np.uint8]:
    """Bring the short side to `short_side`, bilinear with antialiasing, and centre-crop the long one to `long_side`."""
    height, width = picture.shape
    width, height = stored_size(width, height, short_side)
    small = shrink(picture, width, height)
    left, top = max(0, width - long_side) // 2, max(0, height - long_side) // 2
    return small[top : top + long_side, left : left + long_side]


def read_xray(path: Path, *, short_side: int, long_side: int) -> NDArray[np.uint8] | Refusal:
    """Decode a JPEG in full and fit it.

    The pixels are taken as they are stored: MIMIC-CXR-JPG has no EXIF data, so an orientation that somebody has written
    into one since is not followed.

    Returns:
        (height, width) uint8, within one grey level of Pillow's decode and resize, or why the file is refused.
    """
    data = read_whole(path, limit=MAX_FILE_BYTES)
    if isinstance(data, Refusal):
        return data
    if not data.startswith(START_OF_IMAGE):
        return Refusal(Reason.WRONG_FORMAT, "no JPEG")
    if not data.rstrip(b"\0").endswith(END_OF_IMAGE):
        # the decoder would fill the rest with grey
        return Refusal(Reason.TRUNCATED, "no end-of-image marker")
    size = frame_size(data)
    refusal = None if size is None else refuse_size(*size)
    if refusal is not None:  # before the decoder makes copies of what surrounds it
        return refusal
    if has_hole(data):
        return Refusal(Reason.TRUNCATED, "a run of zero bytes within the picture")
    picture = _decode(data)
    return picture if isinstance(picture, Refusal) else fit(picture, short_side=short_side, long_side=long_side)


def _decode(data: bytes) -> NDArray[np.uint8] | Refusal:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused below
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                refusal = refuse_size(*image.size)
                if refusal is not None:
                    return refusal
                if image.mode not in ("L", "RGB"):
                    return Refusal(Reason.WRONG_FORMAT, f"colour mode {image.mode}")
                one_scan = image.mode == "L" and "progressive" not in image.info
                if not one_scan and (scans := data.count(START_OF_SCAN)) > MAX_SCANS:
                    return Refusal(Reason.TOO_LARGE, f"{scans:,} scans")
                if image.mode != "L":
                    image.draft("L", image.size)  # of a grey picture in colour, only the grey is decoded
                return np.asarray(image)
    except Image.DecompressionBombError:
        return Refusal(Reason.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels")
    except Exception as error:  # a decoder may raise anything on a hostile file; it costs that file only
        reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.UNDECODABLE
        return Refusal(reason, type(error).__name__)
