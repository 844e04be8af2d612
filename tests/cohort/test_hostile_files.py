"""Every kind of bad file beside good ones: each is refused with its reason, and costs nobody else anything."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from symile_clin.modalities.base import Reason
from tests.cohort.tree import ADMITTED, HOUR, Tree, build, header, jpeg, waveform

GOOD: Final = 4
#: What replaces a good JPEG, and the reason it must leave for.
XRAYS: Final[dict[str, tuple[bytes, Reason]]] = {
    "empty": (b"", Reason.TRUNCATED),
    "text": (b"not a picture", Reason.WRONG_FORMAT),
    "cut": (jpeg()[: len(jpeg()) // 2], Reason.TRUNCATED),
    "without its last byte": (jpeg()[:-1], Reason.TRUNCATED),
    "tiny": (jpeg(1, 1), Reason.WRONG_FORMAT),
    "four colours": (jpeg(mode="CMYK"), Reason.WRONG_FORMAT),
    "no scan": (jpeg()[:60] + b"\xff\xd9", Reason.UNDECODABLE),
    "bomb": (jpeg().replace(b"\x00\x50\x00\x40", b"\xff\xff\xff\xff", 1), Reason.TOO_LARGE),
}
SIGNAL: Final = waveform()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 80)).save(buffer, "PNG")
    return buffer.getvalue()


def _spoil(value: int, *, everywhere: bool) -> Callable[[Path], None]:
    def write(record: Path) -> None:
        signal = np.full_like(SIGNAL, value) if everywhere else SIGNAL.copy()
        signal[7, 3] = value
        record.with_suffix(".hea").write_text(header(int(record.name), signal))
        record.with_suffix(".dat").write_bytes(signal.tobytes())

    return write


def _head(change: Callable[[str], str]) -> Callable[[Path], None]:
    def write(record: Path) -> None:
        file = record.with_suffix(".hea")
        file.write_text(change(file.read_text()))

    return write


def _signal(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(record: Path) -> None:
        file = record.with_suffix(".dat")
        file.write_bytes(change(file.read_bytes()))

    return write


def _pipe(suffix: str) -> Callable[[Path], None]:
    def make(record: Path) -> None:
        record.with_suffix(suffix).unlink()
        os.mkfifo(record.with_suffix(suffix))

    return make


#: What is done to a good record, and the reason it must be refused for.
RECORDS: Final[dict[str, tuple[Callable[[Path], None], Reason]]] = {
    "no signal": (lambda record: record.with_suffix(".dat").unlink(), Reason.MISSING),
    "no header": (lambda record: record.with_suffix(".hea").unlink(), Reason.MISSING),
    "short signal": (_signal(lambda data: data[:-2]), Reason.TRUNCATED),
    "long signal": (_signal(lambda data: data + b"\0\0"), Reason.WRONG_FORMAT),
    "changed sample": (_signal(lambda data: data[:50] + b"\1\1" + data[52:]), Reason.CHECKSUM),
    "not measured": (_spoil(-32768, everywhere=False), Reason.NAN),
    "all zero": (_spoil(0, everywhere=True), Reason.ALL_ZERO),
    "constant": (_spoil(9, everywhere=True), Reason.CONSTANT),
    "gain 0": (_head(lambda text: text.replace("200.0(0)", "0(0)")), Reason.WRONG_FORMAT),
    "a gain of its own": (_head(lambda text: text.replace("200.0(0)", "100.0(0)", 1)), Reason.WRONG_FORMAT),
    "another rate": (_head(lambda text: text.replace(" 500 5000", " 250 5000")), Reason.WRONG_FORMAT),
    "a lead twice": (_head(lambda text: text.replace("0 V6", "0 V5")), Reason.WRONG_FORMAT),
    "other files": (_head(lambda text: text.replace(".dat", "0.dat")), Reason.OUTSIDE),
    "several segments": (_head(lambda _: "1/2 12 500 5000\nseg1 2500\nseg2 2500\n"), Reason.OUTSIDE),
    "huge header": (_head(lambda text: "#" * (1 << 17) + "\n" + text), Reason.TOO_LARGE),
    "no header at all": (_head(lambda _: "\0\1\2"), Reason.UNDECODABLE),
    "a pipe for a signal": (_pipe(".dat"), Reason.WRONG_FORMAT),
    "a pipe for a header": (_pipe(".hea"), Reason.WRONG_FORMAT),
}


def test_every_bad_file_leaves_for_its_reason_and_the_good_ones_stay(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    expected: dict[int, Reason] = {}
    subject = 10_000_000

    def admit(*, xray: bytes | None = None, spoil: Callable[[Path], None] | None = None) -> int:
        nonlocal subject
        subject += 1
        hadm, study = subject + 10_000_000, subject % 1_000_000
        tree.admission(subject, hadm)
        tree.xray(subject, 50_000_000 + study, ADMITTED + 30 * HOUR, content=xray)
        record = 40_000_000 + 2 * study
        if spoil is not None:
            tree.ecg(subject, record, ADMITTED, signal=SIGNAL)
            spoil(tree.roots["mimic_ecg"] / str(tree.rows["ecg_records"][-1]["path"]))
        # the bad record gives way to this one
        tree.ecg(subject, record + 1, ADMITTED + timedelta(hours=1), signal=SIGNAL)
        tree.lab(subject, ADMITTED + HOUR)
        return hadm

    good = {admit() for _ in range(GOOD)}
    for content, reason in [*XRAYS.values(), (_png(), Reason.WRONG_FORMAT)]:
        expected[admit(xray=content)] = reason
    fallen_back = {admit(spoil=spoil): reason for spoil, reason in RECORDS.values()}
    good |= {admit() for _ in range(GOOD)}

    assembled = build(tree)
    assert set(assembled.samples["hadm_id"]) == good | set(fallen_back)
    # a spoilt record gave way to the later one, and everybody has a true signal
    later = assembled.samples.set_index("hadm_id")["ecg_time"] == ADMITTED + HOUR
    assert later.all()
    quarantine = assembled.attrition.quarantine()
    refused = {modality: part["reason"].tolist() for modality, part in quarantine.groupby("modality")}
    assert sorted(refused["cxr"]) == sorted(map(str, expected.values()))
    assert sorted(refused["ecg"]) == sorted(map(str, fallen_back.values()))
