"""Every kind of bad ECG record: made of a good one, with the reason it must be refused for."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.base import Reason
from tests.cohort.tree import header, waveform
from tests.faults.kinds import Kind

SIGNAL: Final = waveform()
NOT_MEASURED: Final = -32768
Spoil = Callable[[Path], None]


def _head(change: Callable[[str], str]) -> Spoil:
    def spoil(record: Path) -> None:
        file = record.with_suffix(".hea")
        before = file.read_text()
        file.write_text(change(before))
        assert file.read_text() != before

    return spoil


def _signal(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(record: Path) -> None:
        file = record.with_suffix(".dat")
        file.write_bytes(change(file.read_bytes()))

    return spoil


def _record(change: Callable[[NDArray[np.int16]], None]) -> Spoil:
    """Other samples, and the header that belongs to them: a checksum says nothing."""

    def spoil(record: Path) -> None:
        signal = SIGNAL.copy()
        change(signal)
        record.with_suffix(".hea").write_text(header(int(record.name), signal))
        record.with_suffix(".dat").write_bytes(signal.astype("<i2").tobytes())

    return spoil


def _fill(value: int, rows: slice = slice(None), leads: slice | int = slice(None)) -> Spoil:
    def change(signal: NDArray[np.int16]) -> None:
        signal[rows, leads] = value

    return _record(change)


def _other_header(record: Path) -> None:
    """That of another record, under this one's name."""
    record.with_suffix(".hea").write_text(header(int(record.name), waveform(9)))


def _pipe(suffix: str) -> Spoil:
    def spoil(record: Path) -> None:
        record.with_suffix(suffix).unlink()
        os.mkfifo(record.with_suffix(suffix))

    return spoil


def _without(suffix: str) -> Spoil:
    return lambda record: record.with_suffix(suffix).unlink()


def _large(record: Path) -> None:
    with record.with_suffix(".dat").open("r+b") as file:
        file.truncate(2 << 20)


def _rate(instead: str) -> Callable[[str], str]:
    return lambda text: text.replace("500 5000", instead)


def _without_last_line(text: str) -> str:
    return text[: text.rindex("\n", 0, -1) + 1]


def _many_leads(text: str) -> str:
    head, lead, *_ = text.splitlines()
    return "\n".join([head.replace(" 12 ", " 600 "), *[lead] * 600]) + "\n"


def _with_a_hole(data: bytes) -> bytes:
    return data[:5120] + bytes(512) + data[5632:]


def _flipped(data: bytes) -> bytes:
    return data[:999] + bytes([data[999] ^ 4]) + data[1000:]


GAIN: Final = "200.0(0)"


def records() -> list[Kind]:
    """Of a record: .hea and .dat."""
    rows: list[tuple[str, str, Spoil, Reason | None]] = [
        ("truncated", "no byte of signal", _signal(lambda _: b""), Reason.TRUNCATED),
        ("truncated", "half of the signal", _signal(lambda data: data[: len(data) // 2]), Reason.TRUNCATED),
        ("truncated", "the last sample", _signal(lambda data: data[:-2]), Reason.TRUNCATED),
        ("truncated", "an empty header", _head(lambda _: ""), Reason.TRUNCATED),
        ("truncated", "half of the header", _head(lambda text: text[: len(text) // 2]), Reason.UNDECODABLE),
        ("truncated", "a lead of the header", _head(_without_last_line), Reason.UNDECODABLE),
        ("zero-filled", "all of the signal", _signal(lambda data: bytes(len(data))), Reason.CHECKSUM),
        ("zero-filled", "a sector of it", _signal(_with_a_hole), Reason.CHECKSUM),
        ("zero-filled", "and the header with it", _fill(0), Reason.ALL_ZERO),
        ("zero-filled", "the header", _head(lambda text: "\0" * len(text)), Reason.UNDECODABLE),
        ("flipped byte", "in the signal", _signal(_flipped), Reason.CHECKSUM),
        ("flipped byte", "in a gain", _head(lambda text: text.replace(GAIN, "300.0(0)", 1)), Reason.WRONG_FORMAT),
        ("flipped byte", "in a checksum", _head(_other_checksum), Reason.CHECKSUM),
        ("flipped byte", "in the year", _head(lambda text: text.replace("/2150", "/2160")), None),
        ("wrong type", "gzipped", _signal(gzip.compress), Reason.TRUNCATED),
        ("wrong type", "a header of bytes", _head(lambda _: "\0\1\2\x7f" * 20), Reason.UNDECODABLE),
        ("wrong type", "a pipe for a signal", _pipe(".dat"), Reason.WRONG_FORMAT),
        ("wrong type", "a pipe for a header", _pipe(".hea"), Reason.WRONG_FORMAT),
        ("wrong type", "format 212", _head(lambda text: text.replace(".dat 16", ".dat 212")), Reason.NAN),
        ("wrong type", "several segments", _head(lambda _: "1/2 12 500 5000\na 2500\nb 2500\n"), Reason.OUTSIDE),
        ("swapped header", "another record's", _other_header, Reason.CHECKSUM),
        ("swapped header", "of other files", _head(lambda text: text.replace(".dat", "0.dat")), Reason.OUTSIDE),
        ("swapped header", "a lead twice", _head(lambda text: text.replace("0 V6", "0 V5")), Reason.WRONG_FORMAT),
        ("swapped header", "an unknown lead", _head(lambda text: text.replace("0 V6", "0 V7")), Reason.WRONG_FORMAT),
        ("NaN", "as gain", _head(lambda text: text.replace(GAIN, "nan(0)")), Reason.WRONG_FORMAT),
        ("inf", "as gain", _head(lambda text: text.replace(GAIN, "inf(0)")), Reason.WRONG_FORMAT),
        ("gain 0", "of all leads", _head(lambda text: text.replace(GAIN, "0(0)")), Reason.WRONG_FORMAT),
        ("gain 0", "of one lead", _head(lambda text: text.replace(GAIN, "0.0(0)", 1)), Reason.WRONG_FORMAT),
        ("wrong rate", "250 Hz", _head(_rate("250 5000")), Reason.WRONG_FORMAT),
        ("wrong rate", "0 Hz", _head(_rate("0 5000")), Reason.WRONG_FORMAT),
        ("wrong rate", "no number", _head(_rate("fast 5000")), Reason.WRONG_FORMAT),
        ("wrong size", "4,999 samples", _head(_rate("500 4999")), Reason.WRONG_FORMAT),
        ("wrong size", "a signal too long", _signal(lambda data: data + b"\0\0"), Reason.WRONG_FORMAT),
        ("flat leads", "one", _fill(0, leads=4), Reason.CONSTANT),
        ("flat leads", "one, at another value", _fill(17, leads=7), Reason.CONSTANT),
        ("flat leads", "all, at another value than zero", _fill(9), Reason.CONSTANT),
        ("NaN leads", "one sample", _fill(NOT_MEASURED, rows=slice(7, 8), leads=3), Reason.NAN),
        ("NaN leads", "a whole lead", _fill(NOT_MEASURED, leads=11), Reason.NAN),
        ("NaN leads", "all", _fill(NOT_MEASURED), Reason.NAN),
        ("bomb", "a header of megabytes", _head(lambda text: "#" * (1 << 20) + "\n" + text), Reason.TOO_LARGE),
        ("bomb", "a million million samples", _head(_rate("500 1000000000000")), Reason.WRONG_FORMAT),
        ("bomb", "hundreds of leads", _head(_many_leads), Reason.WRONG_FORMAT),
        ("bomb", "a signal of 2 MB", _large, Reason.TOO_LARGE),
        ("missing", "no signal", _without(".dat"), Reason.MISSING),
        ("missing", "no header", _without(".hea"), Reason.MISSING),
    ]  # fmt: skip
    return [Kind("WFDB", fault, how, spoil, reason) for fault, how, spoil, reason in rows]


def _other_checksum(text: str) -> str:
    """One lead's, by one digit."""
    lines = text.splitlines()
    parts = lines[3].split()
    parts[6] = str(int(parts[6]) ^ 1)
    return "\n".join([*lines[:3], " ".join(parts), *lines[4:]]) + "\n"
