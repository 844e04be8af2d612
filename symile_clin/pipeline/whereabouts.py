"""Where a source's tables are, and whose folder it is that was given instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin.modalities.base import Modality
from symile_clin.sources.glance import table_file
from symile_clin.sources.tables import TableSpec
from symile_clin.sources.versions import FAMILIES

#: Folders that are looked into for tables that are not where they should be.
MOST_FOLDERS: Final = 200


@dataclass(frozen=True)
class Problem:
    """Why a build cannot start.

    Attributes:
        found: a sentence without its full stop.
        remedy: what to do now.
    """

    found: str
    remedy: str

    def text(self) -> str:
        """Both, as sentences."""
        return f"{self.found}. {self.remedy}."

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {"found": self.found, "remedy": self.remedy}


def option(source: str) -> str:
    """The command's option for a source."""
    return "--" + source.replace("_", "-")


def whole_folder_problem(
    source: str, root: Path, specs: Sequence[TableSpec], others: Sequence[TableSpec]
) -> Problem | None:
    """Why a folder cannot be that of a source at all; None if it has any of its tables.

    Args:
        specs: the tables that a build reads; a source whose files alone are read has none.
        others: tables that tell whose folder it is.
    """
    own = [spec for spec in specs if spec.source == source]
    known = [*specs, *others]
    name = FAMILIES[source].name if source in FAMILIES else source
    if not root.is_dir():
        found = f"{root} is not a folder" if root.exists() else f"There is no folder {root}"
        return Problem(found, f"Give {option(source)} the folder of {name}")
    if not os.access(root, os.R_OK | os.X_OK):
        return Problem(f"{root} may not be read", "Ask its owner for permission to read it")
    if not own or _any(own, root):
        return None
    odd = next(
        (root / f"{spec.path}{end}" for spec in own for end in (".gz", "") if (root / f"{spec.path}{end}").exists()),
        None,
    )
    if odd is not None:
        return Problem(f"{odd} is not a file", f"Give {option(source)} the folder of a download of {name}")
    for other in sorted({spec.source for spec in known} - {source}):
        file = _any([spec for spec in known if spec.source == other], root)
        if file is not None and other in FAMILIES:
            return Problem(
                f"{root} was given as {name}, but it is {FAMILIES[other].name}: it has {file.relative_to(root)}",
                f"Give the folder of {name} with {option(source)}, and this one with {option(other)} if it is needed",
            )
    nearby = next((folder for folder in _around(root) if _any(own, folder)), None)
    if nearby is not None:
        return Problem(f"{root} has no tables of {name}, but {nearby} has", f"Give {option(source)} {nearby}")
    return Problem(
        f"{root} has none of the tables of {name}, such as {own[0].path}.gz",
        f"Check that {option(source)} names the right folder and that its download is complete",
    )


def _any(specs: Iterable[TableSpec], root: Path) -> Path | None:
    return next((file for spec in specs if (file := table_file(root, spec.path)) is not None), None)


def _around(root: Path) -> list[Path]:
    """The folder above, and those at most two levels below: where people point one level too deep or too high."""
    found = [root.absolute().parent]
    level = [root]
    for _ in range(2):
        below: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    below += sorted(Path(entry) for _, entry in zip(range(MOST_FOLDERS), entries, strict=False)
                                    if entry.is_dir())  # fmt: skip
            except OSError:
                continue
        level = below[:MOST_FOLDERS]
        found += level
    return found


def given_problems(
    specs: Iterable[TableSpec],
    elsewhere: Iterable[TableSpec],
    modalities: Mapping[str, Modality],
    files: Mapping[str, Modality],
    roots: Mapping[str, Path],
) -> list[Problem]:
    """A problem for each source that is read and was not given, or was given and is not read.

    Args:
        specs: tables that are read here; `elsewhere` may have more, which an engine reads where they are.
        files: the modalities whose files are read.
    """
    needed = {spec.source for spec in specs}
    needed |= {modality.reads_from for modality in files.values() if modality.reads_from}
    found = [
        Problem(f"No folder was given for {source}", f"Add {option(source)} DIR")
        for source in sorted(needed - set(roots))
    ]
    known = needed | {spec.source for spec in elsewhere}
    known |= {modality.reads_from for modality in modalities.values() if modality.reads_from}
    for source in sorted(set(roots) - known):
        reading = [f"modalities.{name}.{modality.other_files[source]}"
                   for name, modality in modalities.items() if source in modality.other_files]  # fmt: skip
        remedy = f"Leave it out, or read it with --set {reading[0]}" if reading else "Leave it out"
        found.append(Problem(f"{option(source)} was given, but the spec reads nothing of it", remedy))
    return found
