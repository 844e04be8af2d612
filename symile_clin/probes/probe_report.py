"""Probes of one split: encode, fit, judge, retrieve, and write tables, numbers and figures into one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from symile_clin import files
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError
from symile_clin.evaluation.absence import stand_ins
from symile_clin.evaluation.bootstrap import PatientResamples
from symile_clin.evaluation.embed import Embedded, embed
from symile_clin.evaluation.found import Found
from symile_clin.evaluation.measures import patient_stream
from symile_clin.evaluation.scoring import Scorer
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.probes import figures, tables
from symile_clin.probes.features import inputs_of
from symile_clin.probes.judging import judge
from symile_clin.probes.linear import PENALTIES
from symile_clin.probes.policy import Policy, findings_of
from symile_clin.probes.probing import Labelled, Probed, probe_all
from symile_clin.probes.tables import Results
from symile_clin.probes.zero_shot import Lift, lifts, retrieve
from symile_clin.progress import Progress
from symile_clin.schema import METRICS, SUBJECT_ID, Split
from symile_clin.tracking import Artifact

PROBES: Final = "probes.csv"
CALIBRATION: Final = "calibration.csv"
FINDINGS: Final = "findings.csv"
LABELS: Final = "labels.csv"
SETTINGS: Final = "probes.json"
COEFFICIENTS: Final = "coefficients.npz"
AUROC_FIGURE: Final = "auroc.png"
CALIBRATION_FIGURE: Final = "calibration.png"
LIFT_FIGURE: Final = "retrieved_findings.png"

#: What probing leaves in its directory, and whether it tells of single patients; a model fitted to them may.
PATIENT_LEVEL: Final[Mapping[str, bool]] = {
    METRICS: False,
    SETTINGS: False,
    PROBES: False,
    CALIBRATION: False,
    FINDINGS: False,
    LABELS: False,
    AUROC_FIGURE: False,
    CALIBRATION_FIGURE: False,
    LIFT_FIGURE: False,
    COEFFICIENTS: True,
}


def probe_split(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    split: Split,
    target: str,
    policy: Policy,
    min_positives: int,
    min_group: int,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    directory: Path,
    progress: Progress,
) -> Found:
    """Probe a model's embeddings for the findings of its cohort, and see which findings its queries retrieve.

    Args:
        model: on `device`.
        objective: the one that the model was trained with.
        split: "test"; or "val", which chose the penalties, too.
        target: what the other modalities retrieve.
        min_positives: patients with a finding, and without it, that every split needs for a probe.
        min_group: counts of fewer patients are not shown.
        seed: of resampling.
        directory: gets tables, metrics.json and figures; replaced whole.

    Raises:
        CohortError: no modality has findings, or no finding has enough patients.
        TrainingError: an embedding or score is not finite.
    """
    findings = findings_of(modalities, cohort.samples)
    _, patient = np.unique(cohort.samples[SUBJECT_ID].to_numpy(), return_inverse=True)
    splits: tuple[Split, ...] = tuple(dict.fromkeys(("train", "val", split)))
    rows = {one: cohort.rows(one) for one in splits}

    def encode(one: Split) -> Embedded:
        dataset = CohortDataset(cohort, modalities, rows[one])
        return embed(model=model, dataset=dataset, batch_size=batch_size, device=device, progress=progress)

    data = Labelled(
        rows=rows,
        encoded={one: encode(one) for one in splits},
        findings=findings,
        labels=policy.labels(findings.states),
        patient=patient,
    )
    probed = probe_all(
        data,
        cohort.samples,
        inputs=inputs_of(sorted(modalities), target=target),
        objective=objective,
        target=target,
        split=split,
        min_positives=min_positives,
        progress=progress,
    )
    if not probed:
        raise CohortError(
            f"no finding has {min_positives:,} patients with it and {min_positives:,} without in each split",
            remedy="Probe a larger cohort, or ask for fewer with --min-positives",
        )
    resamples = PatientResamples(patient[rows[split]], rng=patient_stream(seed))
    patients = len(np.unique(patient[rows[split]]))
    judged, averages = judge(probed, resamples, patients, seed=seed, min_group=min_group, progress=progress)
    found = Results(
        split=split,
        target=target,
        policy=policy,
        min_positives=min_positives,
        min_group=min_group,
        samples=len(rows[split]),
        patients=patients,
        support={
            name: {one: data.support(column, rows[one]) for one in splits} for column, name in enumerate(findings.names)
        },
        judged=judged,
        averages=averages,
        lifts=_retrieved(
            data,
            model=model,
            objective=objective,
            cohort=cohort,
            modalities=modalities,
            split=split,
            target=target,
            min_positives=min_positives,
            resamples=resamples,
            batch_size=batch_size,
            device=device,
            progress=progress,
        ),
    )
    settings = {
        "cohort": {"name": cohort.name, "hash": cohort.hash},
        "split": split,
        "target": target,
        "policy": {"uncertain": policy.uncertain, "blank": policy.blank, "in_words": policy.words()},
        "min_positives": min_positives,
        "min_group": min_group,
        "penalties": list(PENALTIES),
        "seed": seed,
        "synthetic": cohort.synthetic,
    }
    _write(directory, found, probed, settings)
    metrics = tables.metrics(found)
    return Found(
        metrics=metrics,
        tracked=tables.tracked(metrics),
        artifacts=tuple(
            Artifact(directory / name, patient_level)
            for name, patient_level in PATIENT_LEVEL.items()
            if (directory / name).is_file()
        ),
        table=tables.text(found),
    )


def _retrieved(
    data: Labelled,
    *,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    split: Split,
    target: str,
    min_positives: int,
    resamples: PatientResamples,
    batch_size: int,
    device: torch.device | str,
    progress: Progress,
) -> list[Lift]:
    """What queries of the split retrieve, of the findings that `target` shows and enough of its patients have."""
    rows, encoded = data.rows[split], data.encoded[split]
    columns = [
        column
        for column, owner in enumerate(data.findings.owners)
        if owner == target and data.support(column, rows).fewest >= min_positives
    ]
    queries = [name for name in modalities if name != target]
    here = np.flatnonzero(encoded.present[target])
    if not columns or not queries or not len(here):
        return []
    lacking = any(not encoded.present[name][here].all() for name in queries)
    scorer = Scorer(
        objective=objective,
        encoded=encoded,
        target=target,
        queries=here,
        candidates=here,
        stand_ins=stand_ins(
            model=model,
            names=queries if lacking else (),
            cohort=cohort,
            modalities=modalities,
            batch_size=batch_size,
            device=device,
            progress=progress,
        ),
    )
    labels = data.labels[rows[here]][:, columns]
    found = retrieve(scorer, labels, data.patient[rows[here]], progress=progress)
    return lifts(found.among(len(rows), here), [data.findings.names[column] for column in columns], resamples)


def _write(directory: Path, found: Results, probed: Sequence[Probed], settings: Mapping[str, object]) -> None:
    with files.atomic_directory(directory) as folder:
        files.write_json(folder / METRICS, tables.metrics(found))
        files.write_json(folder / SETTINGS, settings)
        for name, table in (
            (PROBES, tables.probes_table(found)),
            (CALIBRATION, tables.calibration_table(found)),
            (FINDINGS, tables.findings_table(found)),
            (LABELS, tables.labels_table(found)),
        ):
            table.to_csv(folder / name, index=False)
        coefficients: dict[str, Any] = _coefficients(probed)
        np.savez(folder / COEFFICIENTS, **coefficients)
        (folder / COEFFICIENTS).chmod(0o600)
        figures.auroc(folder / AUROC_FIGURE, found)
        figures.calibration(folder / CALIBRATION_FIGURE, found)
        if found.lifts:
            figures.lift(folder / LIFT_FIGURE, found)


def _coefficients(probed: Sequence[Probed]) -> dict[str, Any]:
    """`<input>/<finding>`: a weight for each feature as it comes, not standardised, then the intercept."""
    return {f"{one.input}/{one.finding}": np.append(one.probe.weights, one.probe.intercept) for one in probed}
