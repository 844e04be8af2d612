"""The books of a build: where every possible sample and every event went, and which files were refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
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
        self._place = {sample: place for place, sample in enumerate(self.index[SAMPLE_ID])}
        #: 0 where a sample is still in, otherwise 1 + the place of (step, reason) in `_exits`
        self._exit = np.zeros(len(self.index), dtype=np.int64)
        self._exits: list[tuple[str, str]] = []
        self._further = 0  #: samples beyond one of each index event
        self._further_of = 0  #: patients they are of
        self._further_exit = 0  #: their row among the exits
        self._samples: pd.DataFrame | None = None

    @property
    def possible(self) -> int:
        """Index events; each is counted once, also where it made several samples."""
        return len(self.index) - self._further

    @property
    def samples(self) -> pd.DataFrame:
        """Rows of the index that are still in, in its order."""
        if self._samples is None:
            self._samples = self.index[self._exit == 0]
        return self._samples

    def leave(self, step: str, reasons: Mapping[str, str]) -> None:
        """Take samples out.

        Args:
            reasons: sample_id -> reason. Samples that left before are not counted again.
        """
        if reasons:
            self._samples = None
        for reason in sorted(set(reasons.values())):
            places = np.array([self._place[sample] for sample, why in reasons.items() if why == reason])
            if (step, reason) not in self._exits:
                self._exits.append((step, reason))
            self._exit[places[self._exit[places] == 0]] = 1 + self._exits.index((step, reason))

    def multiply(self, step: str, reason: str, parts: pd.DataFrame) -> None:
        """Put several samples in the place of each one that is still in; at most once.

        Args:
            parts: sample_id and, as `of`, the one whose place it takes; at least one for each that is still in.
        """
        places = np.array([self._place[sample] for sample in parts["of"]], dtype=np.int64)
        out = np.flatnonzero(self._exit > 0)
        order = np.argsort(np.concatenate([places, out]), kind="stable")
        made = self.index.iloc[places].assign(**{SAMPLE_ID: parts[SAMPLE_ID].to_numpy()})
        further = pd.Series(places).duplicated().to_numpy()
        self._further, self._further_of = int(further.sum()), made.loc[further, SUBJECT_ID].nunique()
        exits = np.concatenate([np.zeros(len(places), dtype=np.int64), self._exit[out]])
        self.index = pd.concat([made, self.index.iloc[out]]).iloc[order].reset_index(drop=True)
        self._exit = exits[order]
        self._place = {sample: place for place, sample in enumerate(self.index[SAMPLE_ID])}
        self._exits.append((step, reason))
        self._further_exit = len(self._exits)
        self._samples = None

    def left(self) -> pd.DataFrame:
        """Every sample that is out, in the order of the index: sample_id, subject_id, step, reason."""
        out = self._exit > 0
        exits = pd.DataFrame(self._exits, columns=["step", "reason"], dtype="string")
        own = exits.iloc[self._exit[out] - 1].reset_index(drop=True)
        return pd.concat([self.index.loc[out, [SAMPLE_ID, SUBJECT_ID]].reset_index(drop=True), own], axis="columns")

    def refuse(self, modality: str, row: Mapping[str, Any], refusal: Refusal) -> None:
        """Write a refused event down."""
        self.refused.append(Refused(modality, row[EVENT_ID], str(row.get("path", "")), refusal))

    def table(self) -> pd.DataFrame:
        """attrition.csv: step, reason, samples, subjects.

        The first row counts all index events, the last the cohort; each row between counts samples that left and the
        patients they are of. Samples add up exactly; a patient may be in several rows. Where an index event made
        several samples, those beyond the first are a row with a minus: they came.
        """
        subjects = self.index[SUBJECT_ID].to_numpy()
        rows = [(INDEX_STEP, "", self.possible, len(np.unique(subjects)))]
        for number, (step, reason) in enumerate(self._exits, start=1):
            if number == self._further_exit and self._further:
                rows.append((step, reason, -self._further, self._further_of))
            gone = subjects[self._exit == number]
            if len(gone):
                rows.append((step, reason, len(gone), len(np.unique(gone))))
        kept = subjects[self._exit == 0]
        rows.append((FINAL_STEP, "", len(kept), len(np.unique(kept))))
        return pd.DataFrame(rows, columns=["step", "reason", "samples", "subjects"])

    def in_one_line(self) -> str:
        """The table as a sentence, for an error."""
        first, *gone, last = self.table().itertuples(index=False)
        counts = self.table()["samples"].tolist()[1:-1]
        parts = [
            f"{abs(count):,} {'left' if count > 0 else 'came'} at {row.step} ({row.reason})"
            for count, row in zip(counts, gone, strict=True)
        ]
        return f"of {first.samples:,} {first.step}, {', '.join(parts) or 'none left'}; {last.samples:,} remain"

    def quarantine(self) -> pd.DataFrame:
        """quarantine.parquet: modality, id, path, reason, detail of every refused file, in order."""
        rows = {
            (one.modality, str(one.event_id), one.path, one.refusal.reason, one.refusal.detail) for one in self.refused
        }
        return pd.DataFrame(sorted(rows), columns=["modality", "id", "path", "reason", "detail"], dtype="string")
