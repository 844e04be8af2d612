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

MAX_FILE_BYTES: Final = 64 << 20
MAX_PIXELS: Final = 30_000_000
MIN_SIDE: Final = 32
#: Beyond this, the resized long side would be far larger than any X-ray's.
MAX_ASPECT: Final = 4
END_OF_IMAGE: Final = b"\xff\xd9"


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the short side at `short_side`; the long one is rounded down, as torchvision's Resize."""
    if width <= height:
        return short_side, short_side * height // width
    return short_side * width // height, short_side


def read_xray(path: Path, *, short_side: int, long_side: int) -> NDArray[np.uint8] | Refusal:
    """Decode a JPEG, bring its short side to `short_side` and centre-crop its long side to `long_side` at most.

    Bilinear with antialiasing; the decoder itself shrinks first, to no less than twice the target, which is twice as
    fast as a full decode and at most one grey level away from it.

    Returns:
        (height, width) uint8, or why the file is refused.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        return Refusal(Reason.TOO_LARGE, f"more than {MAX_FILE_BYTES >> 20} MB")
    data = path.read_bytes()
    if not data.startswith(b"\xff\xd8"):
        return Refusal(Reason.WRONG_FORMAT if data else Reason.TRUNCATED, "no JPEG" if data else "empty file")
    if not data.rstrip(b"\0").endswith(END_OF_IMAGE):
        # the decoder would fill the rest with grey
        return Refusal(Reason.TRUNCATED, "no end-of-image marker")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                refusal = _refuse_shape(image)
                if refusal is not None:
                    return refusal
                width, height = stored_size(*image.size, short_side)
                image.draft("L", (2 * width, 2 * height))
                small = image.convert("L").resize((width, height), Image.Resampling.BILINEAR)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Refusal(Reason.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels")
    except Exception as error:  # a decoder may raise anything on a hostile file; it costs that file only
        reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.UNDECODABLE
        return Refusal(reason, type(error).__name__)
    left, top = max(0, width - long_side) // 2, max(0, height - long_side) // 2
    box = (left, top, left + min(width, long_side), top + min(height, long_side))
    return np.asarray(small.crop(box), dtype=np.uint8)


def _refuse_shape(image: Image.Image) -> Refusal | None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        return Refusal(Reason.TOO_LARGE, f"{width} x {height} pixels")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        return Refusal(Reason.WRONG_FORMAT, f"{width} x {height} pixels are no X-ray")
    if image.mode not in ("L", "RGB"):
        return Refusal(Reason.WRONG_FORMAT, f"colour mode {image.mode}")
    return None
