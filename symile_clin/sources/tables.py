"""What a source table is: where it lies, which columns its format defines, which of them we use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from symile_clin.errors import ConfigError

#: Logical types. "text" for ids that are not numbers; "time" is `YYYY-MM-DD HH:MM:SS` without zone.
ColumnType = Literal["int", "float", "text", "time", "date"]
_NAME: Final = re.compile(r"[\w-]+\.\w+\.\w+", re.ASCII)


@dataclass(frozen=True)
class RemoteTable:
    """A table of BigQuery.

    Attributes:
        name: "project.dataset.table".
        columns: of ours, by their names here where these differ; of a table's several, each has those it names.
        loose: values that do not fit their type are null, as in headers of files; elsewhere they are errors.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    loose: bool = False

    @property
    def table(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


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
        remote: where BigQuery has it. Of several, each further one is joined to the first on the key, and gives the
            columns that it names; names are from public queries, and releases change them.
    """

    name: str
    source: str
    path: str
    columns: Mapping[str, ColumnType]
    key: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    remote: tuple[RemoteTable, ...] = ()


def with_names(specs: Iterable[TableSpec], names: Mapping[str, str]) -> list[TableSpec]:
    """Specs whose remote tables have names of the user's.

    Args:
        names: "project.dataset.table" by the last part of the usual name.

    Raises:
        ConfigError: a name is none, or there is no such table.
    """
    found = list(specs)
    known = {remote.table for spec in found for remote in spec.remote}
    for table, name in names.items():
        if table not in known:
            raise ConfigError(f"no table '{table}' is read", expected=f"one of {', '.join(sorted(known))}")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"'{name}' is no table of BigQuery", expected="project.dataset.table")
    return [
        replace(spec, remote=tuple(replace(one, name=names.get(one.table, one.name)) for one in spec.remote))
        for spec in found
    ]


def remote_tables(specs: Iterable[TableSpec], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Which tables of BigQuery stand behind ours, in order of our name; arguments and errors as `with_names`."""
    return [
        {"table": spec.name, "bigquery": [remote.name for remote in spec.remote]}
        for spec in sorted(with_names(specs, names), key=lambda spec: spec.name)
    ]
