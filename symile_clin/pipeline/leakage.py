"""What must hold of a cohort so that nothing of val and test is known in train, proved from its own files.

No patient, admission, study, file or stored recording is in two splits; every input lies in its window; what is fitted
is fitted on train alone. A checksum says that a cohort is what was built; these say that what was built is right. What
its files cannot tell is listed as such. Findings name rows and counts, never ids.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.cohort.spec import CohortSpec, WindowSpec
from symile_clin.data.inputs import read_inputs
from symile_clin.data.store import Cohort
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import Linked
from symile_clin.schema import (
    HADM_ID,
    INDEX_TIME,
    INPUTS,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    STATE_DIR,
    SUBJECT_ID,
    present_column,
)

#: Pairs of rows that a finding names.
MOST_NAMED: Final = 3
#: Bytes of an array that are read at once.
CHUNK_BYTES: Final = 16 << 20
#: Relative difference of fitted numbers that another processor's arithmetic may make.
TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was, or not as it must be.

    Attributes:
        where: a file of the cohort, a source table, or a row of inputs.parquet (whose paths carry patients' ids).
    """

    where: str
    what: str


@dataclass(frozen=True)
class NotProved:
    """Something that the cohort's files cannot tell.

    Attributes:
        what: what was not proved, and why.
        asks_sources: whether --sources answers it.
    """

    what: str
    asks_sources: bool = False


#: What a proof comes to, piece by piece; nothing where all is well.
Proof = Iterator[Finding | NotProved]


def no_one_in_two_splits(cohort: Cohort) -> Proof:
    """No patient, admission or index event in two splits."""
    samples = cohort.samples
    split = samples[SPLIT]
    shared = int((split.groupby(samples[SUBJECT_ID]).nunique() > 1).sum())
    if shared:
        yield Finding(SAMPLES, f"{shared:,} patients are in more than one split")
    index_events = samples[SAMPLE_ID].astype("string").str.partition("/")[0]  # `take: all` adds the event after it
    for what, ids in (("admissions", samples[HADM_ID]), ("index events", index_events)):
        if ids.isna().all():
            yield NotProved(f"that no {what} are in two splits: their ids are not in this cohort")
        else:
            yield from _shared(SAMPLES, what, _groups(ids), split)


def no_recording_in_two_splits(cohort: Cohort, modalities: Mapping[str, Modality]) -> Proof:
    """No study, file or stored recording in two splits, whatever they are called."""
    split = cohort.samples[SPLIT]
    ids: dict[tuple[str, str], list[pd.Series[Any]]] = defaultdict(list)
    stored: dict[tuple[str, str], list[tuple[str, pd.Series[Any]]]] = defaultdict(list)
    for name, modality in modalities.items():  # modalities of one room may hold the same recording
        recordings = modality.recordings
        present = cohort.samples[present_column(name)].to_numpy(dtype=np.bool_)
        for what, column in recordings.ids.items():
            values = cohort.samples.get(column)
            if values is None or values[present].isna().all():
                yield NotProved(f"that no {what} of {name} is in two splits: {column} is empty")
            else:
                ids[modality.room, what].append(values)
        for array in recordings.arrays:
            if array in cohort.manifest["arrays"][name]:
                digests = row_digests(cohort, name, array, np.flatnonzero(present))
                stored[modality.room, array].append((f"{name}/{array}", digests))
            else:
                yield NotProved(f"that no {array} of {name} is in two splits: the cohort has no arrays of files")
        if recordings.but:
            yield NotProved(f"that no {name} is in two splits as another array: {recordings.but}")
    for (room, what), columns in ids.items():
        yield from _shared(SAMPLES, f"{room} {what} ids", _groups(pd.concat(columns)), split)
    for found in stored.values():
        where = " and ".join(name for name, _ in found)
        yield from _shared(where, "recordings with equal values", _groups(pd.concat([one for _, one in found])), split)


def no_file_in_two_splits(cohort: Cohort, modalities: Mapping[str, Modality]) -> Proof:
    """No bytes of a file in two splits, by what the build wrote down of the files that it read."""
    if not (cohort.path / INPUTS).is_file():
        yield NotProved("that no file is in two splits under two names: the cohort has no list of files")
        return
    digests: dict[str, list[str]] = defaultdict(list)
    for row in read_inputs(cohort.path):
        digests[row["modality"]].append(row["sha256"])
    of_room: dict[str, list[pd.Series[Any]]] = defaultdict(list)
    for name, found in digests.items():
        rows = np.flatnonzero(cohort.samples[present_column(name)].to_numpy(dtype=np.bool_))
        if not len(rows) or len(found) % len(rows):
            yield Finding(INPUTS, f"lists {len(found):,} files of {len(rows):,} samples with {name}")
        elif modalities[name].recordings.arrays:
            per_sample = len(found) // len(rows)
            of_room[modalities[name].room].append(pd.Series(found, index=np.repeat(rows, per_sample)))
    for room, files in of_room.items():
        yield from _shared(INPUTS, f"{room} files with equal bytes", _groups(pd.concat(files)), cohort.samples[SPLIT])


def inputs_in_their_windows(cohort: Cohort, spec: CohortSpec, modalities: Mapping[str, Modality]) -> Proof:
    """Every event that a sample takes lies in the spec's window, borders as written; what is absent has none."""
    samples = cohort.samples
    for name, modality in modalities.items():
        present = samples[present_column(name)].to_numpy(dtype=np.bool_)
        for choice in modality.choices:
            left = np.flatnonzero(~present & samples[choice.column].notna().to_numpy())
            if len(left):
                yield Finding(SAMPLES, f"{choice.column} is there where {name} is absent: {named_rows(left)}")
        window = spec.modalities[name].window
        if window is None:
            continue  # found by a key, whatever the time
        times = [choice.time for choice in modality.choices if choice.time is not None]
        if not times:
            yield NotProved(f"when the values of {name} were taken: samples do not keep it, --sources tells", True)
        for column in times:
            unknown = present & samples[column].isna().to_numpy()
            if unknown.any():
                yield Finding(
                    SAMPLES, f"{column} is empty where {name} is present: {named_rows(np.flatnonzero(unknown))}"
                )
            outside = present & ~unknown & ~within(samples[column], samples[INDEX_TIME], window)
            if outside.any():
                yield Finding(SAMPLES, f"{column} is outside its window: {named_rows(np.flatnonzero(outside))}")


def within(times: pd.Series[Any], index: pd.Series[Any], window: WindowSpec) -> NDArray[np.bool_]:
    """Whether each time lies in the window around its index time, exact to the microsecond; false for none."""
    since = times.to_numpy("datetime64[us]") - index.to_numpy("datetime64[us]")
    first, last = np.timedelta64(window.start), np.timedelta64(window.end)
    after = since >= first if window.include_start else since > first
    before = since <= last if window.include_end else since < last
    inside: NDArray[np.bool_] = after & before
    return inside


def fitted_on_train(cohort: Cohort, modalities: Mapping[str, Modality]) -> Proof:
    """What is fitted is what the train samples give when it is fitted again, and what is made with it follows."""
    samples = cohort.samples
    train = samples[samples[SPLIT] == "train"]
    for name, modality in modalities.items():
        if isinstance(modality, Linked) and not all(Path(path).is_file() for path in modality.paths):
            yield NotProved(f"that {name} was standardised by train alone: its file is not here any more")
            continue
        state = modality.fit(train)
        if not _same(state, cohort.state(name)):
            yield Finding(f"{STATE_DIR}/{name}.json", "is not what the train samples give when it is fitted again")
        fitted = [array for array, spec in modality.arrays.items() if spec.fitted]
        if isinstance(modality, Linked) or not fitted:
            continue
        filled, arrays = modality.transform(samples, state)
        for column in modality.columns:
            differs = _differs(filled[column], samples[column])
            if differs.any():
                yield Finding(SAMPLES, f"{column} does not follow from train: {named_rows(np.flatnonzero(differs))}")
        if "source" in cohort.manifest:
            yield NotProved(f"that arrays of {name} follow from train: they are {cohort.manifest['source']}'s own")
            continue
        present = samples[present_column(name)].to_numpy(dtype=np.bool_)
        for array in fitted:
            expected = np.where(present.reshape(-1, *[1] * (arrays[array].ndim - 1)), arrays[array], 0)
            kept = cohort.array(name, array).take(np.arange(len(samples)))
            wrong = ~np.isclose(expected.astype(np.float64), kept.astype(np.float64), rtol=1e-6, atol=1e-7)
            rows = np.flatnonzero(wrong.reshape(len(samples), -1).any(axis=1))
            if len(rows):
                yield Finding(f"{name}/{array}", f"is not what train and the sample's row give: {named_rows(rows)}")


def row_digests(cohort: Cohort, name: str, array: str, rows: NDArray[np.int64]) -> pd.Series[Any]:
    """A digest of each row of a stored array, indexed by sample row; read a few megabytes at a time."""
    stored = cohort.array(name, array)
    step = max(CHUNK_BYTES // max(math.prod(stored.shape) * stored.dtype.itemsize, 1), 1)
    digests: list[bytes] = []
    for start in range(0, len(rows), step):
        chunk = np.ascontiguousarray(stored.take(rows[start : start + step]))
        digests += [hashlib.sha256(row.data).digest() for row in chunk]
    return pd.Series(digests, index=rows, dtype=object)


def _groups(values: pd.Series[Any]) -> Iterable[NDArray[np.int64]]:
    """Sample rows (the index) of each value that is there more than once."""
    known = values[values.notna().to_numpy()]
    repeated = known[known.duplicated(keep=False).to_numpy()]
    return [np.unique(of_value.index.to_numpy()) for _, of_value in repeated.groupby(repeated.to_numpy(), sort=False)]


def _shared(where: str, what: str, groups: Iterable[NDArray[np.int64]], split: pd.Series[Any]) -> Iterator[Finding]:
    """The finding that some groups of sample rows reach over two splits."""
    names = split.to_numpy(dtype=object)
    pairs: list[tuple[int, int]] = []
    for rows in groups:
        other = rows[names[rows] != names[rows[0]]]
        if len(other):
            pairs.append((int(rows[0]), int(other[0])))
    if pairs:
        named = ", ".join(f"{first} and {second}" for first, second in sorted(pairs)[:MOST_NAMED])
        more = f" and {len(pairs) - MOST_NAMED:,} more" if len(pairs) > MOST_NAMED else ""
        yield Finding(where, f"{len(pairs):,} {what} are in more than one split: rows {named}{more}")


def named_rows(rows: Sequence[int] | NDArray[np.int64]) -> str:
    """A few rows, and how many more."""
    named = ", ".join(str(int(row)) for row in rows[:MOST_NAMED])
    return f"rows {named} and {len(rows) - MOST_NAMED:,} more" if len(rows) > MOST_NAMED else f"rows {named}"


def _differs(expected: pd.Series[Any], found: pd.Series[Any]) -> NDArray[np.bool_]:
    if not pd.api.types.is_float_dtype(expected.dtype):
        return (expected.astype(object).fillna("") != found.astype(object).fillna("")).to_numpy(dtype=np.bool_)
    left, right = (one.to_numpy(dtype=np.float64, na_value=np.nan) for one in (expected, found))
    differs: NDArray[np.bool_] = ~np.isclose(left, right, rtol=TOLERANCE, atol=0, equal_nan=True)
    return differs


def _same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, numbers to rounding."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, int | float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=TOLERANCE) or (math.isnan(left) and math.isnan(right))
    return bool(left == right)
