"""Probes of every finding from every input: fitted on train, chosen on val, their forecasts for another split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.evaluation.embed import Embedded
from symile_clin.objectives.base import Objective
from symile_clin.probes.features import (
    QUERY,
    Input,
    demographic_features,
    embedded_features,
    query_features,
)
from symile_clin.probes.linear import Matrix, Probe, fit_probe, standard
from symile_clin.probes.metrics import Forecasts
from symile_clin.probes.policy import Findings, States, Support, support
from symile_clin.progress import Progress
from symile_clin.schema import Split

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Samples of the three splits with their labels.

    Attributes:
        rows: by split, the sample rows that were encoded, in order.
        encoded: by split, their embeddings.
        findings: of all samples of the cohort.
        labels: (all samples, findings) as the policy reads the states.
        patient: (all samples,) patient of each.
    """

    rows: Mapping[Split, Rows]
    encoded: Mapping[Split, Embedded]
    findings: Findings
    labels: States
    patient: NDArray[np.int64]

    def support(self, column: int, rows: Rows) -> Support:
        """On how much a finding rests in these rows, as far as they are labelled."""
        rows = rows[self.findings.labelled[rows]]
        return support(self.findings.states[rows, column], self.labels[rows, column], self.patient[rows])


@dataclass(frozen=True)
class Probed:
    """One finding from one input.

    Attributes:
        rows: (n,) sample rows that were forecast.
    """

    input: str
    finding: str
    probe: Probe
    rows: Rows
    forecasts: Forecasts


def probe_all(
    data: Labelled,
    samples: pd.DataFrame,
    *,
    inputs: Sequence[Input],
    objective: Objective,
    target: str,
    split: Split,
    min_positives: int,
    progress: Progress,
) -> list[Probed]:
    """All probes that enough patients allow, input by input.

    Args:
        samples: of the cohort, for the baseline.
        objective: makes the vector that `target` is retrieved with.
        split: whose forecasts are wanted.
        min_positives: patients with the finding, and without it, that train, val and `split` must each have among the
            samples that have the input.
    """
    numbers = np.unique(data.patient[data.rows[split]])
    found = []
    with progress.track("fitting probes", len(inputs) * len(data.findings.names)) as advance:
        for one in inputs:
            features = _features(data, one, samples, objective, target)
            if features is not None:
                found += _probe_input(
                    one.name, features, data, split=split, numbers=numbers, min_positives=min_positives
                )
            advance(len(data.findings.names))
    return found


#: Features of the samples that have an input, and their rows, by split.
_Features = Mapping[Split, tuple[Matrix, Rows]]


def _features(data: Labelled, one: Input, samples: pd.DataFrame, objective: Objective, target: str) -> _Features | None:
    if one.name == DEMOGRAPHICS:
        known = demographic_features(samples, train=data.rows["train"])
        return None if known is None else {split: (known[rows], rows) for split, rows in data.rows.items()}
    found: dict[Split, tuple[Matrix, Rows]] = {}
    for split, rows in data.rows.items():
        made = (
            query_features(objective, data.encoded[split], one.modalities, target=target)
            if one.name == QUERY
            else embedded_features(data.encoded[split], one.modalities)
        )
        if made is None:
            return None
        matrix, here = made
        found[split] = matrix[here], rows[here]
    return found


def _probe_input(
    name: str, features: _Features, data: Labelled, *, split: Split, numbers: Rows, min_positives: int
) -> list[Probed]:
    needed: set[Split] = {"train", "val", split}
    x, train_rows = features["train"]
    if not len(x):
        return []
    standardised = standard(x)
    train_x, val_x = standardised(x), standardised(features["val"][0])
    measured, rows = features[split]
    found = []
    for column, finding in enumerate(data.findings.names):
        if min(data.support(column, features[one][1]).fewest for one in needed) < min_positives:
            continue
        labels = data.labels[:, column]
        train, val, known = (~np.isnan(labels[own]) for own in (train_rows, features["val"][1], rows))
        y = labels[train_rows][train] == 1
        probe = fit_probe(
            train_x[train], y, val_x[val], labels[features["val"][1]][val] == 1, standardised=standardised
        )
        own = rows[known]
        forecasts = Forecasts(
            patient=np.searchsorted(numbers, data.patient[own]),
            logit=probe.logit(measured[known]),
            truth=labels[own] == 1,
            reference=float(y.mean()),
        )
        found.append(Probed(name, finding, probe, own, forecasts))
    return found
