"""When so many files are refused that something is wrong with all of them, and a build stops by itself."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pandas as pd

from symile_clin.cohort.attrition import Attrition
from symile_clin.errors import CohortError
from symile_clin.modalities.base import Reason, Refusal

#: A build never stops for fewer refused files of a modality: of few files, any share may be bad.
LEAST_REFUSED: Final = 50
#: Reasons that lie in tables.
NOT_THE_FILES: Final = frozenset({Reason.UNLABELLED})
MOST_NAMED: Final = 3


class TooManyRefusedError(CohortError):
    """More files of a modality are refused than the spec allows.

    Args:
        quarantine: of all modalities so far; patient-level.
    """

    def __init__(self, found: str, *, quarantine: pd.DataFrame) -> None:
        super().__init__(found)
        self.quarantine = quarantine


class RefusalLimit:
    """Counts one modality's refused files in one pass over them.

    It stops a build as soon as more are refused than the share allows of all that the pass goes over: never one that
    would have ended well, whatever the order of the files is.

    Args:
        modality: its name.
        doing: what is done to files in this pass, such as "read".
        share: the most that may be refused, in [0, 1].
        attrition: the books of the build.
    """

    def __init__(self, modality: str, doing: str, *, share: float, attrition: Attrition) -> None:
        self._modality, self._doing, self._share, self._attrition = modality, doing, share, attrition
        self._total = 0
        self._reasons: Counter[Reason] = Counter()

    def expect(self, files: int) -> None:
        """The pass goes over so many more."""
        self._total += files

    def count(self, refusal: Refusal | None) -> None:
        """One more has been looked at, and may be used or is refused."""
        if refusal is not None and refusal.reason not in NOT_THE_FILES:
            self._reasons[refusal.reason] += 1

    @property
    def exceeded(self) -> bool:
        """Whether the build has to stop."""
        refused = self._reasons.total()
        return refused >= LEAST_REFUSED and refused > self._share * self._total

    def stop_if_exceeded(self) -> None:
        """Stop the build, once what was refused is in its books.

        Raises:
            TooManyRefusedError: with the counts of the most frequent reasons.
        """
        if not self.exceeded:
            return
        refused, frequent = self._reasons.total(), self._reasons.most_common(MOST_NAMED)
        named = [f"{reason} {count:,}" for reason, count in frequent]
        others = refused - sum(count for _, count in frequent)
        if others:
            named.append(f"other reasons {others:,}")
        raise TooManyRefusedError(
            f"{refused:,} of the {self._total:,} files of '{self._modality}' to be {self._doing} are refused already, "
            f"more than the {self._share:.0%} that the spec allows: {', '.join(named)}",
            quarantine=self._attrition.quarantine(),
        )
