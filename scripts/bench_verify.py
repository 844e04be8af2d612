"""How long `cohort verify` takes at full size, and in how much memory: arrays of noise, as many as the paper's cohort.

    python scripts/bench_verify.py --folder /tmp/verify --samples 11622

A small synthetic cohort is built, and then written again with as many samples: ids and times of their own, pictures and
signals of noise. Prints one JSON object; the peak counts pages of mapped arrays, which the system takes back when it
needs them. The folder, several gigabytes large, is removed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from symile_clin import files
from symile_clin.data.candidates import draw_candidates, write_candidates
from symile_clin.data.join import one_part, stored_sha256
from symile_clin.data.prepare import hash_cohort, hash_lists
from symile_clin.data.store import StoredArray, open_cohort
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.progress import Quiet
from symile_clin.schema import SPLIT, SPLITS

PATIENTS = 800


def enlarge(small: Path, folder: Path, samples: int) -> None:
    """Write a cohort of `samples` rows that are the small cohort's again and again, but for what identifies them."""
    cohort = open_cohort(small)
    modalities = modalities_of(cohort.spec)
    rng = np.random.default_rng(0)
    table = cohort.samples.iloc[np.arange(samples) % len(cohort.samples)].reset_index(drop=True)
    rows = np.arange(samples)
    table["row"], table["subject_id"], table["hadm_id"] = rows, 10_000_000 + rows, 20_000_000 + rows
    table["sample_id"] = pd.Series(20_000_000 + rows).astype("string")
    table[SPLIT] = pd.Series(rng.choice(SPLITS, samples, p=[0.89, 0.07, 0.04]), dtype="string")
    entries: dict[str, dict[str, object]] = {}
    for name, modality in modalities.items():
        for column in modality.recordings.ids.values():
            table[column] = pd.Series(rows).astype(table[column].dtype)
        into = folder / "arrays" / name
        into.mkdir(parents=True)
        state = modality.fit(table[table[SPLIT] == "train"])
        files.write_json(folder / "state" / f"{name}.json", state)
        table, fitted = modality.transform(table, state)
        entries[name] = {}
        for array, spec in modality.arrays.items():
            target = np.lib.format.open_memmap(
                into / f"{array}.npy", mode="w+", dtype=np.dtype(spec.dtype), shape=(samples, *spec.shape)
            )
            for start in range(0, samples, 256):
                some = slice(start, min(start + 256, samples))
                noise = rng.integers(0, 120, (some.stop - start, *spec.shape))
                target[some] = fitted[array][some] if spec.fitted else noise
            target.flush()
            entry = one_part(target.dtype, target.shape, f"{array}.npy", "")
            entries[name][array] = {**entry, "sha256": stored_sha256(StoredArray(into, entry))}
    table.to_parquet(folder / "samples.parquet", index=False)
    lists = []
    for split in ("val", "test"):
        of_split = rows[table[SPLIT] == split]
        for kind in ("", "_other_subjects"):
            drawn = draw_candidates(
                of_split, 10_000_000 + of_split, n=10, rng=rng, split=split, other_subjects=bool(kind)
            )
            write_candidates(folder / "candidates" / f"{split}{kind}.parquet", drawn)
            lists.append(hash_lists(drawn))
    digests = {name: {key: str(one["sha256"]) for key, one in of.items()} for name, of in entries.items()}  # type: ignore[index]
    content = {key: value for key, value in cohort.manifest.items() if key not in ("stage", "files", "version")}
    content |= {"hash": hash_cohort(table, digests, lists), "arrays": entries, "files": files.listing(folder)}
    files.write_manifest(folder, stage="cohort", content=content)


def main() -> None:
    """Build, enlarge, verify."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=11_622)
    options = parser.parse_args()
    tree = options.folder / "tree"
    synth(out=tree, patients=PATIENTS, seed=0, workers=None, progress=Quiet())
    build_cohort(
        spec="demo", mimic_iv=tree / "mimic-iv", mimic_cxr=tree / "mimic-cxr-jpg", mimic_ecg=tree / "mimic-iv-ecg",
        out=options.folder / "small", tracking_uri=None, progress=Quiet(),
        overrides=["modalities.cxr.short_side=320", "modalities.cxr.long_side=400"],
    )  # fmt: skip
    large = options.folder / "large"
    large.mkdir()
    enlarge(options.folder / "small", large, options.samples)
    started = time.monotonic()
    command = [sys.executable, "-m", "symile_clin", "cohort", "verify", str(large), "--json", "--quiet"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    size = sum(path.stat().st_size for path in large.rglob("*") if path.is_file())
    print(
        json.dumps(
            {
                "samples": options.samples,
                "gigabytes": round(size / 1e9, 2),
                "seconds": round(time.monotonic() - started, 1),
                "peak_megabytes": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000),
                "found": found["found"],
            }
        )
    )
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
