"""Values of one patient from a small CSV or JSON file, to ask a trained model with."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from symile_clin.errors import SourceError
from symile_clin.modalities.base import Refusal, refused
from symile_clin.modalities.whole_file import read_whole
from symile_clin.strict import nearest

MAX_BYTES: Final = 1 << 20
ITEMID: Final = "itemid"
#: What the column of values may be called; labevents' own name, and a shorter one.
VALUES: Final = ("valuenum", "value")
REMEDY: Final = 'Write lines such as "50912,1.1" below the header "itemid,valuenum", or {"50912": 1.1} in a .json'


def read_values(path: Path, *, items: Sequence[int]) -> dict[int, float]:
    """The values of a file, by itemid; what it leaves empty (null in JSON) is missing.

    Args:
        path: a `.json` with one object, itemid to value; any other is a CSV with a header, of which the columns
            `itemid` and `valuenum` (or `value`) are read.
        items: that there may be.

    Raises:
        SourceError: no such file, or one of another form; an item that is not of the panel, or is there twice; a value
            that is no finite number; no value at all.
    """
    data = read_whole(path, limit=MAX_BYTES)
    if isinstance(data, Refusal):
        raise refused(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path} is no text", remedy=REMEDY) from None
    pairs = _from_json(path, text) if path.suffix.lower() == ".json" else _from_csv(path, text)
    values: dict[int, float] = {}
    seen = set()
    for item, value in pairs:
        itemid = _itemid(path, item, items)
        if itemid in seen:
            raise SourceError(
                f"{path} has itemid {itemid} twice", remedy="Keep one value; a cohort takes the earliest in its window"
            )
        seen.add(itemid)
        if value.strip():
            values[itemid] = _number(path, itemid, value)
    if not values:
        raise SourceError(f"{path} has no value", expected="at least one item's, as of every sample", remedy=REMEDY)
    return values


def _from_csv(path: Path, text: str) -> Iterable[tuple[str, str]]:
    try:
        header, *lines = [
            [cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), strict=True)
        ] or [[]]
    except csv.Error as error:
        raise SourceError(f"{path} is no CSV: {error}", remedy=REMEDY) from None
    value = next((name for name in VALUES if name in header), None)
    if ITEMID not in header or value is None:
        raise SourceError(
            f"{path} has the columns {', '.join(header) or 'of an empty file'}",
            expected=f"a header with {ITEMID} and {VALUES[0]}",
            remedy=REMEDY,
        )
    if header.count(ITEMID) + header.count(value) > 2:
        raise SourceError(f"{path} has the columns {', '.join(header)}", expected="each once", remedy=REMEDY)
    for number, line in enumerate(lines, start=1):
        if len(line) > len(header):  # a decimal comma, most likely: "1,5" would be taken for 1
            raise SourceError(
                f"line {number} below the header of {path} has {len(line)} cells for {len(header)} columns",
                remedy="Write fractions with a point",
            )
    padded = [line + [""] * (len(header) - len(line)) for line in lines if line]
    return [(line[header.index(ITEMID)], line[header.index(value)]) for line in padded]


def _from_json(path: Path, text: str) -> Iterable[tuple[str, str]]:
    try:
        # pairs, because a dictionary would hide an item that is there twice
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise SourceError(f"{path} is no JSON", remedy=REMEDY) from None
    plain = isinstance(pairs, list) and all(isinstance(pair, tuple) for pair in pairs)
    if not plain or not all(isinstance(value, int | float | None) for _, value in pairs):
        raise SourceError(f"{path} holds other JSON", expected="one object of itemids and numbers", remedy=REMEDY)
    return [(item, "" if value is None else repr(value)) for item, value in pairs]


def _itemid(path: Path, item: str, items: Sequence[int]) -> int:
    names = [str(one) for one in items]
    # 50912.0 is how a column with gaps is written by many programs
    name = item.strip().removesuffix(".0")
    if name not in names:
        known = nearest(name, names) if len(names) > 1 else f"the panel is {names[0]} alone"
        raise SourceError(
            f"{path} has itemid '{item.strip()}', which is not of this panel",
            expected="itemids of MIMIC's d_labitems that the cohort has",
            remedy=known[0].upper() + known[1:],
        )
    return int(name)


def _number(path: Path, itemid: int, value: str) -> float:
    try:
        number = float(value) if "_" not in value else math.nan  # Python reads 1_0 as 10
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SourceError(
            f"{path}: the value of itemid {itemid} is '{value.strip()}'",
            expected="a number in the unit that MIMIC uses",
            remedy="Leave it empty if it was not measured",
        )
    return number
