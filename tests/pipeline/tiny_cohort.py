"""A cohort of three small lab panels on disk, and a preset to train on it: seconds, with all that `train` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from symile_clin import files
from symile_clin.data.candidates import draw_candidates, write_candidates
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.rng import stream
from symile_clin.schema import (
    ARRAYS_DIR,
    CANDIDATES_DIR,
    ROW,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    SUBJECT_ID,
    present_column,
)
from symile_clin.strict import dump_yaml

NAMES: Final = ("blue", "red", "green")
ITEMS: Final = [50912, 50931, 50971]
TRAIN, VAL = 40, 20
PRESET: Final[dict[str, Any]] = {
    "seed": 0,
    "objective": {"name": "symile", "negatives": "permuted", "normalization": "layernorm"},
    "model": {"dim": 16, "encoders": {name: {"arch": "mlp", "hidden": [32], "dropout": 0.3} for name in NAMES}},
    "training": {"epochs": 8, "batch_size": 8, "lr": 1e-2, "warmup_epochs": 1, "clip_norm": 1.0, "select_by": "loss"},
}


def tiny_cohort(root: Path) -> Cohort:
    """Write and open the newest cohort below the working directory `root`, and write the preset tiny.yaml."""
    files.write_text(root / "tiny.yaml", dump_yaml(PRESET))
    path, rng, n = root / "data" / "cohorts" / "tiny", stream(0, "tiny cohort"), TRAIN + VAL
    rows = np.arange(n)
    samples = pd.DataFrame({ROW: rows, SAMPLE_ID: rows, SUBJECT_ID: rows, SPLIT: ["train"] * TRAIN + ["val"] * VAL})
    arrays = {}
    for name in NAMES:
        samples[present_column(name)] = (rows != 3) | (name != "red")
        folder = path / ARRAYS_DIR / name
        folder.mkdir(parents=True)
        np.save(folder / "percentile.npy", rng.random((n, len(ITEMS)), dtype=np.float32))
        np.save(folder / "observed.npy", rng.random((n, len(ITEMS))) < 0.7)
        arrays[name] = {
            key: {"shape": [len(ITEMS)], "dtype": dtype, "parts": [{"file": f"{key}.npy", "rows": n}]}
            for key, dtype in (("percentile", "float32"), ("observed", "bool"))
        }
    samples.to_parquet(path / SAMPLES)
    val = rows[TRAIN:]
    lists = draw_candidates(val, val, n=5, rng=rng, split="val", other_subjects=False)
    write_candidates(path / CANDIDATES_DIR / "val.parquet", lists)
    spec = {
        "modalities": {name: {"room": "labs", "items": ITEMS} for name in NAMES},
        "candidates": {"target": "blue", "n": 5},
        "preset": str(root / "tiny.yaml"),
    }
    content = {"name": "tiny", "hash": "1", "spec": spec, "synthetic": False, "arrays": arrays}
    files.write_manifest(path, stage="cohort", content=content)
    return open_cohort(path)
