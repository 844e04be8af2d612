"""What a kind of bad file is: which format, what is wrong with it, how it is made, and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symile_clin.modalities.base import Reason

#: What can be wrong with a file, as the project promises to notice it.
FAULTS: Final = (
    "truncated", "zero-filled", "flipped byte", "wrong type", "swapped header", "NaN", "inf", "CRC error", "bomb",
    "too small Rows", "gain 0", "wrong rate", "flat leads", "NaN leads",
)  # fmt: skip
FORMATS: Final = ("CSV", "gz", "Parquet", "JPG", "DICOM", "WFDB", "YAML", "checkpoint")


@dataclass(frozen=True)
class Kind:
    """One kind of bad file behind the quarantine.

    Attributes:
        form: one of `FORMATS`.
        fault: one of `FAULTS`, or another word.
        spoil: makes the file of a good one, in its place.
        reason: that it is refused for; None where only a digest that somebody else keeps can tell.
    """

    form: str
    fault: str
    how: str
    spoil: Callable[[Path], None]
    reason: Reason | None

    def __str__(self) -> str:
        return f"{self.form}, {self.fault}: {self.how}"


def write(data: bytes) -> Callable[[Path], None]:
    """Put these bytes in the place of a file."""

    def spoil(path: Path) -> None:
        path.write_bytes(data)

    return spoil
