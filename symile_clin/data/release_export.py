"""A cohort written in the layout of the Symile-MIMIC release, so that code made for the release runs on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.data.release import (
    ADMISSION_COLUMNS,
    ADMISSIONS,
    ADMITTIME,
    LABEL,
    LABEL_HADM_ID,
    LISTS,
    RELEASED_SPLITS,
    SUMS,
    ReleasedSplit,
    array_path,
    table_path,
)
from symile_clin.data.store import Cohort, Rows
from symile_clin.errors import CohortError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.released import TIME_FORMAT, ReleasedForm
from symile_clin.progress import Advance, Progress
from symile_clin.rng import stream
from symile_clin.schema import HADM_ID, INDEX_TIME, SPLIT, SUBJECT_ID, present_column

#: Samples in memory at once.
CHUNK: Final = 32
#: Of a row in the arrays of ids and labels.
ID_BYTES: Final = 24


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: by released split.
        empty: columns of symile_mimic_data.csv that a cohort does not hold.
    """

    rows: Mapping[str, int]
    empty: Sequence[str]


def check_exportable(cohort: Cohort, modalities: Mapping[str, Modality]) -> None:
    """Refuse a cohort that the release's layout has no place for.

    Raises:
        CohortError: saying why.
    """
    samples = cohort.samples
    if samples[HADM_ID].isna().any() or samples[HADM_ID].duplicated().any():
        raise CohortError(f"cohort '{cohort.name}' has not one sample per admission", expected="hadm_id as its key")
    for name, modality in modalities.items():
        if not samples[present_column(name)].all():
            raise CohortError(f"samples of cohort '{cohort.name}' lack {name}", expected="it in every sample")
        if set(modality.arrays) - set(cohort.manifest["arrays"].get(name, {})):
            raise CohortError(
                f"cohort '{cohort.name}' has no arrays of {name}: it was built from tables alone",
                remedy="Build it where the files are",
            )


def bytes_needed(cohort: Cohort, forms: Mapping[str, ReleasedForm]) -> int:
    """Size of the arrays that an export writes, and about that of its tables."""
    rows = sum(len(_rows(cohort, split)[0]) for split in RELEASED_SPLITS)
    some = _admissions(cohort.samples.head(100), forms)
    line = len(some.to_csv(date_format=TIME_FORMAT)) / len(some)
    per_row = sum(
        int(np.prod(shape)) * np.dtype(form.arrays[stem].dtype).itemsize
        for form in forms.values()
        for stem, shape in form.shapes().items()
    )
    return rows * (per_row + ID_BYTES + round(line)) + round(len(cohort.samples) * line)


def write_release(
    directory: Path,
    *,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    forms: Mapping[str, ReleasedForm],
    seed: int,
    progress: Progress,
) -> Exported:
    """Write tables, arrays and documents, then SHA256SUMS.txt; memory is flat in the number of samples.

    Args:
        directory: an empty folder.
        modalities: by name.
        forms: by modality, in the order of the release's columns.
        seed: of what the release froze at random in train.
    """
    samples = cohort.samples
    table = _admissions(samples, forms)
    _write_csv(directory / ADMISSIONS, table)
    train = samples[samples[SPLIT] == "train"]
    for form in forms.values():
        for name, content in form.write_documents(train).items():
            files.write_text(directory / name, json.dumps(content, indent=4, allow_nan=False))
    rows = {split: _rows(cohort, split) for split in RELEASED_SPLITS}
    kept = [SUBJECT_ID, HADM_ID, *(column for form in forms.values() for column in form.kept())]
    of_splits = pd.concat([table[kept], *(form.added(samples) for form in forms.values())], axis="columns")
    for split, (own, queries) in rows.items():
        part = of_splits.iloc[own]
        if split != "train":  # the published code labels val's table, too
            part = part.assign(**_labels(samples, own, queries))
        _write_csv(table_path(directory, split), part)
    digests: dict[str, str] = {}
    with progress.track("writing samples", len(modalities) * sum(len(own) for own, _ in rows.values())) as advance:
        for split, (own, queries) in rows.items():
            digests |= _write_ids(directory, split, samples, own, queries)
            for name, modality in modalities.items():
                rng = stream(seed, "release", name) if split == "train" else None
                digests |= _write_arrays(directory, split, cohort, modality, forms[name], own, rng, advance)
    others = [path for path in directory.rglob("*") if path.is_file() and str(path) not in digests]
    digests |= {str(path): files.sha256(path) for path in others}
    lines = sorted((Path(path).relative_to(directory).as_posix(), digest) for path, digest in digests.items())
    files.write_text(directory / SUMS, "".join(f"{digest} {path}\n" for path, digest in lines))
    empty = [str(column) for column in table.columns if table[column].isna().all()]
    return Exported(rows={split: len(own) for split, (own, _) in rows.items()}, empty=empty)


def _rows(cohort: Cohort, split: ReleasedSplit) -> tuple[Rows, Rows]:
    """Sample rows of a released split in its order, and for each whose candidate it is (in val and train: its own)."""
    if split not in LISTS:
        own = cohort.rows("train" if split == "train" else "val")
        return own, own
    lists = cohort.candidates(LISTS[split])
    negatives = lists.candidate_rows[:, 1:]
    queries = np.repeat(lists.query_row, negatives.shape[1])
    return np.concatenate([lists.query_row, negatives.ravel()]), np.concatenate([lists.query_row, queries])


def _admissions(samples: pd.DataFrame, forms: Mapping[str, ReleasedForm]) -> pd.DataFrame:
    """symile_mimic_data.csv of the cohort's samples; columns that a cohort does not hold are empty."""
    own = samples.assign(**{ADMITTIME: samples[INDEX_TIME], "admittime_year": samples[INDEX_TIME].dt.year})
    blocks = [form.table(samples) for form in forms.values()]
    return pd.concat([own.reindex(columns=list(ADMISSION_COLUMNS)), *blocks], axis="columns")


def _labels(samples: pd.DataFrame, own: Rows, queries: Rows) -> dict[str, Any]:
    """Whose candidate each row is, and whether it is the positive."""
    hadm = samples[HADM_ID].to_numpy(dtype=np.int64)
    return {LABEL_HADM_ID: hadm[queries], LABEL: (own == queries).astype(np.int64)}


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with files.atomic(path) as temporary:
        table.to_csv(temporary, index=False, date_format=TIME_FORMAT)


def _write_ids(
    directory: Path, split: ReleasedSplit, samples: pd.DataFrame, own: Rows, queries: Rows
) -> dict[str, str]:
    arrays = {HADM_ID: samples[HADM_ID].to_numpy(dtype=np.int64)[own]}
    if split in LISTS:
        arrays |= _labels(samples, own, queries)
    digests = {}
    for stem, values in arrays.items():
        path = array_path(directory, split, stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Npy(path, "int64", (len(values),)) as out:
            out.write(values)
        digests[str(path)] = out.digest
    return digests


def _write_arrays(
    directory: Path,
    split: ReleasedSplit,
    cohort: Cohort,
    modality: Modality,
    form: ReleasedForm,
    own: Rows,
    rng: np.random.Generator | None,
    advance: Advance,
) -> dict[str, str]:
    """Stream a modality's arrays of a split; digests by path."""
    columns = {column: cohort.samples[column].to_numpy() for column in modality.input_columns}
    with ExitStack() as stack:
        out = {
            stem: stack.enter_context(
                _Npy(array_path(directory, split, stem), form.arrays[stem].dtype, (len(own), *shape))
            )
            for stem, shape in form.shapes().items()
        }
        for start in range(0, len(own), CHUNK):
            rows = own[start : start + CHUNK]
            # opened anew: pages of a map count as this process's own for as long as it is open
            arrays = {array: cohort.array(modality.name, array).take(rows) for array in modality.arrays}
            arrays |= {column: values[rows] for column, values in columns.items()}
            draws = None if rng is None else rng.random((len(rows), modality.augmentation_draws))
            for stem, values in form.write_arrays(arrays, draws).items():
                out[stem].write(values)
            advance(len(rows))
    return {str(npy.path): npy.digest for npy in out.values()}


class _Npy:
    """A .npy file that is written a few rows at a time and hashed on the way."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.path = path
        self._dtype, self._shape = np.dtype(dtype), shape
        self._hash = hashlib.sha256()
        self._rows = 0

    def __enter__(self) -> _Npy:
        self._file: BinaryIO = self.path.open("wb")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(_Both(self._file, self._hash), header)
        return self

    def write(self, values: NDArray[Any]) -> None:
        """Append rows."""
        if values.dtype != self._dtype or values.shape[1:] != self._shape[1:]:
            raise ValueError(f"{values.dtype}{values.shape} instead of {self._dtype}{self._shape}")
        data = np.ascontiguousarray(values).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._rows += len(values)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.close()
        if kind is None and self._rows != self._shape[0]:
            raise ValueError(f"{self._rows} rows instead of {self._shape[0]}")

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class _Both:
    """Writes to a file and a hash."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)
