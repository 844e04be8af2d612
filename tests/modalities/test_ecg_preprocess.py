"""ECG records: the fast parser equals the wfdb library, and every way a record can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.ecg import preprocess
from symile_clin.modalities.ecg.preprocess import LEADS, Ecg, read_ecg
from tests.cohort.tree import header, waveform, write_record

STUDY = 40_000_001
Signal = NDArray[np.int16]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / str(STUDY)


def library_write(record: Path, signal: Signal, *, rate: int = 500) -> None:
    """A record as the wfdb library writes it."""
    leads = signal.shape[1]
    wfdb.wrsamp(
        record.name,
        fs=rate,
        units=["mV"] * leads,
        sig_name=list(LEADS),
        d_signal=signal.astype(np.int64),
        fmt=["16"] * leads,
        adc_gain=[200.0] * leads,
        baseline=[0] * leads,
        write_dir=str(record.parent),
    )


def test_the_fast_parser_gives_the_librarys_bits(record: Path) -> None:
    write_record(record, waveform())
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    assert (found.gain, found.baseline) == (200.0, 0)
    assert found.signal.dtype == np.int16
    by_library = wfdb.rdrecord(str(record))
    np.testing.assert_array_equal(found.signal, wfdb.rdrecord(str(record), physical=False).d_signal)
    np.testing.assert_array_equal((found.signal - found.baseline) / found.gain, by_library.p_signal)


def test_the_strict_form_does_not_need_the_library(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "_read_any", lambda _: pytest.fail("went through the library"))
    write_record(record, waveform(), head=header(STUDY, waveform()) + "# Automated report: sinus rhythm\n")
    assert isinstance(read_ecg(record), Ecg)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("200.0(0)/mV", "200/mV"),
        lambda text: text.replace(" 12:00:00 01/03/2150", ""),
        lambda text: text.replace("500 5000", "500/500(0) 5000"),
        lambda text: text.replace("\n", "\r\n"),
    ],
)
def test_other_spellings_of_the_same_header_give_the_same_record(record: Path, change: Callable[[str], str]) -> None:
    signal = waveform()
    write_record(record, signal, head=change(header(STUDY, signal)))
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    np.testing.assert_array_equal(found.signal, signal)


@pytest.mark.parametrize("strict", [True, False])
def test_leads_in_another_order_are_put_in_ours_by_name(record: Path, strict: bool) -> None:
    signal, order = waveform(), [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6]
    text = header(STUDY, signal[:, order], leads=[LEADS[i] for i in order])
    write_record(record, signal[:, order], head=text if strict else text.replace("200.0(0)", "200"))
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    np.testing.assert_array_equal(found.signal, signal)


def _spoiled(value: int) -> Signal:
    signal = waveform()
    signal[100, 7] = value
    return signal


def _flat(value: int) -> Signal:
    return np.full((5000, 12), value, dtype=np.int16)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (_spoiled(-32768), Reason.NAN),
        (_flat(0), Reason.ALL_ZERO),
        (_flat(7), Reason.CONSTANT),
        (_flat(-32768), Reason.NAN),
    ],
)
def test_signals_that_are_no_candidates(record: Path, signal: Signal, reason: Reason, strict: bool) -> None:
    text = header(STUDY, signal)
    write_record(record, signal, head=text if strict else text.replace("200.0(0)", "200"))
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert found.reason == reason
    assert found.then == "next"


@pytest.mark.parametrize("strict", [True, False])
def test_one_changed_sample_does_not_fit_the_checksum(record: Path, strict: bool) -> None:
    text = header(STUDY, waveform())
    write_record(record, _spoiled(9), head=text if strict else text.replace("200.0(0)", "200"))
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert found.reason == Reason.CHECKSUM


def test_a_changed_lead_that_keeps_another_leads_sum_is_found(record: Path) -> None:
    signal = waveform()
    text = header(STUDY, signal)
    signal[:, [0, 1]] = signal[:, [1, 0]]
    write_record(record, signal, head=text)
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert found.reason == Reason.CHECKSUM


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(" 500 5000", " 250 5000"), Reason.WRONG_FORMAT),
        (lambda text: text.replace(" 500 5000", " 500 4999"), Reason.WRONG_FORMAT),
        (lambda text: text.replace(" 500 5000", " 500 500000000000"), Reason.WRONG_FORMAT),
        (lambda text: "\n".join(text.replace(" 12 500", " 11 500").split("\n")[:12]), Reason.WRONG_FORMAT),
        (lambda text: text.replace("aVF", "V7"), Reason.WRONG_FORMAT),
        (lambda text: text.replace("0 V6", "0 V5"), Reason.WRONG_FORMAT),
        (lambda text: text.replace("/mV", "/uV"), Reason.WRONG_FORMAT),
        (lambda text: text.replace("200.0(0)", "100.0(0)", 1), Reason.WRONG_FORMAT),
        (lambda text: text.replace("200.0(0)", "200.0(5)", 1), Reason.WRONG_FORMAT),
        # the library refuses the first two by itself
        (lambda text: text.replace(f"{STUDY}.dat", "../secret.dat"), Reason.UNDECODABLE),
        (lambda text: text.replace(f"{STUDY}.dat", "/etc/passwd"), Reason.UNDECODABLE),
        (lambda text: text.replace(f"{STUDY}.dat", "~"), Reason.OUTSIDE),
        (lambda text: text.replace(f"{STUDY}.dat", "other.dat"), Reason.UNDECODABLE),
        (lambda _: "", Reason.UNDECODABLE),
        (lambda _: "\0\1\2", Reason.UNDECODABLE),
        (lambda _: "40000001/3 12 500 5000\nseg1 1000\nseg2 2000\nseg3 2000\n", Reason.OUTSIDE),
        (lambda text: "#" * (1 << 16) + text, Reason.TOO_LARGE),
    ],
)
def test_headers_of_another_kind_are_refused(record: Path, change: Callable[[str], str], reason: Reason) -> None:
    write_record(record, waveform(), head=change(header(STUDY, waveform())))
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert found.reason == reason


@pytest.mark.parametrize("gain", ["0(0)/mV", "0.0(0)/mV", "0/mV", "0", "00.00"])
def test_a_gain_of_zero_is_never_taken_for_the_default(record: Path, gain: str) -> None:
    write_record(record, waveform(), head=header(STUDY, waveform()).replace("200.0(0)/mV", gain))
    assert read_ecg(record) == Refusal(Reason.WRONG_FORMAT, "a gain of 0")


@pytest.mark.parametrize("size", [0, 1, 119_999, 119_998, 120_002])
def test_signal_files_of_another_size_are_refused(record: Path, size: int) -> None:
    write_record(record, waveform())
    data = record.with_suffix(".dat")
    data.write_bytes((data.read_bytes() + b"\0\0")[:size])
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert found.reason == (Reason.TRUNCATED if size < 120_000 else Reason.WRONG_FORMAT)


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_a_missing_half_is_missing(record: Path, suffix: str) -> None:
    write_record(record, waveform())
    record.with_suffix(suffix).unlink()
    assert read_ecg(record) == Refusal(Reason.MISSING)


def test_records_of_the_library_itself_are_read(record: Path) -> None:
    signal = waveform()
    library_write(record, signal)
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    np.testing.assert_array_equal(found.signal, signal)


def test_other_rates_by_the_library_are_refused(record: Path) -> None:
    library_write(record, waveform(), rate=250)
    found = read_ecg(record)
    assert isinstance(found, Refusal)
