"""From qualifying samples to a cohort's files: splits first, then everything that may only look at train."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import disk, files
from symile_clin.cohort.reading import Shards
from symile_clin.data.candidates import CandidateLists, draw_candidates, draw_matched, write_candidates
from symile_clin.data.inputs import write_inputs
from symile_clin.data.join import join_shards, link_shards, one_part, sha256_of, stored_sha256
from symile_clin.data.splits import Drawn, check_disjoint
from symile_clin.data.store import StoredArray
from symile_clin.data.strata import complete, strata
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import Linked
from symile_clin.rng import stream
from symile_clin.schema import (
    AGE_BAND,
    ARRAYS_DIR,
    CANDIDATES_DIR,
    GENDER,
    ROW,
    SAMPLE_COLUMNS,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    STATE_DIR,
    SUBJECT_ID,
    Split,
    present_column,
)

HELD_OUT: Final[tuple[Split, ...]] = ("val", "test")
#: Kinds of candidate lists, as their files' names end.
LISTS: Final = ("", "_other_subjects", "_matched")
#: Matched negatives are of the query's gender and ten-year age band, and like it in the target's own `match_columns`.
MATCHED_IN: Final = (GENDER, AGE_BAND)


@dataclass(frozen=True)
class Queries:
    """Samples of a split that have the target.

    Attributes:
        matched: how many of `all` have a list of negatives like them; None if none was asked for.
    """

    all: int
    matched: int | None


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        samples: as in samples.parquet.
        arrays: the manifest's entry: modality -> array -> dtype, shape, parts.
        queries: of val and test.
        hash: of the logical content: samples in row order, arrays, candidate lists. It does not hang on the bytes of
            Parquet files, nor on where or by how many workers they were made.
    """

    samples: pd.DataFrame
    arrays: dict[str, dict[str, Any]]
    queries: dict[Split, Queries]
    hash: str


def prepare(
    directory: Path,
    *,
    samples: pd.DataFrame,
    shards: Mapping[str, Shards],
    modalities: Mapping[str, Modality],
    split_of: Drawn,
    target: str,
    candidates: int,
    seed: int,
    matched: bool = True,
    join: bool = True,
) -> Prepared:
    """Write samples, arrays, fitted states and candidate lists.

    Args:
        samples: every qualifying sample in its final order; those without a split are left out.
        shards: what was read, by modality.
        split_of: split by sample_id.
        target: the modality that lists are of.
        candidates: length of each list.
        seed: of the lists.
        matched: also write lists of negatives like the query, where queries have enough of them.
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
            if not spec.fitted and name in shards:  # files out of reach were not read
                read = shards[name]
                write = join_shards if join else link_shards
                entries[name][array] = write(read.parts, read.rows(samples[SAMPLE_ID]), folder, array, spec)
        state = modality.fit(samples[samples[SPLIT] == "train"])
        files.write_json(directory / STATE_DIR / f"{name}.json", state)
        samples, fitted = modality.transform(samples, state)
        absent = ~samples[present_column(name)].to_numpy(dtype=np.bool_)
        for array, values in fitted.items():
            values[absent] = 0
            entries[name][array] = _write_array(np.ascontiguousarray(values), folder / f"{array}.npy")
        if isinstance(modality, Linked):
            entries[name] |= _write_linked(modality, samples, state, folder)
    modality_columns = [column for column in samples.columns if column not in SAMPLE_COLUMNS]
    samples = samples[[*SAMPLE_COLUMNS, *modality_columns]]
    with files.atomic(directory / SAMPLES) as temporary:
        samples.to_parquet(temporary, index=False)
    match = (*MATCHED_IN, *modalities[target].match_columns) if matched else None
    lists, queries = _write_lists(
        directory / CANDIDATES_DIR, samples, target=target, match=match, n=candidates, seed=seed
    )
    write_inputs(directory, samples, shards)
    arrays = {name: {array: entry["sha256"] for array, entry in of.items()} for name, of in entries.items()}
    return Prepared(samples, entries, queries, hash_cohort(samples, arrays, lists))


def hash_cohort(samples: pd.DataFrame, arrays: Mapping[str, Mapping[str, str]], lists: Sequence[str]) -> str:
    """Hex digest of a cohort's logical content.

    Args:
        arrays: modality -> array -> digest of its values.
        lists: digests of candidate lists, by split and then in the order of `LISTS`.
    """
    in_order = [digest for name in sorted(arrays) for _, digest in sorted(arrays[name].items())]
    return files.digest([hash_samples(samples), in_order, list(lists)])


def hash_lists(lists: CandidateLists) -> str:
    """Hex digest of candidate lists."""
    return hashlib.sha256(lists.candidate_rows.tobytes()).hexdigest()


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


def _write_lists(
    folder: Path, samples: pd.DataFrame, *, target: str, match: Sequence[str] | None, n: int, seed: int
) -> tuple[list[str], dict[Split, Queries]]:
    """Write the candidate lists of val and test.

    Args:
        match: columns in which matched negatives equal the query; None for no such lists.

    Returns:
        Digests of the lists, and how many queries there are.
    """
    digests: list[str] = []
    queries: dict[Split, Queries] = {}
    with_target = samples[samples[present_column(target)]]
    for split in HELD_OUT:
        of_split = with_target[with_target[SPLIT] == split]
        rows, subjects = of_split[ROW].to_numpy(dtype=np.int64), of_split[SUBJECT_ID].to_numpy(dtype=np.int64)
        drawn: dict[str, CandidateLists] = {}
        for suffix, others in (("", False), ("_other_subjects", True)):
            rng = stream(seed, "candidates", split + suffix)
            drawn[suffix] = draw_candidates(rows, subjects, n=n, rng=rng, split=split, other_subjects=others)
        if match is not None:
            alike = np.where(complete(of_split, match), strata(of_split, match), -1)
            rng = stream(seed, "candidates", split + "_matched")
            drawn["_matched"] = draw_matched(rows, subjects, alike, n=n, rng=rng)
        queries[split] = Queries(len(rows), len(drawn["_matched"].query_row) if match is not None else None)
        for suffix, lists in drawn.items():
            if len(lists.query_row):
                write_candidates(folder / f"{split}{suffix}.parquet", lists)
                digests.append(hash_lists(lists))
    return digests, queries


def _write_linked(
    modality: Linked, samples: pd.DataFrame, state: Mapping[str, Any], folder: Path
) -> dict[str, dict[str, Any]]:
    """Let a modality write its own arrays; the manifest's entries."""
    entries: dict[str, dict[str, Any]] = {}
    for array, spec in modality.arrays.items():
        shape = (len(samples), *spec.shape)
        disk.require_space(folder, math.prod(shape) * np.dtype(spec.dtype).itemsize, what=f"{array}.npy")
        entries[array] = one_part(np.dtype(spec.dtype), shape, f"{array}.npy", "")
    modality.write_arrays(samples, state, folder)
    return {array: {**entry, "sha256": stored_sha256(StoredArray(folder, entry))} for array, entry in entries.items()}


def _write_array(values: NDArray[Any], target: Path) -> dict[str, Any]:
    np.save(target, values, allow_pickle=False)
    return one_part(values.dtype, values.shape, target.name, sha256_of([values], values.dtype, values.shape))
