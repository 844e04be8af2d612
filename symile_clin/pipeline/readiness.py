"""The answer of `symile-clin cohort check`: as tables for a person, as one object for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from symile_clin.disk import amount
from symile_clin.evaluation.cohort_tables import table_text
from symile_clin.pipeline.costs import Cost
from symile_clin.pipeline.machine import Machine
from symile_clin.pipeline.opened import Opened
from symile_clin.pipeline.whereabouts import Problem
from symile_clin.sources.glance import Glance
from symile_clin.sources.versions import Release

UNREADY: Final = 3  #: exit code: the data failed


@dataclass
class Preflight:
    """What a look at the sources found.

    Attributes:
        releases: by source.
        tables: what a look at each table found; those that are not there are not in it.
        kept: tables whose typed copy is there, so that their rows are exact and cost nothing.
        opened: what became of a sample of each modality's files.
        cost: None where too little is there to estimate it.
        problems: why a build cannot start; all of them.
        notes: what a person should know all the same.
    """

    spec: str
    out: Path
    machine: Machine
    roots: Mapping[str, Path]
    releases: dict[str, Release] = field(default_factory=dict)
    tables: dict[str, Glance] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    opened: dict[str, Opened] = field(default_factory=dict)
    cost: Cost | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if a build can start."""
        return UNREADY if self.problems else 0

    def text(self) -> str:
        """Sources, tables, files, cost and problems, one below the other."""
        sources = pd.DataFrame(
            [
                {"source": source, "folder": str(self.roots[source]), "release": release.text()}
                for source, release in self.releases.items()
            ]
        )
        parts = [f"Sources\n{table_text(sources)}" if len(sources) else ""]
        if self.tables:
            parts.append(f"Tables\n{table_text(self._table_rows())}")
        if self.opened:
            parts.append(f"Files, a sample\n{table_text(self._opened_rows())}")
        parts.append(f"Machine\n{self.machine.text()}")
        if self.cost is not None:
            parts.append(f"Cost, estimated\n{self.cost.text()}")
        if self.notes:
            parts.append("\n".join(["Notes", *(f"  {note}" for note in self.notes)]))
        if self.problems:
            count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            numbered = [f"  {number}. {problem.text()}" for number, problem in enumerate(self.problems, start=1)]
            parts.append("\n".join([f"Cohort {self.spec} cannot be built: {count}.", *numbered]))
        else:
            parts.append(f"Cohort {self.spec} can be built in {self.out}.")
        return "\n\n".join(part for part in parts if part)

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "spec": self.spec,
            "out": str(self.out),
            "ready": not self.problems,
            "problems": [problem.record() for problem in self.problems],
            "notes": self.notes,
            "releases": {source: release.record() for source, release in self.releases.items()},
            "tables": {
                name: {
                    "file": str(one.path),
                    "form": one.form,
                    "bytes": one.bytes,
                    "rows": one.rows,
                    "exact": one.exact,
                    "missing": list(one.missing),
                    "repeated": list(one.repeated),
                    "unknown": list(one.unknown),
                    "kept": name in self.kept,
                }
                for name, one in self.tables.items()
            },
            "files": [one.record() for one in self.opened.values()],
            "machine": self.machine.record(),
            "cost": None if self.cost is None else self.cost.record(),
        }

    def _table_rows(self) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {
                    "table": name,
                    "file": one.path.name,
                    "size": amount(one.bytes),
                    "rows": f"{one.rows:,}" if one.exact else f"~{_rounded(one.rows)} (estimated)",
                    "columns": _columns(one),
                    "Parquet": "kept" if name in self.kept else "as it is" if one.form == "parquet" else "to be made",
                }
                for name, one in self.tables.items()
            ]
        )

    def _opened_rows(self) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {
                    "modality": one.modality,
                    "looked at": one.looked_at,
                    "fine": one.fine,
                    "missing": one.missing,
                    "refused": one.refusals(),
                    "ms to check": round(one.check_seconds * 1e3, 2),
                    "ms to read": round(one.read_seconds * 1e3, 2),
                }
                for one in self.opened.values()
            ]
        )


def _rounded(rows: int) -> str:
    """A number of rows to the digits that an estimate has."""
    return f"{rows / 1e6:,.1f} M" if rows >= 1e6 else f"{round(rows, -2):,}"


def _columns(one: Glance) -> str:
    wrong = [f"no {', '.join(one.missing)}"] if one.missing else []
    wrong += [f"twice {', '.join(one.repeated)}"] if one.repeated else []
    return "; ".join(wrong) or "complete"
