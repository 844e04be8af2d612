"""A whole probing of a model that needs no training, on a cohort whose findings were planted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError
from symile_clin.evaluation.bootstrap import PatientResamples
from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.evaluation.found import Found
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.triangle import Triangle
from symile_clin.probes import probe_report
from symile_clin.probes.features import QUERY, demographic_features, inputs_of
from symile_clin.probes.policy import Policy
from symile_clin.probes.probe_report import PATIENT_LEVEL, probe_split
from symile_clin.progress import Quiet
from symile_clin.schema import AGE, GENDER, SUBJECT_ID
from tests.evaluation.small_cohort import Collapsed, ReadsSynergy
from tests.probes.labelled_cohort import labelled_cohort, modalities

SIDE_BY_SIDE = "green+red"


def _probe(cohort: Cohort, directory: Path, **changed: Any) -> Found:
    arguments: dict[str, Any] = {
        "model": ReadsSynergy(),
        "objective": Symile(),
        "modalities": modalities(),
        "split": "test",
        "target": "blue",
        "policy": Policy(),
        "min_positives": 10,
        "min_group": 10,
        "seed": 0,
        "batch_size": 64,
        "device": "cpu",
        "progress": Quiet(),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_report, "PatientResamples", partial(PatientResamples, resamples=400))  # for speed
        if changed:  # one run of the module draws
            patch.setattr(probe_report, "figures", Mock())
        return probe_split(cohort=cohort, directory=directory, **{**arguments, **changed})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return labelled_cohort(tmp_path_factory.mktemp("cohort") / "small")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "probes"


@pytest.fixture(scope="module")
def report(cohort: Cohort, directory: Path) -> Found:
    return _probe(cohort, directory)


def _auroc(report: Found, name: str, finding: str) -> float:
    return report.metrics[f"test/probe/{name}/{finding}/auroc"]


def test_probes_find_what_was_planted_where_it_was_planted(report: Found) -> None:
    assert _auroc(report, "blue", "shared") > 0.95
    assert _auroc(report, "blue", "synergy") > 0.95
    assert _auroc(report, "blue+green+red", "synergy") > 0.95
    assert max(_auroc(report, name, "shared") for name in ("green", "red")) > 0.85  # one query shares it
    assert 0.4 < _auroc(report, SIDE_BY_SIDE, "synergy") < 0.6  # no sum of what each tells
    assert _auroc(report, QUERY, "synergy") > 0.95  # but their product tells
    for finding in ("shared", "synergy"):
        assert 0.35 < _auroc(report, DEMOGRAPHICS, finding) < 0.65


def test_averages_and_gains_are_those_of_the_findings(report: Found) -> None:
    for name in ("blue", SIDE_BY_SIDE):
        own = [_auroc(report, name, finding) for finding in ("shared", "synergy")]
        assert report.metrics[f"test/probe/{name}/macro/auroc"] == pytest.approx(np.mean(own))
        gain = report.metrics[f"test/probe/{name}/shared/auroc_gain"]
        assert gain == pytest.approx(own[0] - _auroc(report, DEMOGRAPHICS, "shared"))
    assert f"test/probe/{DEMOGRAPHICS}/shared/auroc_gain" not in report.metrics
    assert report.metrics["test/probe/blue/macro/findings"] == 2


def test_every_metric_has_an_interval_around_it(report: Found) -> None:
    for name, value in report.metrics.items():
        low = report.metrics.get(f"{name}_ci_low")
        if low is not None and not name.endswith("/ece"):  # resampling adds noise to an absolute error
            assert low <= value <= report.metrics[f"{name}_ci_high"], name


def test_what_is_retrieved_has_the_finding_of_who_asks(report: Found, cohort: Cohort) -> None:
    prefix = "test/zero_shot/blue/synergy/"
    assert report.metrics[f"{prefix}precision_at_10"] > 0.95
    assert report.metrics[f"{prefix}precision_at_10_without"] < 0.05
    assert report.metrics[f"{prefix}lift"] > 1.5
    assert report.metrics[f"{prefix}auroc"] > 0.7 > 0.3 > report.metrics[f"{prefix}auroc_without"]
    labels = cohort.samples.iloc[:200]["finding_synergy"]
    known = labels[labels != -1]
    assert report.metrics[f"{prefix}precision_at_10_chance"] == pytest.approx((known == 1).mean(), abs=0.01)
    assert report.metrics[f"{prefix}n"] == (labels == 1).sum()


def test_a_collapsed_model_gives_chance_everywhere(cohort: Cohort, tmp_path: Path) -> None:
    found = _probe(cohort, tmp_path / "collapsed", model=Collapsed()).metrics
    assert found["test/probe/blue/shared/auroc"] == 0.5
    assert found["test/probe/blue/shared/brier_skill"] == pytest.approx(0.0, abs=1e-4)
    prefix = "test/zero_shot/blue/shared/"
    assert found[f"{prefix}precision_at_10"] == pytest.approx(found[f"{prefix}precision_at_10_chance"])
    assert found[f"{prefix}lift_ci_low"] == pytest.approx(1.0) == found[f"{prefix}lift_ci_high"]
    assert found[f"{prefix}auroc"] == 0.5


@pytest.mark.parametrize(("objective", "has_query"), [(PairwiseClip(), True), (Triangle(), False)])
def test_any_objective_is_probed_by_its_own_score(
    cohort: Cohort, report: Found, tmp_path: Path, objective: Any, has_query: bool
) -> None:
    found = _probe(cohort, tmp_path / "other", objective=objective).metrics
    name = "test/zero_shot/blue/synergy/precision_at_10"
    assert 0 < found[name] < report.metrics[name]  # the model was made for products
    assert found["test/probe/blue/synergy/auroc"] == _auroc(report, "blue", "synergy")
    assert (f"test/probe/{QUERY}/shared/auroc" in found) == has_query


def test_files_say_how_states_were_read_and_hold_no_ids(report: Found, directory: Path, cohort: Cohort) -> None:
    assert {path.name for path in directory.iterdir()} == set(PATIENT_LEVEL)
    for artifact in report.artifacts:
        assert (oct(artifact.path.stat().st_mode)[-2:] == "00") or not artifact.patient_level
    for path in directory.glob("*.csv"):
        table = pd.read_csv(path)
        assert (table["uncertain_as"] == "ignore").all()
        assert (table["blank_as"] == "zeros").all()
        assert SUBJECT_ID not in table
    settings = json.loads((directory / "probes.json").read_text())
    assert settings["policy"]["in_words"] in report.table
    assert settings["cohort"]["name"] == cohort.name
    assert json.loads((directory / "metrics.json").read_text()) == report.metrics
    for path in directory.glob("*.png"):
        assert path.stat().st_size > 5000


def test_coefficients_give_the_forecasts_back(report: Found, directory: Path, cohort: Cohort) -> None:
    with np.load(directory / "coefficients.npz", allow_pickle=False) as stored:
        vector = stored[f"{DEMOGRAPHICS}/shared"]
    features = demographic_features(cohort.samples, train=cohort.rows("train"))
    assert features is not None
    assert len(vector) == features.shape[1] + 1
    logit = features[:200] @ vector[:-1] + vector[-1]
    labels = cohort.samples["finding_shared"].to_numpy(dtype=float)[:200]
    there, not_there = logit[labels == 1], logit[(labels == 0) | np.isnan(labels)]
    above = (there[:, None] > not_there).mean() + (there[:, None] == not_there).mean() / 2
    assert above == pytest.approx(_auroc(report, DEMOGRAPHICS, "shared"))


def test_rare_findings_are_left_out_counted_and_hidden(report: Found, directory: Path) -> None:
    assert not any("/rare/" in name for name in report.metrics)
    assert "rare" in report.table.splitlines()[-1]
    table = pd.read_csv(directory / "labels.csv", dtype=str).set_index(["finding", "split"])
    assert table.loc[("rare", "test"), "there"] == "<10"
    assert table.loc[("rare", "test"), "probed"] == "no"
    assert int(str(table.loc[("shared", "train"), "patients_with"])) > 10


def test_a_policy_changes_who_counts(cohort: Cohort, report: Found, tmp_path: Path) -> None:
    found = _probe(cohort, tmp_path / "ones", policy=Policy("ones", "ignore"))
    assert "uncertain positive, not mentioned left out" in found.table
    labels = cohort.samples["finding_shared"].to_numpy(dtype=float)[:200]
    name = "test/probe/blue/shared/"
    assert found.metrics[f"{name}n"] == (~np.isnan(labels)).sum()
    assert found.metrics[f"{name}n_positive"] == np.isin(labels, (1, -1)).sum()
    assert report.metrics[f"{name}n"] == (labels != -1).sum()
    assert report.metrics[f"{name}n_positive"] == (labels == 1).sum()


def test_little_goes_to_trackers(report: Found) -> None:
    assert 0 < len(report.tracked) < 60
    assert "test/probe/blue/macro/auroc_ci_low" in report.tracked
    assert "test/probe/blue/shared/auroc" in report.tracked
    assert "test/zero_shot/blue/synergy/precision_at_10_contrast" in report.tracked
    assert not any("calibr" in name or name.endswith("penalty") for name in report.tracked)


def test_samples_that_lack_a_modality_are_left_out_of_its_probes_alone(tmp_path: Path) -> None:
    lacking = {"red": range(0, 600, 5), "blue": range(3, 600, 7)}
    cohort = labelled_cohort(tmp_path / "cohort", lacking=lacking)
    found = _probe(cohort, tmp_path / "probes").metrics
    labels = cohort.samples["finding_shared"].to_numpy(dtype=float)[:200]
    known = labels != -1
    has_red, has_blue = np.arange(200) % 5 != 0, np.arange(200) % 7 != 3
    counted = {name: found[f"test/probe/{name}/shared/n"] for name in ("red", "green", "blue", SIDE_BY_SIDE)}
    assert counted["red"] == counted[SIDE_BY_SIDE] == (known & has_red).sum()
    assert counted["green"] == known.sum()
    assert counted["blue"] == (known & has_blue).sum()
    assert found["test/zero_shot/blue/shared/n"] == ((labels == 1) & has_blue).sum()
    gain = found["test/probe/red/shared/auroc_gain"]  # against the baseline on the same samples, not on all
    assert gain != found["test/probe/red/shared/auroc"] - found[f"test/probe/{DEMOGRAPHICS}/shared/auroc"]


def test_too_few_patients_are_said_to_be_too_few(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no finding has 500 patients"):
        _probe(cohort, tmp_path / "none", min_positives=500)


def test_the_val_split_says_that_it_chose(cohort: Cohort, tmp_path: Path) -> None:
    assert "val split chose the penalties" in _probe(cohort, tmp_path / "val", split="val").table


def test_inputs_are_alone_together_and_side_by_side() -> None:
    names = [one.name for one in inputs_of(["a", "b", "c"], target="b")]
    assert names == [DEMOGRAPHICS, "a", "b", "c", "a+c", "a+b+c", QUERY]
    assert [one.name for one in inputs_of(["a", "b"], target="b")] == [DEMOGRAPHICS, "a", "b", "a+b"]


def test_unknown_age_and_sex_are_the_mean_of_train() -> None:
    samples = pd.DataFrame({AGE: [40, None, 60], GENDER: ["F", "M", None]}).astype({AGE: "Int64", GENDER: "string"})
    train = np.array([0, 1])
    found = demographic_features(samples, train=train)
    np.testing.assert_array_equal(found, [[40, 1], [40, 0], [60, 0.5]])
    assert demographic_features(samples[[]], train=train) is None
    assert demographic_features(samples.assign(**{AGE: None})[[AGE]], train=train) is None
