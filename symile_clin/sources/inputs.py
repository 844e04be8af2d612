"""Which files a build is made from, and which of them changed since."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from symile_clin.errors import ConfigError
from symile_clin.schema import RELEASES
from symile_clin.sources.convert import find_table
from symile_clin.sources.tables import TableSpec

#: What is known of a file only once it has been read.
CONTENTS: Final = ("rows", "sha256")


def source_files(specs: Iterable[TableSpec], roots: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Which files stand behind the tables: table, file, bytes and time of change, in order of table name.

    Raises:
        ConfigError: the directory of a source was not given.
        SourceError: a table is not in its directory.
    """
    by_name = sorted(specs, key=lambda spec: spec.name)
    require_roots({spec.source for spec in by_name}, roots)
    return [identity(spec, roots[spec.source], find_table(spec, roots[spec.source])) for spec in by_name]


def require_roots(sources: Collection[str], roots: Mapping[str, Path]) -> None:
    """Every source that is needed has a directory.

    Raises:
        ConfigError: the directory of a source was not given.
    """
    missing = sorted(set(sources) - set(roots))
    if missing:
        options = " ".join(f"--{source.replace('_', '-')} DIR" for source in missing)
        raise ConfigError(f"no directory was given for {', '.join(missing)}", remedy=f"Add {options}")


def identity(spec: TableSpec, root: Path, path: Path) -> dict[str, Any]:
    """What tells a table's file from another one without reading it."""
    stat = path.stat()
    file = path.relative_to(root).as_posix()
    return {"table": spec.name, "file": file, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}


def identities(tables: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tables of a manifest as `source_files` gives them, to compare them before anything is read."""
    return [{key: value for key, value in table.items() if key not in CONTENTS} for table in tables]


def same_inputs(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    """Whether a manifest's inputs are those of now, as far as can be told before anything is read.

    What the sources are called does not count: another name for the same tables makes no other cohort.
    """
    if then is None:
        return False
    before = {key: value for key, value in then.items() if key != RELEASES}
    return {**before, "tables": identities(before.get("tables", []))} == now


def drift(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[str]:
    """What happened to the tables' files between two builds, one sentence a table; [] if nothing did.

    Args:
        then: the tables of a manifest's inputs.
        now: those of `source_files`.
    """
    old, new = ({str(one["table"]): one for one in tables if "bytes" in one} for tables in (then, now))
    sentences = [f"{old[name]['file']} is no longer used" for name in old if name not in new]
    for name, table in new.items():
        if name not in old:
            sentences.append(f"{table['file']} is used now and was not then")
        elif old[name]["file"] != table["file"]:
            sentences.append(f"{table['file']} takes the place of {old[name]['file']}")
        elif old[name]["bytes"] != table["bytes"]:
            sizes = f"{old[name]['bytes']:,} bytes then, {table['bytes']:,} now"
            sentences.append(f"{table['file']} changed since ({sizes})")
        elif old[name]["changed_ns"] != table["changed_ns"]:
            sentences.append(f"{table['file']} was written again since ({table['bytes']:,} bytes then and now)")
    return sentences
