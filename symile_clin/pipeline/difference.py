"""`symile-clin cohort diff`: which samples entered, left or changed between two cohorts, and which rule did it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from symile_clin import files
from symile_clin.data.difference import EQUAL, OUTCOMES, Difference, difference
from symile_clin.data.store import open_cohort
from symile_clin.evaluation.cohort_tables import table_text
from symile_clin.modalities.registry import modalities_of
from symile_clin.progress import Progress

#: Lines of each list that a person is shown; `--json` has all.
TOP: Final = 8


@dataclass(frozen=True)
class DiffResult:
    """Two cohorts beside each other.

    Attributes:
        out: where the samples were listed, if asked for.
    """

    a: Path
    b: Path
    found: Difference
    out: Path | None

    def text(self) -> str:
        """Counts first, then what explains them; no ids."""
        counts = self.found.counts
        parts = [
            f"A  {self.a}: {counts['samples_a']:,} samples of {counts['subjects_a']:,} patients\n"
            f"B  {self.b}: {counts['samples_b']:,} samples of {counts['subjects_b']:,} patients\n"
            f"in both {counts['both']:,}, only in A {counts['only_a']:,}, only in B {counts['only_b']:,}; "
            f"Jaccard index {counts['jaccard']:.4f}",
            *self._of_other_kinds(),
            *_lines("Settings that differ", self.found.settings),
            *_lines("Sources that differ", self.found.sources),
            *_table("Only in A, by where B lost them", self.found.only_a, skip=bool(self._of_other_kinds())),
            *_table("Only in B, by where A lost them", self.found.only_b, skip=bool(self._of_other_kinds())),
            *_table(f"In both, in another split: {counts['split_changed']:,}", self.found.splits),
        ]
        if counts["both"]:
            parts += _table("In both: what samples take", self._by_modality())
            parts += _table("Where most samples differ", self._most(), skip=len(self.found.choices) < 2)
        if not self._differ():
            parts.append("The samples are the same, and take the same.")
        if self.out is not None:
            parts.append(f"Samples that differ: {self.out} (patient-level)")
        return "\n\n".join(parts)

    def record(self) -> dict[str, Any]:
        """The same for programs, in full."""
        found = self.found
        return {
            "a": str(self.a),
            "b": str(self.b),
            "counts": dict(found.counts),
            "settings": {key: list(pair) for key, pair in found.settings.items()},
            "sources": {key: list(pair) for key, pair in found.sources.items()},
            "only_a": found.only_a.to_dict("records"),
            "only_b": found.only_b.to_dict("records"),
            "splits": found.splits.to_dict("records"),
            "choices": [{**row, "settings": self._settings_of(row["modality"])} for row in _records(found.choices)],
            "out": None if self.out is None else str(self.out),
        }

    def _of_other_kinds(self) -> list[str]:
        """Samples of other index events, or several of one, have other ids; their admissions may still be the same."""
        counts = self.found.counts
        if counts["both"] or not counts["admissions_both"]:
            return []
        return [
            f"No sample is in both, for samples are made otherwise; {counts['admissions_both']:,} admissions are "
            f"(Jaccard index {counts['admissions_jaccard']:.4f})."
        ]

    def _by_modality(self) -> pd.DataFrame:
        summed = self.found.choices.groupby("modality", sort=False)[list(OUTCOMES)].sum().reset_index()
        kinds = self.found.choices.groupby("modality", sort=False)["what"].agg(list)
        summed.insert(1, "what", [what[0] if len(what) == 1 else f"{len(what)} values" for what in kinds])
        return summed

    def _most(self) -> pd.DataFrame:
        choices = self.found.choices
        unequal = choices[[one for one in OUTCOMES if one != EQUAL]].sum(axis=1)
        order = unequal.sort_values(ascending=False, kind="stable").index
        return choices.loc[order[unequal[order] > 0]]

    def _settings_of(self, modality: str) -> list[str]:
        return [key for key in self.found.settings if key.startswith(f"modalities.{modality}.")]

    def _differ(self) -> bool:
        unequal = self.found.choices[[one for one in OUTCOMES if one != EQUAL]].to_numpy().any()
        return bool(unequal) or any(self.found.counts[key] for key in ("only_a", "only_b", "split_changed"))


def diff_cohorts(*, a: Path, b: Path, out: Path | None = None, progress: Progress) -> DiffResult:
    """Compare two cohorts; B may be an imported release.

    Args:
        a, b: cohort directories.
        out: a Parquet file that lists every sample that differs, with its ids; nothing is listed otherwise.

    Raises:
        NotFoundError: a directory holds no complete cohort.
    """
    first, second = open_cohort(a), open_cohort(b)
    progress.say(f"Comparing {a} (A) with {b} (B).")
    found = difference(first, second, modalities_a=modalities_of(first.spec), modalities_b=modalities_of(second.spec))
    if out is not None:
        with files.atomic(out) as temporary:
            found.samples.to_parquet(temporary, index=False)
            temporary.chmod(0o600)
    return DiffResult(a=a, b=b, found=found, out=out)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[Any] = table.to_dict("records")
    return rows


def _lines(title: str, pairs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    if not pairs:
        return []
    shown = [f"  {key}: {_plain(a)} → {_plain(b)}" for key, (a, b) in list(pairs.items())[:TOP]]
    more = [f"  and {len(pairs) - TOP:,} more"] if len(pairs) > TOP else []
    return ["\n".join([title, *shown, *more])]


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()  # as specs are written
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table(title: str, table: pd.DataFrame, *, skip: bool = False) -> list[str]:
    if table.empty or skip:
        return []
    more = [f"and {len(table) - TOP:,} more"] if len(table) > TOP else []
    return ["\n".join([title, table_text(table.head(TOP)), *more])]
