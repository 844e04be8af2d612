"""ECG records: the fast parser equals the wfdb library, and every way a record can be wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from symile_clin.modalities.base import Reason, Refusal
from symile_clin.modalities.ecg import ECG, EcgOptions, preprocess
from symile_clin.modalities.ecg.preprocess import LEADS, Ecg, read_ecg
from symile_clin.rng import stream
from tests.cohort.tree import header, waveform, write_record

STUDY = 40_000_001
Signal = NDArray[np.int16]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / str(STUDY)


def library_write(record: Path, signal: Signal, *, rate: int = 500, form: str = "16") -> None:
    """A record as the wfdb library writes it."""
    leads = signal.shape[1]
    wfdb.wrsamp(
        record.name,
        fs=rate,
        units=["mV"] * leads,
        sig_name=list(LEADS),
        d_signal=signal.astype(np.int64),
        fmt=[form] * leads,
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
    monkeypatch.setattr(preprocess, "_read_any", lambda *_: pytest.fail("went through the library"))
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
        (lambda text: text.replace(f"{STUDY}.dat", "other.dat"), Reason.OUTSIDE),
        (lambda text: text.replace(f"{STUDY}.dat", "other.dat", 1), Reason.OUTSIDE),
        (lambda text: text.replace("200.0(0)", "9" * 400), Reason.WRONG_FORMAT),
        (lambda text: text.replace("200.0(0)", f"{'9' * 400}.0(0)"), Reason.WRONG_FORMAT),
        (lambda text: text.replace("200.0(0)", f"200.0({'9' * 5000})"), Reason.UNDECODABLE),
        (lambda text: text.replace(" 0 I\n", f" {'9' * 5000} I\n"), Reason.UNDECODABLE),
        (lambda text: text.replace("200.0(0)", "-200.0(0)"), Reason.WRONG_FORMAT),
        (lambda text: text.replace(".dat 16 ", ".dat 16:1000000000 "), Reason.WRONG_FORMAT),
        (lambda text: text.replace(".dat 16 ", ".dat 516 "), Reason.WRONG_FORMAT),
        (lambda text: text.replace(".dat 16 ", ".dat 16x4 "), Reason.WRONG_FORMAT),
        (lambda text: text.replace(" 12 500", " 1200000000 500"), Reason.WRONG_FORMAT),
        (lambda text: text.replace(" 12 500", " 0 500"), Reason.WRONG_FORMAT),
        (lambda text: text + text.split("\n")[1] + "\n", Reason.UNDECODABLE),
        # found by scripts/fuzz.py: a date that is none, and fields that are not there
        (lambda text: text.replace("01/03/2150", "01/13/2150"), Reason.UNDECODABLE),
        (lambda text: text.replace("12:00:00", "12:61:00"), Reason.UNDECODABLE),
        (lambda text: text.replace(" 0 I\n", " 0\n"), Reason.WRONG_FORMAT),
        (lambda text: re.sub(r"(/mV 16 0) .*", r"\1", text), Reason.WRONG_FORMAT),
        (lambda text: re.sub(r"(\.dat 16) .*", r"\1", text), Reason.WRONG_FORMAT),
        (lambda _: "", Reason.TRUNCATED),
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


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_neither_hangs_nor_is_read(
    record: Path, suffix: str, make: Callable[[Path], object]
) -> None:
    write_record(record, waveform())
    record.with_suffix(suffix).unlink()
    make(record.with_suffix(suffix))
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert (found.reason, found.detail[-15:]) == (Reason.WRONG_FORMAT, "no regular file")


def test_a_pipe_that_a_header_names_is_not_opened(record: Path) -> None:
    write_record(record, waveform(), head=header(STUDY, waveform()).replace(f"{STUDY}.dat", "other.dat"))
    os.mkfifo(record.with_name("other.dat"))
    found = read_ecg(record)
    assert isinstance(found, Refusal)
    assert found.reason == Reason.OUTSIDE


def test_one_flat_lead_is_no_reason(record: Path) -> None:
    signal = waveform()
    signal[:, 8] = 0
    write_record(record, signal)
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    np.testing.assert_array_equal(found.signal, signal)


def test_a_comment_beyond_ascii_changes_nothing(record: Path) -> None:
    write_record(record, waveform())
    with record.with_suffix(".hea").open("ab") as file:
        file.write("# Ärztlicher Befund: 25 µV\n".encode("latin-1"))
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    np.testing.assert_array_equal(found.signal, waveform())


@pytest.mark.parametrize(("form", "shrunk"), [("212", 1), ("80", 4), ("32", 1)])
def test_other_sample_formats_go_through_the_library(record: Path, form: str, shrunk: int) -> None:
    signal = (waveform() // shrunk).astype(np.int16)
    library_write(record, signal, form=form)
    found = read_ecg(record)
    assert isinstance(found, Ecg)
    np.testing.assert_array_equal(found.signal, signal)


def test_no_cut_and_no_changed_byte_of_a_header_raises(record: Path) -> None:
    write_record(record, waveform())
    head = record.with_suffix(".hea").read_bytes()
    rng = stream(0, "test", "spoiling")
    for cut in rng.integers(0, len(head), 25):
        record.with_suffix(".hea").write_bytes(head[:cut])
        assert isinstance(read_ecg(record), Refusal)
    for place, value in zip(rng.integers(0, len(head), 100), rng.integers(0, 256, 100), strict=True):
        record.with_suffix(".hea").write_bytes(head[:place] + bytes([value]) + head[place + 1 :])
        assert isinstance(read_ecg(record), Refusal | Ecg)


@pytest.mark.parametrize("path", ["", ".", "./", "..", "/files/x", "a/../../x", "files/\0", "x" * 2000, "\udc80"])
def test_a_path_that_leaves_the_source_or_names_no_file_is_refused(tmp_path: Path, path: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    # what a careless reader of "" and "." would take
    write_record(tmp_path / "source", waveform(), head=header(STUDY, waveform()).replace(str(STUDY), "source"))
    found = ECG("ecg", EcgOptions()).is_valid({"path": path}, source)
    assert isinstance(found, Refusal)
    assert found.reason in (Reason.OUTSIDE, Reason.MISSING)


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_a_link_that_leaves_the_source_is_refused(tmp_path: Path, suffix: str) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    write_record(source / str(STUDY), waveform())
    elsewhere.mkdir()
    inside = (source / str(STUDY)).with_suffix(suffix)
    inside.rename(elsewhere / inside.name)
    inside.symlink_to(elsewhere / inside.name)
    assert ECG("ecg", EcgOptions()).is_valid({"path": str(STUDY)}, source) == Refusal(Reason.OUTSIDE)


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
