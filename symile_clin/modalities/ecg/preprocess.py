"""WFDB records of MIMIC-IV-ECG as raw integers: 5000 samples of 12 leads in a fixed order.

Records in MIMIC's own strict form are parsed here, 40 times faster than by the wfdb library, to the same bits; whatever
looks different goes through the library. Either way each lead's checksum is verified, which the library leaves out.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.whole_file import read_whole

#: MIMIC's order, aVF before aVL.
LEADS: Final = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLES: Final = 5000
RATE_HZ: Final = 500
#: What format 16 writes for a sample that was not measured.
NOT_MEASURED: Final = -32768
MAX_HEADER_BYTES: Final = 1 << 16
MAX_SIGNAL_BYTES: Final = 1 << 20  #: MIMIC's have 120,000
#: Formats whose files are as long as their signals; others are compressed.
FORMATS: Final = frozenset({"8", "16", "24", "32", "61", "80", "160", "212", "310", "311"})

_RECORD: Final = re.compile(
    rf"[\w-]+ {len(LEADS)} {RATE_HZ} {SAMPLES}"
    r"(?: (?P<time>\d\d:\d\d:\d\d)(?:\.\d{1,6})? (?P<date>\d\d/\d\d/\d{4}))?"
)
_LEAD: Final = re.compile(
    r"(?P<file>[\w-]+\.dat) 16 (?P<gain>\d{1,9}(?:\.\d{1,9})?)\((?P<baseline>-?\d{1,5})\)/mV 16 0 -?\d{1,5} "
    r"(?P<checksum>-?\d{1,5}) 0 "
    r"(?P<lead>\w+)"
)
#: A signal line whose gain is 0, which the library would take for its default of 200.
_NO_GAIN: Final = re.compile(r"^\S+\s+\S+\s+0+(\.0*)?([(/\s]|$)", re.MULTILINE)


@dataclass(frozen=True)
class Ecg:
    """One record.

    Attributes:
        signal: (5000, 12) int16, raw; columns in the order of `LEADS`.
        gain: raw units per mV, the same for all leads.
        baseline: raw value of 0 mV, the same for all leads.
    """

    signal: NDArray[np.int16]
    gain: float
    baseline: int


@dataclass(frozen=True)
class _Header:
    leads: tuple[str, ...]
    gains: tuple[float, ...]
    baselines: tuple[int, ...]
    checksums: tuple[int, ...]


def read_ecg(record: Path) -> Ecg | Refusal:
    """Read a record and check all that can be checked.

    Args:
        record: path without extension.

    Returns:
        The record, or why it is no candidate: files that are missing, not readable or not decodable, another rate,
        length or set of leads, leads of different gain or baseline (one record is scaled as a whole), a checksum that
        differs, any sample not measured, all zero, or constant. A flat lead beside others is no reason.
    """
    header_file, data_file = record.with_name(record.name + ".hea"), record.with_name(record.name + ".dat")
    head = read_whole(header_file, limit=MAX_HEADER_BYTES)
    if isinstance(head, Refusal):
        return replace(head, detail=f"header: {head.detail}") if head.detail else head
    data = read_whole(data_file, limit=MAX_SIGNAL_BYTES)
    if isinstance(data, Refusal):
        return replace(data, detail=f"signal: {data.detail}") if data.detail else data
    header = _parse_strict(head, data_file.name)
    if header is None:
        loaded = _read_any(record, head, data_file.name)
        if isinstance(loaded, Refusal):
            return loaded
        header, signal = loaded
    else:
        size, expected = len(data), 2 * SAMPLES * len(LEADS)
        if size != expected:
            reason = Reason.TRUNCATED if size < expected else Reason.WRONG_FORMAT
            return Refusal(reason, f"{size:,} bytes of signal instead of {expected:,}")
        signal = np.frombuffer(data, dtype="<i2").reshape(SAMPLES, len(LEADS))
    return _check(header, signal)


def _parse_strict(head: bytes, data_name: str) -> _Header | None:
    """The header if it is exactly as MIMIC writes them."""
    try:
        lines = head.decode("ascii").splitlines()
    except UnicodeDecodeError:
        return None
    lines = [line.rstrip() for line in lines if line and not line.startswith("#")]
    if len(lines) != 1 + len(LEADS) or not _is_record(lines[0]):
        return None
    matches = [_LEAD.fullmatch(line) for line in lines[1:]]
    found = [match for match in matches if match is not None and match["file"] == data_name]
    if len(found) != len(LEADS) or any(float(match["gain"]) == 0 for match in found):
        return None
    return _Header(
        leads=tuple(match["lead"] for match in found),
        gains=tuple(float(match["gain"]) for match in found),
        baselines=tuple(int(match["baseline"]) for match in found),
        checksums=tuple(int(match["checksum"]) for match in found),
    )


def _is_record(line: str) -> bool:
    """Whether a record line is MIMIC's, with a time that there is, if it has one."""
    match = _RECORD.fullmatch(line)
    if match is None or match["date"] is None:
        return match is not None
    try:
        datetime.strptime(f"{match['date']} {match['time']}", "%d/%m/%Y %H:%M:%S")
    except ValueError:
        return False
    return True


def _read_any(record: Path, head: bytes, data_name: str) -> tuple[_Header, NDArray[np.int16]] | Refusal:
    """Read a record that is not in MIMIC's form through the wfdb library, in raw units."""
    import wfdb

    if _NO_GAIN.search(head.decode("ascii", errors="replace")):
        return Refusal(Reason.WRONG_FORMAT, "a gain of 0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the library warns of is checked below
            header = wfdb.rdheader(str(record))
            refusal = _refuse_header(header, data_name)
            if refusal is not None:
                return refusal
            raw = wfdb.rdrecord(str(record), physical=False)
            unmeasured = bool(np.isnan(wfdb.rdrecord(str(record)).p_signal).any())
    except Exception as error:  # the library raises anything on a hostile header; it costs that record only
        return Refusal(Reason.UNDECODABLE, type(error).__name__)
    if unmeasured:
        return Refusal(Reason.NAN)
    if raw.d_signal.min() <= NOT_MEASURED or raw.d_signal.max() > np.iinfo(np.int16).max:
        return Refusal(Reason.WRONG_FORMAT, "values beyond 16 bits")
    fields = [tuple(field or ()) for field in (raw.sig_name, raw.adc_gain, raw.baseline, raw.checksum)]
    if any(len(field) != len(LEADS) or None in field for field in fields):
        return Refusal(Reason.WRONG_FORMAT, "a header without names, gains, baselines or checksums")
    return _Header(*fields), raw.d_signal.astype(np.int16)


def _refuse_header(header: Any, data_name: str) -> Refusal | None:
    """Why the library should not be let at a record: its header could name other files or ask for any memory."""
    files = getattr(header, "file_name", None)
    if not files or any(file != data_name for file in files):
        # they have not been looked at: another record's, a pipe, or far away
        return Refusal(Reason.OUTSIDE, "the header names other files")
    if header.fs != RATE_HZ or header.sig_len != SAMPLES:
        return Refusal(Reason.WRONG_FORMAT, f"{header.sig_len} samples at {header.fs} Hz")
    if header.n_sig != len(LEADS) or any(count != 1 for count in header.samps_per_frame):
        return Refusal(Reason.WRONG_FORMAT, f"{header.n_sig} signals")
    if any(unit != "mV" for unit in header.units):
        return Refusal(Reason.WRONG_FORMAT, "not in mV")
    if any(fmt not in FORMATS for fmt in header.fmt) or any(header.skew):
        return Refusal(Reason.WRONG_FORMAT, "compressed or skewed signals")
    return None


def _check(header: _Header, signal: NDArray[np.int16]) -> Ecg | Refusal:
    if sorted(header.leads) != sorted(LEADS):
        return Refusal(Reason.WRONG_FORMAT, "other leads")
    if not all(math.isfinite(gain) and gain > 0 for gain in header.gains):
        return Refusal(Reason.WRONG_FORMAT, "a gain that is no number of units")
    if len(set(header.gains)) > 1 or len(set(header.baselines)) > 1:
        return Refusal(Reason.WRONG_FORMAT, "leads of different gain or baseline")
    if any((total - checksum) & 0xFFFF for total, checksum in zip(_checksums(signal), header.checksums, strict=True)):
        return Refusal(Reason.CHECKSUM)
    low, high = int(signal.min()), int(signal.max())
    if low == NOT_MEASURED:  # there is no lower value
        return Refusal(Reason.NAN)
    if low == high:
        # zero is zero millivolts, as the published rule means it
        return Refusal(Reason.ALL_ZERO if low == header.baselines[0] else Reason.CONSTANT)
    if header.leads != LEADS:
        signal = signal[:, [header.leads.index(lead) for lead in LEADS]]
    return Ecg(signal=signal, gain=header.gains[0], baseline=header.baselines[0])


def _checksums(signal: NDArray[np.int16]) -> list[int]:
    """Each lead's sum modulo 2^16: 16-bit sums wrap to it, and eight samples of all leads at a time are fast."""
    blocks = np.ascontiguousarray(signal).view(np.uint16).reshape(SAMPLES // 8, 8 * len(LEADS))
    sums: list[int] = blocks.sum(axis=0, dtype=np.uint16).reshape(8, len(LEADS)).sum(axis=0, dtype=np.int64).tolist()
    return sums
