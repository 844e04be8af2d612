"""Which samples a release has, where their rows are in its arrays, and which candidates each query was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.npy import map_npy
from symile_clin.data.release import (
    ADMISSIONS,
    ADMITTIME,
    LABEL,
    LABEL_HADM_ID,
    LISTS,
    REMEDY,
    SOURCE,
    ReleasedSplit,
    array_path,
    read_header,
    read_table,
    table_path,
)
from symile_clin.data.store import Rows
from symile_clin.errors import MismatchError, SourceError
from symile_clin.modalities.released import read_times
from symile_clin.schema import ADMISSION_TYPE, AGE, GENDER, HADM_ID, INDEX_TIME, RACE, SPLIT, SPLITS, SUBJECT_ID, Split

#: Columns of a sample in the frame below: its place in the arrays of its split.
POSITION: Final = "position"
_OF_ADMISSION: Final = (SUBJECT_ID, HADM_ID, ADMITTIME, AGE, GENDER, RACE, ADMISSION_TYPE)


@dataclass(frozen=True)
class ReleasedSamples:
    """The release's tables, put together.

    Attributes:
        samples: one row per sample in the order of the table of all admissions: index_time, split, position, ids, and
            the columns that were asked for.
        others: subject_id, hadm_id of admissions that are in no split.
        lists: candidates of val and test by position of `samples`.
    """

    samples: pd.DataFrame
    others: pd.DataFrame
    lists: Mapping[Literal["val", "test"], CandidateLists]


def read_samples(root: Path, needed: Iterable[str]) -> ReleasedSamples:
    """Read the release's tables and the small arrays beside them.

    Args:
        needed: columns of modalities; those that the table of all admissions lacks come from the tables of splits.

    Raises:
        SourceError: a file or column that is not there, or has another form.
        MismatchError: files that contradict each other.
    """
    wanted = list(needed)
    header, of_train = read_header(root / ADMISSIONS), read_header(table_path(root, "train"))
    of_splits = [column for column in wanted if column not in header]
    absent = [column for column in of_splits if column not in of_train]
    if header and absent:
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise SourceError(
            f"neither {ADMISSIONS} nor train.csv has a column '{absent[0]}'{more}", expected=f"tables of the {SOURCE}"
        )
    of_table = [column for column in wanted if column not in of_splits]
    admissions = read_table(root / ADMISSIONS, dict.fromkeys((*_OF_ADMISSION, *of_table)))
    if admissions[HADM_ID].duplicated().any():
        raise MismatchError(f"{ADMISSIONS} has an admission twice", expected="one row each", remedy=REMEDY)
    parts = [_of_split(root, split, of_splits) for split in SPLITS]
    rows = pd.concat(parts, ignore_index=True)
    if rows[HADM_ID].duplicated().any():
        raise MismatchError("an admission is in the release twice, or in two splits", remedy=REMEDY)
    if not rows[HADM_ID].isin(admissions[HADM_ID]).all():
        raise MismatchError(f"the splits hold admissions that {ADMISSIONS} lacks", remedy=REMEDY)
    samples = admissions.merge(rows, on=HADM_ID, how="inner").rename(columns={ADMITTIME: INDEX_TIME})
    try:
        samples[INDEX_TIME] = read_times(samples[INDEX_TIME])
    except (ValueError, TypeError, OverflowError):
        raise SourceError(f"{ADMISSIONS} holds an {ADMITTIME} that is no time", remedy=REMEDY) from None
    others = admissions.loc[~admissions[HADM_ID].isin(rows[HADM_ID]), [SUBJECT_ID, HADM_ID]]
    lists = {ours: _lists(root, theirs, ours, samples) for theirs, ours in LISTS.items()}
    return ReleasedSamples(samples=samples, others=others, lists=lists)


def read_small(root: Path, split: ReleasedSplit, stem: str) -> NDArray[np.int64]:
    """An array of ids or labels, whole.

    Raises:
        SourceError: no such file, or not one integer per row.
    """
    array = map_array(root, split, stem)
    if array.ndim != 1 or array.dtype.kind != "i":
        raise SourceError(
            f"{array_path(root, split, stem).name} holds {array.dtype}{list(array.shape)}", expected="int64 [rows]"
        )
    return np.array(array, dtype=np.int64)


def map_array(root: Path, split: ReleasedSplit, stem: str) -> NDArray[Any]:
    """An array of a split, memory-mapped.

    Raises:
        SourceError: no such file, or no array.
    """
    path = array_path(root, split, stem)
    if not path.is_file():
        raise SourceError(f"no {path.relative_to(root)} in {root}", expected=f"the folder of the {SOURCE}")
    try:
        return map_npy(path)
    except ValueError:
        raise SourceError(f"{path.name} is damaged or cut short", expected="a .npy file", remedy=REMEDY) from None


def _of_split(root: Path, split: Split, columns: list[str]) -> pd.DataFrame:
    """The split's samples: where a table holds candidates, its queries, in the place where they come first."""
    has_lists = split in LISTS
    table = _checked(root, split, columns)
    table[POSITION] = np.arange(len(table), dtype=np.int64)
    if has_lists:
        table = table[table[LABEL] == 1].drop_duplicates(HADM_ID)
    return table[[HADM_ID, POSITION, *columns]].assign(**{SPLIT: split})


def _checked(root: Path, split: ReleasedSplit, columns: Iterable[str]) -> pd.DataFrame:
    """The table of a split, once its arrays of ids and labels are known to have the same order."""
    ids = [HADM_ID, LABEL_HADM_ID, LABEL] if split in LISTS else [HADM_ID]
    table = read_table(table_path(root, split), [*ids, *columns])
    for stem in ids:
        array = read_small(root, split, stem)
        if not np.array_equal(array, table[stem].to_numpy()):
            raise MismatchError(
                f"{array_path(root, split, stem).name} and {split}.csv differ in {stem} or its order", remedy=REMEDY
            )
    return table


def _lists(root: Path, theirs: ReleasedSplit, ours: Split, samples: pd.DataFrame) -> CandidateLists:
    """The candidate lists as they were released: negatives in their order, queries in that of the samples."""
    table = _checked(root, theirs, ())
    positive = table[LABEL] == 1
    own = samples[samples[SPLIT] == ours]
    row_of = pd.Series(own.index, index=own[HADM_ID])
    sizes = table.groupby(LABEL_HADM_ID).size()
    if (
        not table[LABEL].isin([0, 1]).all()
        or not (table.loc[positive, HADM_ID] == table.loc[positive, LABEL_HADM_ID]).all()
        or table.loc[positive, HADM_ID].duplicated().any()
        or set(table.loc[positive, HADM_ID]) != set(own[HADM_ID])
        or set(table[LABEL_HADM_ID]) != set(own[HADM_ID])
        or not table[HADM_ID].isin(own[HADM_ID]).all()
        or table.duplicated([LABEL_HADM_ID, HADM_ID]).any()
        or sizes.nunique() != 1
    ):
        raise MismatchError(
            f"{theirs}.csv holds no candidate lists of the {ours} split",
            expected="one positive per admission and equally many other admissions of the split",
            remedy=REMEDY,
        )
    query = row_of.loc[table[LABEL_HADM_ID]].to_numpy(dtype=np.int64)
    candidate = row_of.loc[table[HADM_ID]].to_numpy(dtype=np.int64)
    order = np.lexsort([np.arange(len(table)), ~positive.to_numpy(), query])  # by query, the positive first
    candidates: Rows = candidate[order].reshape(len(own), -1)
    subject = samples[SUBJECT_ID].to_numpy()
    queries = candidates[:, 0].copy()
    return CandidateLists(
        query_row=queries,
        candidate_rows=candidates,
        same_subject=subject[candidates] == subject[queries][:, None],
    )
