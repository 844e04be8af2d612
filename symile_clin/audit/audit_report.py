"""One audit: encode, score, list, draw; all into one directory. It drops nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.audit import figures
from symile_clin.audit.identical import identical
from symile_clin.audit.listed import IDENTICAL, MIX_UP, UNLIKE, foremost, identical_lines, mix_up_lines, unlike_lines
from symile_clin.audit.mismatch import mismatch
from symile_clin.audit.pictures import audit_gallery
from symile_clin.audit.summary import metrics_of, table
from symile_clin.audit.unlike import FEWEST, Usual, Values, share_below
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.evaluation.absence import stand_ins
from symile_clin.evaluation.embed import embed, encoder_states
from symile_clin.evaluation.found import Found
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.schema import METRICS, SUBJECT_ID, Split
from symile_clin.tracking import Artifact

LINES: Final = "audit.csv"
FIGURE: Final = "audit.png"
GALLERY: Final = "audit_gallery.png"

#: What an audit leaves in its directory, and whether it shows single patients.
PATIENT_LEVEL: Final[Mapping[str, bool]] = {METRICS: False, FIGURE: False, LINES: True, GALLERY: True}


@dataclass(frozen=True)
class Audit:
    """What one audit found.

    Attributes:
        lines: as in audit.csv; see `listed.COLUMNS`.
        found: numbers and files; the first lines of each kind are its table.
    """

    lines: pd.DataFrame
    found: Found


def audit_splits(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    splits: Sequence[Split],
    trained_on: CohortDataset,
    held_out: CohortDataset,
    top: int,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    directory: Path,
    progress: Progress,
) -> Audit:
    """Look for possible mix-ups, inputs unlike the training data, and values that several patients share.

    Args:
        model: on `device`.
        objective: the one that the model was trained with.
        splits: to audit, each by itself; mix-ups are sought within a split.
        trained_on: the samples that trained the model.
        held_out: samples of the same cohort that did not; what is usual is shown as a share of them.
        top: lines of each kind that are shown.
        seed: of the forests.
        directory: gets metrics.json, audit.csv and the pictures; replaced whole.

    Raises:
        CohortError: a split's samples are of one patient, or no training sample has what stands for what samples lack.
        TrainingError: an embedding or score is not finite.
    """

    def states(dataset: CohortDataset) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Rows and states of the samples that have each modality; nothing of a modality that none has."""
        one = encoder_states(model=model, dataset=dataset, batch_size=batch_size, device=device, progress=progress)
        return {
            name: (dataset.rows[here], one.embeddings[name][here]) for name, here in one.present.items() if here.any()
        }

    training, reference = states(trained_on), states(held_out)
    usual: dict[str, Usual] = {}
    usual_scores: dict[str, Values] = {}
    for name in (name for name in modalities if name in training and name in reference):
        if min(len(training[name][0]), len(reference[name][0])) >= FEWEST:
            usual[name] = Usual(training[name][1], seed=seed, name=name)
            usual_scores[name] = usual[name].unlike(reference[name][1])
    copies = {name: identical(cohort, modality, progress=progress) for name, modality in modalities.items()}
    patients = cohort.samples[SUBJECT_ID].to_numpy()

    parts = []
    for split in splits:
        dataset = CohortDataset(cohort, modalities, cohort.rows(split))
        encoded = embed(model=model, dataset=dataset, batch_size=batch_size, device=device, progress=progress)
        lacking = [name for name, here in encoded.present.items() if not here.all()]
        absent = stand_ins(
            model=model,
            names=lacking,
            cohort=cohort,
            modalities=modalities,
            batch_size=batch_size,
            device=device,
            progress=progress,
        )
        _, numbers = np.unique(patients[dataset.rows], return_inverse=True)
        found = mismatch(
            objective=objective,
            encoded=encoded,
            patients=numbers,
            scale=model.scale.item(),
            stand_ins=absent,
        )
        parts.append(mix_up_lines(found, dataset.rows, split=split))
        is_reference = cohort.hash == held_out.cohort.hash and np.array_equal(dataset.rows, held_out.rows)
        audited = reference if is_reference else states(dataset)
        for name, one in usual.items():
            if name not in audited:
                continue
            rows, vectors = audited[name]
            scores = usual_scores[name] if is_reference else one.unlike(vectors)
            shares = share_below(scores, usual_scores[name], among=is_reference)
            parts.append(unlike_lines(name, rows, scores, shares, split=split))
        parts += [identical_lines(name, dataset.rows, same, split=split) for name, same in copies.items()]
    lines = pd.concat(parts, ignore_index=True)

    listed = {kind: foremost(lines, kind, top) for kind in (MIX_UP, UNLIKE, IDENTICAL)}
    metrics = metrics_of(lines, splits=splits)
    with files.atomic_directory(directory) as folder:
        files.write_json(folder / METRICS, metrics)
        lines.to_csv(folder / LINES, index=False, float_format="%.6g")
        figures.draw(folder / FIGURE, lines=lines, listed=listed, reference=usual_scores, splits=splits)
        audit_gallery(folder / GALLERY, cohort=cohort, modalities=modalities, listed=listed)
        for name, patient_level in PATIENT_LEVEL.items():
            if patient_level:
                (folder / name).chmod(0o600)
    reported = Found(
        metrics=metrics,
        tracked=metrics,
        artifacts=tuple(Artifact(directory / name, patient_level) for name, patient_level in PATIENT_LEVEL.items()),
        table=table(
            lines,
            listed,
            splits=splits,
            left_out=[name for name in modalities if name not in usual],
            reference=len(held_out),
        ),
    )
    return Audit(lines=lines, found=reported)
