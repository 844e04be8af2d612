"""A tiny cohort of three lab panels, a run on it and its evaluation: all that a report is made from, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from symile_clin import files
from symile_clin.data.candidates import draw_candidates, write_candidates
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.evaluation import evaluate
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from symile_clin.rng import stream
from symile_clin.schema import ATTRITION, CANDIDATES_DIR, GENDER, MANIFEST, SAMPLES, STATE_DIR
from tests.pipeline.tiny_cohort import ITEMS, NAMES, TRAIN, VAL, tiny_cohort

HOSTILE = "<img src=x onerror=alert(1)>"


def evaluated_run(root: Path) -> Cohort:
    """Write, train and evaluate below the working directory `root`; the run is called one, its split is val."""
    cohort = described_cohort(root)
    train(
        preset="tiny.yaml", name="one", overrides=["training.epochs=2"], device="cpu", tracking_uri=None,
        progress=Quiet(),
    )  # fmt: skip
    evaluate(run="one", split="val", device="cpu", tracking_uri=None, progress=Quiet())
    return cohort


def described_cohort(root: Path) -> Cohort:
    """Write and open a cohort below the working directory `root` with all that an evaluation and a report need.

    Cohort and sexes have names that try to become markup. The cohort is of real patients.
    """
    cohort = tiny_cohort(root)
    rng = stream(0, "values")
    samples = cohort.samples
    values = {
        f"{name}_{itemid}": np.where(rng.random(len(samples)) < 0.7, rng.uniform(1, 200, len(samples)).round(1), np.nan)
        for name in NAMES
        for itemid in ITEMS
    }
    sexes = {GENDER: [HOSTILE if row % 2 else "F" for row in range(len(samples))]}
    samples = pd.concat([samples, pd.DataFrame(values), pd.DataFrame(sexes)], axis=1)
    for name, modality in modalities_of(cohort.spec).items():
        state = modality.fit(samples[:TRAIN])
        files.write_json(cohort.path / STATE_DIR / f"{name}.json", state)
        samples, _ = modality.transform(samples, state)
    samples.to_parquet(cohort.path / SAMPLES)
    manifest: dict[str, Any] = {**cohort.manifest, "name": HOSTILE}
    files.write_json(cohort.path / MANIFEST, manifest)
    files.write_text(
        cohort.path / ATTRITION,
        f"step,reason,samples,subjects\nindex events,,80,80\nred,{HOSTILE},20,20\ncohort,,60,60\n",
    )
    rows = np.arange(TRAIN, TRAIN + VAL)
    lists = draw_candidates(rows, rows, n=5, rng=rng, split="val", other_subjects=True)
    write_candidates(cohort.path / CANDIDATES_DIR / "val_other_subjects.parquet", lists)
    return open_cohort(cohort.path)
