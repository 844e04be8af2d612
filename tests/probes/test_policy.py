"""The four states of a finding, and what a policy makes of them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from symile_clin.errors import CohortError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.cxr import CXR, CxrOptions
from symile_clin.modalities.cxr.labels import FINDING_NAMES
from symile_clin.modalities.labs import Labs
from symile_clin.probes.policy import Blank, Findings, Policy, Uncertain, findings_of, support

NAN = float("nan")
#: Two findings of five samples; the last has no label at all.
STATES = np.array([[1, 0], [0, -1], [-1, NAN], [NAN, 1], [NAN, NAN]])


class Labelled:
    """The part of a modality that is asked for findings."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        assert len(samples) == len(self.frame)
        return self.frame


def _modalities(**frames: Any) -> dict[str, Modality]:
    return {name: cast(Modality, Labelled(pd.DataFrame(frame))) for name, frame in frames.items()}


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "zeros", [[1, 0], [0, NAN], [NAN, 0], [0, 1], [NAN, NAN]]),
        ("zeros", "zeros", [[1, 0], [0, 0], [0, 0], [0, 1], [NAN, NAN]]),
        ("ones", "zeros", [[1, 0], [0, 1], [1, 0], [0, 1], [NAN, NAN]]),
        ("ones", "ignore", [[1, 0], [0, 1], [1, NAN], [NAN, 1], [NAN, NAN]]),
        ("ignore", "ignore", [[1, 0], [0, NAN], [NAN, NAN], [NAN, 1], [NAN, NAN]]),
    ],
)
def test_states_become_labels_as_the_policy_says(uncertain: Uncertain, blank: Blank, expected: list[Any]) -> None:
    before = STATES.copy()
    np.testing.assert_array_equal(Policy(uncertain, blank).labels(STATES), expected)
    np.testing.assert_array_equal(STATES, before)


def test_a_policy_says_what_it_does() -> None:
    assert Policy().words() == "uncertain left out, not mentioned negative"
    assert Policy("ones", "ignore").words() == "uncertain positive, not mentioned left out"


def test_findings_are_gathered_and_told_apart_where_two_modalities_share_a_name() -> None:
    samples = pd.DataFrame(index=range(2))
    one, both = {"edema": [1.0, NAN]}, {"edema": [0.0, -1.0], "mass": [NAN, NAN]}
    alone = findings_of(_modalities(film=both), samples)
    assert alone.names == ("edema", "mass")
    together = findings_of(_modalities(film=one, scan=both), samples)
    assert together.names == ("film_edema", "scan_edema", "scan_mass")
    assert together.owners == ("film", "scan", "scan")
    np.testing.assert_array_equal(together.states, [[1, 0, NAN], [NAN, -1, NAN]])


def test_a_cohort_without_findings_is_refused() -> None:
    samples = pd.DataFrame({"lab_50912": [1.0]})
    labs = Labs("labs", Labs.Options.model_validate({"items": [50912]}))
    with pytest.raises(CohortError, match="none of the cohort's modalities is labelled"):
        findings_of({"labs": labs}, samples)
    with pytest.raises(CohortError, match="other values than"):
        findings_of(_modalities(film={"edema": [2.0]}), samples)


def test_x_rays_give_the_findings_that_the_samples_have() -> None:
    samples = pd.DataFrame({f"chexpert_{name}": [1.0, NAN, -1.0] for name in FINDING_NAMES.values()})
    xrays = CXR("cxr", CxrOptions())
    found = xrays.labels(samples)
    assert list(found) == list(FINDING_NAMES.values())
    assert len(found.columns) == 14
    assert (found.dtypes == "float64").all()
    np.testing.assert_array_equal(found["edema"], [1.0, NAN, -1.0])
    assert list(xrays.labels(samples[["chexpert_edema"]])) == ["edema"]
    assert xrays.labels(pd.DataFrame({"row": [0, 1]})).shape == (2, 0)
    other = CXR("prior", CxrOptions())
    assert list(other.labels(samples.rename(columns=lambda name: f"prior_{name}"))) == list(FINDING_NAMES.values())


def test_support_counts_samples_by_state_and_patients_by_label() -> None:
    states = np.array([1, 1, 0, NAN, -1, NAN])
    labels = Policy("ignore", "zeros").labels(np.column_stack([states, np.zeros(6)]))[:, 0]
    own = support(states, labels, np.array([7, 7, 7, 8, 8, 9]))
    assert own.states == {"there": 2, "not_there": 1, "uncertain": 1, "not_mentioned": 2}
    assert (own.patients_with, own.patients_without, own.fewest) == (1, 3, 1)


def test_small_cells_are_hidden_and_do_not_follow_from_the_others() -> None:
    patient = np.arange(100)
    states = np.repeat([1.0, 0.0, -1.0, NAN], [30, 4, 16, 50])
    own = support(states, np.nan_to_num(states), patient)
    assert own.shown(10) == {"there": 30, "not_there": "<10", "uncertain": "<10", "not_mentioned": 50}
    assert own.shown(1) == own.states
    none = support(np.repeat([1.0, NAN], 50), np.zeros(100), patient)
    assert none.shown(10)["uncertain"] == 0  # nobody is not somebody


def test_a_sample_that_nobody_labelled_is_known_as_such() -> None:
    findings = Findings(names=("a", "b"), owners=("film", "film"), states=STATES)
    assert list(findings.labelled) == [True, True, True, True, False]
