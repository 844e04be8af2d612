"""Patients whose ids, times and paths are found again wherever they go, and the search for them through every byte."""

from __future__ import annotations

import base64
import gzip
import io
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from tests.cohort.tree import HOUR, Tree, jpeg, waveform

PATIENTS: Final = 72
#: Where the sources are: a folder that nothing else is called like.
FOLDER: Final = "zebrafish_quagga"
SUBJECTS: Final = [18_437_261 + i * 7_919 for i in range(PATIENTS)]
ADMISSIONS: Final = [27_645_813 + i * 6_151 for i in range(PATIENTS)]
STUDIES: Final = [53_918_274 + i * 4_057 for i in range(PATIENTS)]
RECORDS: Final = [46_281_937 + i * 3_391 for i in range(PATIENTS)]
STAYS: Final = [38_164_529 + i * 5_077 for i in range(PATIENTS)]
LAB_EVENTS: Final = [83_527_194 + i for i in range(2 * PATIENTS)]
IMAGES: Final = [0x9C3FA17B + i for i in range(PATIENTS)]
ADMITTED: Final = [datetime(2187, 3, 1, 0, 17, 43) + timedelta(days=3 * i, minutes=37 * i) for i in range(PATIENTS)]
IDS: Final = frozenset([*SUBJECTS, *ADMISSIONS, *STUDIES, *RECORDS, *STAYS, *LAB_EVENTS])
_NANOSECONDS: Final = [pd.Timestamp(time + hours * HOUR).value for time in ADMITTED for hours in (0, 1, 30)]
#: Ids as whole numbers and as floats, times in nanoseconds to seconds: all that eight bytes may hold of a canary.
_BINARY: Final = np.array(
    sorted(
        {*IDS, *(int(np.float64(one).view(np.int64)) for one in IDS)}
        | {time // unit for time in _NANOSECONDS for unit in (1, 10**3, 10**6, 10**9)}
    ),
    dtype="<i8",
)
_NUMBER: Final = re.compile(rb"(?<!\d)\d{8}(?!\d)")
_WORD: Final = re.compile(
    rb"9c3fa1[0-9a-f]{2}|zebrafish|quagga|218[78][-/]\d\d[-/]\d\d|(?<!\d)218[78][01]\d[0-3]\d(?!\d)", re.I
)


def plant(root: Path) -> Tree:
    """A tree of real patients, as far as the program can tell; a few of their files cannot be used."""
    tree = Tree(root / FOLDER)
    rng = np.random.default_rng(0)
    for i, when in enumerate(ADMITTED):
        tree.admission(SUBJECTS[i], ADMISSIONS[i], when, gender="FM"[i % 2], anchor_year=2187)
        tree.icu_stay(SUBJECTS[i], ADMISSIONS[i], STAYS[i], when, outtime=when + 30 * HOUR)
        content = jpeg(level=int(rng.integers(20, 230)))
        tree.xray(
            SUBJECTS[i],
            STUDIES[i],
            when + 30 * HOUR,
            image=IMAGES[i],
            content=content[: -len(content) // 2 * (i == 5)] or content,
        )
        if i % 2:
            labels = tree.rows["cxr_chexpert"]
            labels[-1] = {**labels[-1], "Atelectasis": 0.0, "Edema": 1.0}
        signal = waveform(i)
        tree.ecg(SUBJECTS[i], RECORDS[i], when + HOUR, signal=signal * (i != 6))
        for at, item in enumerate((50912, 50931)):
            value = float(rng.normal(90, 9))
            tree.lab(SUBJECTS[i], when + HOUR, value, item=item, labevent_id=LAB_EVENTS[2 * i + at])
    return tree


def in_text(text: str) -> list[str]:
    """The canaries of a text, each with what stands around it."""
    return sorted(set(_in_bytes(text.encode(), "text")))


def in_file(path: Path) -> list[str]:
    """The canaries of a file, looked for in what it holds as well as in its bytes."""
    data = path.read_bytes()
    found = [*_in_bytes(data, path.name), *_in_bytes(path.name.encode(), "name")]
    if data.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(path)) as connection:
            found += _in_bytes("\n".join(connection.iterdump()).encode(), f"{path.name}, as SQL")
    return sorted(set(found))


def _in_bytes(data: bytes, name: str, depth: int = 0) -> Iterator[str]:
    for match in _NUMBER.finditer(data):
        if int(match[0]) in IDS:
            yield f"{name}: {data[max(0, match.start() - 30) : match.end() + 30]!r}"
    for match in _WORD.finditer(data):
        yield f"{name}: {data[max(0, match.start() - 30) : match.end() + 30]!r}"
    for start in range(min(8, len(data))):
        whole = data[start : start + (len(data) - start) // 8 * 8]
        numbers = np.frombuffer(whole, dtype="<i8")
        for number in np.unique(numbers[np.isin(numbers, _BINARY)])[:3]:
            yield f"{name}: {number} in eight bytes"
    if depth < 4:
        for inner, content in _unpacked(data):
            yield from _in_bytes(content, f"{name}: {inner}", depth + 1)


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a container holds: archives, Parquet, texts of PNG pictures, pictures of pages."""
    if data.startswith(b"PK"):  # .npz and PyTorch's files, too
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist())
    elif data.startswith(b"\x1f\x8b"):
        yield "gz", gzip.decompress(data)
    elif data.startswith(b"PAR1"):
        yield "Parquet", pd.read_parquet(io.BytesIO(data)).to_csv().encode()
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while at < len(data):
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if kind == b"zTXt":
                yield "zTXt", zlib.decompress(data[at + 8 : at + 8 + size].split(b"\0", 1)[1][1:])
            at += 12 + size
    for match in re.finditer(rb"base64,([A-Za-z0-9+/=]{100,})", data):
        yield "base64", base64.b64decode(match[1])
