"""Findings of samples, and how their four states are read: there, not there, uncertain, not mentioned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.errors import CohortError
from symile_clin.modalities.base import Modality

Uncertain = Literal["ignore", "zeros", "ones"]
Blank = Literal["zeros", "ignore"]
States = NDArray[np.float64]

#: Findings with fewer patients on either side, in any split that a probe needs, are left out.
MIN_POSITIVES: Final = 10
#: Counts of fewer patients than this are not shown.
MIN_GROUP: Final = 10
_READ_AS: Final[Mapping[str, float]] = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
_WORDS: Final[Mapping[str, str]] = {"ignore": "left out", "zeros": "negative", "ones": "positive"}


@dataclass(frozen=True)
class Policy:
    """How a labeller's states become labels, the same for training, choosing and measuring.

    Attributes:
        uncertain: U-Ignore, U-Zeros or U-Ones. No reading was best for all findings (Irvin et al.), so the default
            takes no side: what the report did not decide, no probe is taught or judged by.
        blank: what a report does not mention is read as not there, for reports name what is abnormal; "ignore" keeps
            explicit negatives only, which are few and written where somebody looked for the finding.

    Source:
        Irvin et al. (2019), CheXpert, AAAI 33, "Uncertainty approaches"; Johnson et al. (2019), MIMIC-CXR-JPG,
        arXiv:1901.07042, on the same four states in MIMIC.
    """

    uncertain: Uncertain = "ignore"
    blank: Blank = "zeros"

    def labels(self, states: States) -> States:
        """(n, findings) 1 there, 0 not there, NaN left out, from states 1, 0, −1, NaN of the same shape.

        A sample without any state has no labels: nobody labelled it, and its blanks say nothing.
        """
        found = states.copy()
        found[states == -1] = _READ_AS[self.uncertain]
        found[np.isnan(states)] = _READ_AS[self.blank]
        found[np.isnan(states).all(axis=1)] = np.nan
        return found

    def words(self) -> str:
        """The policy for a reader."""
        return f"uncertain {_WORDS[self.uncertain]}, not mentioned {_WORDS[self.blank]}"


@dataclass(frozen=True)
class Findings:
    """What the modalities of a cohort are labelled with.

    Attributes:
        names: in snake_case; with the modality's name before it where two modalities share one.
        owners: the modality that each is of.
        states: (n, findings) 1, 0, −1, NaN, in the order of the samples.
    """

    names: tuple[str, ...]
    owners: tuple[str, ...]
    states: States

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n,) whether anybody labelled a sample: it has a state of some finding."""
        known: NDArray[np.bool_] = np.asarray(~np.isnan(self.states).all(axis=1))
        return known


def findings_of(modalities: Mapping[str, Modality], samples: pd.DataFrame) -> Findings:
    """All findings that the modalities give labels for.

    Raises:
        CohortError: there are none, or a state is none of the four.
    """
    frames = {name: modality.labels(samples) for name, modality in modalities.items()}
    columns = [(owner, str(column)) for owner, frame in frames.items() for column in frame.columns]
    if not columns:
        raise CohortError(
            "none of the cohort's modalities is labelled with findings", remedy="Probe a cohort whose samples are"
        )
    shared = len({column for _, column in columns}) < len(columns)
    states = np.column_stack([frame.to_numpy(dtype=np.float64, na_value=np.nan) for frame in frames.values()])
    if not (np.isin(states, (-1.0, 0.0, 1.0)) | np.isnan(states)).all():
        raise CohortError("findings hold other values than 1, 0, -1 and nothing", remedy="Rebuild the cohort")
    return Findings(
        names=tuple(f"{owner}_{column}" if shared else column for owner, column in columns),
        owners=tuple(owner for owner, _ in columns),
        states=states,
    )


@dataclass(frozen=True)
class Support:
    """On how much a finding's numbers rest, in some samples.

    Attributes:
        states: samples by state: there, not_there, uncertain, not_mentioned.
        patients: patients in each state, in the same order.
        patients_with, patients_without: patients with at least one sample that the policy reads so.
    """

    states: Mapping[str, int]
    patients: Mapping[str, int]
    patients_with: int
    patients_without: int

    @property
    def fewest(self) -> int:
        """Patients on the smaller side."""
        return min(self.patients_with, self.patients_without)

    def shown(self, min_group: int) -> dict[str, int | str]:
        """`states` without small cells: those of fewer than `min_group` patients, and then the smallest other one, too,
        from which and the total they would follow."""
        small = {name for name, count in self.patients.items() if 0 < count < min_group}
        others = sorted((count, name) for name, count in self.states.items() if count and name not in small)
        if len(small) == 1 and others:
            small.add(others[0][1])
        return {name: hidden(min_group) if name in small else count for name, count in self.states.items()}


def support(states: States, labels: States, patient: NDArray[Any]) -> Support:
    """Counts of one finding, from its states and labels (n,) of labelled samples, and the patient of each."""
    members = {
        "there": states == 1,
        "not_there": states == 0,
        "uncertain": states == -1,
        "not_mentioned": np.isnan(states),
    }
    return Support(
        states={name: int(here.sum()) for name, here in members.items()},
        patients={name: len(np.unique(patient[here])) for name, here in members.items()},
        patients_with=len(np.unique(patient[labels == 1])),
        patients_without=len(np.unique(patient[labels == 0])),
    )


def hidden(min_group: int) -> str:
    """What stands for the count of a small group."""
    return f"<{min_group}"
