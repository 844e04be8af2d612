"""The books of a build: where every possible sample and every event went, and which files were refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from symile_clin.modalities.base import Refusal
from symile_clin.schema import EVENT_ID, SAMPLE_ID, SUBJECT_ID

INDEX_STEP: Final = "index events"
FINAL_STEP: Final = "cohort"


@dataclass(frozen=True)
class Refused:
    """One refused event of a modality.

    Attributes:
        path: relative to the modality's source; empty where the room names none.
    """

    modality: str
    event_id: int | str
    path: str
    refusal: Refusal


@dataclass
class Attrition:
    """Which samples are still in, and why each of the others left.

    Args:
        index: every possible sample: sample_id, subject_id and more.
    """

    index: pd.DataFrame
    refused: list[Refused] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = pd.DataFrame(columns=["step", "reason"], index=pd.Index([], name=SAMPLE_ID), dtype="string")
        self._steps: list[str] = []

    @property
    def samples(self) -> pd.DataFrame:
        """Rows of the index that are still in, in its order."""
        return self.index[~self.index[SAMPLE_ID].isin(self._left.index)]

    def leave(self, step: str, reasons: Mapping[str, str]) -> None:
        """Take samples out.

        Args:
            reasons: sample_id -> reason. Samples that left before are not counted again.
        """
        new = {sample: reason for sample, reason in reasons.items() if sample not in self._left.index}
        if step not in self._steps:
            self._steps.append(step)
        if new:
            rows = pd.DataFrame({"step": step, "reason": list(new.values())}, index=list(new), dtype="string")
            self._left = pd.concat([self._left, rows])

    def refuse(self, modality: str, row: Mapping[str, Any], refusal: Refusal) -> None:
        """Write a refused event down."""
        self.refused.append(Refused(modality, row[EVENT_ID], str(row.get("path", "")), refusal))

    def table(self) -> pd.DataFrame:
        """attrition.csv: step, reason, samples, subjects.

        The first row counts all index events, the last the cohort; each row between counts samples that left and the
        patients they are of. Samples add up exactly; a patient may be in several rows.
        """
        index = self.index.set_index(SAMPLE_ID)[SUBJECT_ID]
        rows = [(INDEX_STEP, "", len(index), index.nunique())]
        subjects = index.loc[self._left.index]
        for step in self._steps:
            reasons = self._left.loc[self._left["step"] == step, "reason"]
            for reason in sorted(reasons.unique()):
                gone = subjects[reasons.index[reasons == reason]]
                rows.append((step, reason, len(gone), gone.nunique()))
        kept = self.samples
        rows.append((FINAL_STEP, "", len(kept), kept[SUBJECT_ID].nunique()))
        return pd.DataFrame(rows, columns=["step", "reason", "samples", "subjects"])

    def in_one_line(self) -> str:
        """The table as a sentence, for an error."""
        first, *gone, last = self.table().itertuples(index=False)
        parts = [f"{row.samples:,} left at {row.step} ({row.reason})" for row in gone]
        return f"of {first.samples:,} {first.step}, {', '.join(parts) or 'none left'}; {last.samples:,} remain"

    def quarantine(self) -> pd.DataFrame:
        """quarantine.parquet: modality, id, path, reason, detail of every refused file, in order."""
        rows = {
            (one.modality, str(one.event_id), one.path, one.refusal.reason, one.refusal.detail) for one in self.refused
        }
        return pd.DataFrame(sorted(rows), columns=["modality", "id", "path", "reason", "detail"], dtype="string")
