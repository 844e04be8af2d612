"""From qualifying samples to a cohort's files: splits first, then everything that may only look at train."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.cohort.reading import Shards
from symile_clin.data.candidates import draw_candidates, write_candidates
from symile_clin.data.join import join_shards, link_shards, one_part, sha256_of
from symile_clin.data.splits import Drawn, check_disjoint
from symile_clin.modalities.base import Modality
from symile_clin.rng import stream
from symile_clin.schema import (
    ARRAYS_DIR,
    CANDIDATES_DIR,
    ROW,
    SAMPLE_COLUMNS,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    STATE_DIR,
    SUBJECT_ID,
    Split,
)

HELD_OUT: Final[tuple[Split, ...]] = ("val", "test")


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        samples: as in samples.parquet.
        arrays: the manifest's entry: modality -> array -> dtype, shape, parts.
        hash: of the logical content: samples in row order, arrays, candidate lists. It does not hang on the bytes of
            Parquet files, nor on where or by how many workers they were made.
    """

    samples: pd.DataFrame
    arrays: dict[str, dict[str, Any]]
    hash: str


def prepare(
    directory: Path,
    *,
    samples: pd.DataFrame,
    shards: Mapping[str, Shards],
    modalities: Mapping[str, Modality],
    split_of: Drawn,
    candidates: int,
    seed: int,
    join: bool = True,
) -> Prepared:
    """Write samples, arrays, fitted states and candidate lists.

    Args:
        samples: every qualifying sample in its final order; those without a split are left out.
        shards: what was read, by modality.
        split_of: split by sample_id.
        candidates: length of each list.
        seed: of the lists.
        join: bring what was read into one file for each array; otherwise the shards become the arrays' parts.

    Raises:
        CohortError: a patient is in two splits, a split is too small for the lists, or train lacks what a modality
            must be fitted to.
        DiskError: there is not enough room.
    """
    check_disjoint(samples, split_of)
    split = samples[SAMPLE_ID].map(split_of)
    kept = split.notna().to_numpy()
    samples = samples.assign(**{SPLIT: split.astype("string")})[kept].reset_index(drop=True)
    samples[ROW] = np.arange(len(samples), dtype=np.int64)
    samples = samples.astype({SUBJECT_ID: np.int64})
    entries: dict[str, dict[str, Any]] = {}
    for name, modality in modalities.items():
        folder = directory / ARRAYS_DIR / name
        folder.mkdir(parents=True)
        entries[name] = {}
        for array, spec in modality.arrays.items():
            if not spec.fitted:
                read = shards[name]
                write = join_shards if join else link_shards
                entries[name][array] = write(read.parts, read.rows(samples[SAMPLE_ID]), folder, array, spec)
        state = modality.fit(samples[samples[SPLIT] == "train"])
        files.write_json(directory / STATE_DIR / f"{name}.json", state)
        samples, fitted = modality.transform(samples, state)
        for array, values in fitted.items():
            entries[name][array] = _write_array(np.ascontiguousarray(values), folder / f"{array}.npy")
    modality_columns = [column for column in samples.columns if column not in SAMPLE_COLUMNS]
    samples = samples[[*SAMPLE_COLUMNS, *modality_columns]]
    with files.atomic(directory / SAMPLES) as temporary:
        samples.to_parquet(temporary, index=False)
    lists = _write_lists(directory / CANDIDATES_DIR, samples, n=candidates, seed=seed)
    arrays = [entry["sha256"] for name in sorted(entries) for _, entry in sorted(entries[name].items())]
    return Prepared(samples, entries, files.digest([hash_samples(samples), arrays, lists]))


def hash_samples(samples: pd.DataFrame) -> str:
    """Hex digest of the samples' values: columns by name, rows in order, nulls alike however they are stored."""
    total = hashlib.sha256()
    for name in sorted(samples.columns):
        column = samples[name]
        total.update(f"{name}\x1f".encode())
        if pd.api.types.is_float_dtype(column.dtype):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
            values[np.isnan(values)] = np.nan  # one bit pattern
            total.update(values.tobytes())
        elif pd.api.types.is_datetime64_any_dtype(column.dtype):
            total.update(column.to_numpy(dtype="datetime64[us]").tobytes())
        else:
            plain = column.astype(object).where(column.notna(), None).tolist()
            total.update(json.dumps(plain, default=int).encode())
    return total.hexdigest()


def _write_lists(folder: Path, samples: pd.DataFrame, *, n: int, seed: int) -> list[str]:
    digests: list[str] = []
    for split in HELD_OUT:
        of_split = samples[samples[SPLIT] == split]
        rows, subjects = of_split[ROW].to_numpy(dtype=np.int64), of_split[SUBJECT_ID].to_numpy(dtype=np.int64)
        for suffix, others in (("", False), ("_other_subjects", True)):
            rng = stream(seed, "candidates", split + suffix)
            lists = draw_candidates(rows, subjects, n=n, rng=rng, split=split, other_subjects=others)
            write_candidates(folder / f"{split}{suffix}.parquet", lists)
            digests.append(hashlib.sha256(lists.candidate_rows.tobytes()).hexdigest())
    return digests


def _write_array(values: NDArray[Any], target: Path) -> dict[str, Any]:
    np.save(target, values, allow_pickle=False)
    return one_part(values.dtype, values.shape, target.name, sha256_of([values], values.dtype, values.shape))
