"""What a source table is: where it lies, which columns its format defines, which of them we use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Logical types. "text" for ids that are not numbers; "time" is `YYYY-MM-DD HH:MM:SS` without zone.
ColumnType = Literal["int", "float", "text", "time", "date"]


@dataclass(frozen=True)
class TableSpec:
    """One table of one source release.

    Attributes:
        name: unique among all tables, e.g. "labevents".
        source: which directory it is in: "mimic_iv", "mimic_cxr" or "mimic_ecg".
        path: file relative to that directory without `.gz`, e.g. "hosp/labevents.csv"; both forms are looked for.
        columns: every column of the format in its documented order, with its type; a file is read by name,
            in any order.
        optional: columns that some releases lack (read as null there).
        unused: columns checked for presence only, never read into the program.
        key: columns whose values together are unique; they fix the order of rows.
    """

    name: str
    source: str
    path: str
    columns: Mapping[str, ColumnType]
    key: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
