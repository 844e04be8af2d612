"""A cohort directory around the release's arrays, which stay where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.cohort.attrition import Attrition
from symile_clin.data.candidates import CandidateLists, without_own_patient, write_candidates
from symile_clin.data.join import one_part, sha256_of
from symile_clin.data.prepare import hash_samples
from symile_clin.data.release import REMEDY, array_path, read_sums
from symile_clin.data.release_samples import POSITION, ReleasedSamples, map_array
from symile_clin.data.splits import check_disjoint
from symile_clin.data.store import Rows
from symile_clin.errors import SourceError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.released import ReleasedArray, ReleasedForm
from symile_clin.schema import (
    ARRAYS_DIR,
    CANDIDATES_DIR,
    HADM_ID,
    ROW,
    SAMPLE_COLUMNS,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    SPLITS,
    STATE_DIR,
    SUBJECT_ID,
    present_column,
)

NO_SPLIT: Final = "not in the released splits"


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        samples: as in samples.parquet.
        arrays: the manifest's entry.
        hash: of samples, lists and own arrays, and of the release's arrays as far as its SHA256SUMS.txt tells.
        attrition: where the release's admissions went.
    """

    samples: pd.DataFrame
    arrays: dict[str, dict[str, Any]]
    hash: str
    attrition: Attrition


def released_shapes(root: Path, forms: Mapping[str, type[ReleasedForm]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shape of one sample by room and array, after every array of train, val and test has been looked at.

    Raises:
        SourceError: a file that is not there, is cut short, or has another type or shape.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for room, form in forms.items():
        shapes[room] = {}
        for stem, expected in form.arrays.items():
            found = [_checked(root, split, stem, expected).shape[1:] for split in SPLITS]
            if len(set(found)) > 1:
                raise SourceError(f"{stem} has another shape in another split", expected="one shape")
            shapes[room][stem] = found[0]
    return shapes


def write_imported(
    directory: Path,
    *,
    root: Path,
    released: ReleasedSamples,
    modalities: Mapping[str, Modality],
    forms: Mapping[str, ReleasedForm],
) -> Imported:
    """Write samples, lists, states, row maps and small arrays of a cohort whose large arrays are the release's.

    Args:
        root: the release; its arrays are named by absolute paths.
        forms: by modality.

    Raises:
        CohortError: a patient is in two splits.
        SourceError, MismatchError: arrays and tables that do not belong together.
    """
    table = released.samples
    samples = _samples(released, modalities, forms)
    check_disjoint(samples, dict(zip(samples[SAMPLE_ID], samples[SPLIT], strict=True)))
    with files.atomic(directory / SAMPLES) as temporary:
        samples.to_parquet(temporary, index=False)
    row_map = np.stack([samples[SPLIT].map(list(SPLITS).index), table[POSITION]], axis=1).astype(np.int64)
    sums = read_sums(root) or {}
    arrays: dict[str, dict[str, Any]] = {}
    for name, modality in modalities.items():
        folder = directory / ARRAYS_DIR / name
        folder.mkdir(parents=True)
        form = forms[name]
        arrays[name] = {
            expected.serves_as: _in_place(root, stem, folder, expected.serves_as, row_map, sums)
            for stem, expected in form.arrays.items()
            if expected.serves_as is not None
        }
        others = [stem for stem, expected in form.arrays.items() if expected.serves_as is None]
        values = form.convert({stem: _rows(root, stem, row_map) for stem in others}, table)
        arrays[name] |= {array: _own(array_values, folder / f"{array}.npy") for array, array_values in values.items()}
        files.write_json(directory / STATE_DIR / f"{name}.json", modality.fit(samples[samples[SPLIT] == "train"]))
    lists = [_write_lists(directory, split, one) for split, one in released.lists.items()]
    known = [_known(entry) for name in sorted(arrays) for _, entry in sorted(arrays[name].items())]
    known.append(row_map.tolist())
    return Imported(
        samples=samples,
        arrays=arrays,
        hash=files.digest([hash_samples(samples), known, lists]),
        attrition=_attrition(released),
    )


def _samples(
    released: ReleasedSamples, modalities: Mapping[str, Modality], forms: Mapping[str, ReleasedForm]
) -> pd.DataFrame:
    """samples.parquet; columns that the release lacks are null."""
    table = released.samples
    common = table.reindex(columns=list(SAMPLE_COLUMNS))
    common[ROW] = np.arange(len(table), dtype=np.int64)
    common[SAMPLE_ID] = table[HADM_ID].astype("string")
    parts = [common]
    for name in modalities:
        try:
            parts.append(forms[name].columns(table))
        except (ValueError, TypeError, OverflowError):  # a date that is none, a word where a number should be
            raise SourceError(f"the tables hold values of {name} that are of another type", remedy=REMEDY) from None
        parts.append(pd.DataFrame({present_column(name): True}, index=table.index))
    return pd.concat(parts, axis="columns")


def _checked(root: Path, split: Any, stem: str, expected: ReleasedArray) -> NDArray[Any]:
    array = map_array(root, split, stem)
    rows = len(map_array(root, split, HADM_ID))
    fits = len(array.shape) == len(expected.shape) + 1 and all(
        want is None or want == found for want, found in zip(expected.shape, array.shape[1:], strict=True)
    )
    if array.dtype != expected.dtype or not fits or len(array) != rows:
        shape = ", ".join("any" if length is None else str(length) for length in expected.shape)
        raise SourceError(
            f"{array_path(root, split, stem).name} holds {array.dtype}{list(array.shape)}",
            expected=f"{expected.dtype}[{rows}, {shape}]",
        )
    return array


def _in_place(
    root: Path, stem: str, folder: Path, array: str, row_map: Rows, sums: Mapping[str, str]
) -> dict[str, Any]:
    """The manifest's entry of an array whose parts are the release's files."""
    paths = [array_path(root, split, stem) for split in SPLITS]
    mapped = [map_array(root, split, stem) for split in SPLITS]
    np.save(folder / f"{array}.rows.npy", row_map, allow_pickle=False)
    parts: list[dict[str, Any]] = [
        {"file": str(path.resolve()), "rows": len(part)} for path, part in zip(paths, mapped, strict=True)
    ]
    for part, path in zip(parts, paths, strict=True):
        listed = sums.get(path.relative_to(root).as_posix())
        if listed is not None:
            part["sha256"] = listed  # of the file; the array's own is not known without reading it
    shape = list(mapped[0].shape[1:])
    return {"dtype": mapped[0].dtype.name, "shape": shape, "parts": parts, "row_map": f"{array}.rows.npy"}


def _known(entry: Mapping[str, Any]) -> list[object]:
    """What tells an array from another without reading it, wherever its files are."""
    parts = [[part["rows"], part.get("sha256")] for part in entry["parts"]]
    return [entry["dtype"], entry["shape"], entry.get("sha256"), parts]


def _rows(root: Path, stem: str, row_map: Rows) -> NDArray[Any]:
    """Rows of a small array in the order of the samples."""
    parts = [map_array(root, split, stem) for split in SPLITS]
    out = np.empty((len(row_map), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for number, part in enumerate(parts):
        mine = row_map[:, 0] == number
        out[mine] = part[row_map[mine, 1]]
    return out


def _own(values: NDArray[Any], path: Path) -> dict[str, Any]:
    """Write a small array as one of our own; the manifest's entry."""
    values = np.ascontiguousarray(values)
    np.save(path, values, allow_pickle=False)
    return one_part(values.dtype, values.shape, path.name, sha256_of([values], values.dtype, values.shape))


def _write_lists(directory: Path, split: str, lists: CandidateLists) -> str:
    folder = directory / CANDIDATES_DIR
    write_candidates(folder / f"{split}.parquet", lists)
    write_candidates(folder / f"{split}_other_subjects.parquet", without_own_patient(lists))
    return hashlib.sha256(lists.candidate_rows.tobytes()).hexdigest()


def _attrition(released: ReleasedSamples) -> Attrition:
    """Every admission of the release; those of no split have left."""
    index = pd.concat([released.samples[[SUBJECT_ID, HADM_ID]], released.others], ignore_index=True)
    index.insert(0, SAMPLE_ID, index[HADM_ID].astype("string"))
    attrition = Attrition(index)
    attrition.leave("splits", dict.fromkeys(released.others[HADM_ID].astype("string"), NO_SPLIT))
    return attrition
