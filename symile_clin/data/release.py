"""The files of the Symile-MIMIC release 1.0.0 (PhysioNet, 10.13026/3vvj-s428): names, tables and checksums.

One table of all admissions and one for each split; .npy arrays by split. `val_retrieval` and `test` hold candidate
lists: first every query with label 1, then each query's negatives with label 0, each row saying in `label_hadm_id`
whose candidate it is. What the columns and arrays of a modality are called is its room's (`modalities.released`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from csv import reader as read_lines
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from symile_clin import files
from symile_clin.errors import MismatchError, SourceError
from symile_clin.progress import Progress
from symile_clin.schema import ADMISSION_TYPE, AGE, GENDER, HADM_ID, RACE, SUBJECT_ID

SOURCE: Final = "Symile-MIMIC release 1.0.0"
ADMISSIONS: Final = "symile_mimic_data.csv"
ARRAYS: Final = "data_npy"
SUMS: Final = "SHA256SUMS.txt"

ReleasedSplit = Literal["train", "val", "val_retrieval", "test"]
RELEASED_SPLITS: Final[tuple[ReleasedSplit, ...]] = ("train", "val", "val_retrieval", "test")
#: Those that hold candidate lists, and whose they are in a cohort.
LISTS: Final[Mapping[ReleasedSplit, Literal["val", "test"]]] = {"val_retrieval": "val", "test": "test"}

ADMITTIME: Final = "admittime"
#: What the table of all admissions begins with; the modalities' blocks follow.
ADMISSION_COLUMNS: Final = (
    SUBJECT_ID, HADM_ID, ADMITTIME, "dischtime", "deathtime", ADMISSION_TYPE, "admission_location",
    "discharge_location", RACE, "hospital_expire_flag", GENDER, "anchor_age", "anchor_year", "dod", "admittime_year",
    AGE,
)  # fmt: skip
LABEL: Final = "label"
LABEL_HADM_ID: Final = "label_hadm_id"
REMEDY: Final = "Check the files against the release's SHA256SUMS.txt (--verify), and download again what differs"


def table_path(root: Path, split: ReleasedSplit) -> Path:
    """The table of a split."""
    return root / f"{split}.csv"


def array_path(root: Path, split: ReleasedSplit, stem: str) -> Path:
    """An array of a split, by the name that its files start with."""
    return root / ARRAYS / split / f"{stem}_{split}.npy"


def is_released_array(path: Path) -> bool:
    """Whether a path is where a release has an array, and nothing but the path itself leads there."""
    folder, split = path.parent.parent, path.parent.name
    return (
        path.is_absolute()
        and "\0" not in str(path)
        and folder.name == ARRAYS
        and split in RELEASED_SPLITS
        and path.name.endswith(f"_{split}.npy")
        and (folder.parent / ADMISSIONS).is_file()
        and path == path.resolve()
    )


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Some columns of one of the release's tables, numbers to the last bit.

    Raises:
        SourceError: no such file, a column that it lacks, or an id that is no number.
    """
    wanted = list(columns)
    try:
        header = read_header(path)
        missing = [column for column in wanted if column not in header]
        if missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise SourceError(f"{path.name} has no column '{missing[0]}'{more}", expected=f"a table of the {SOURCE}")
        if len(set(header)) < len(header):
            raise SourceError(f"{path.name} has a column twice", expected=f"a table of the {SOURCE}")
        ids = dict.fromkeys({SUBJECT_ID, HADM_ID, LABEL, LABEL_HADM_ID} & set(wanted), pa.int64())
        options = csv.ConvertOptions(include_columns=wanted, column_types=ids, strings_can_be_null=True)
        table: pd.DataFrame = csv.read_csv(path, convert_options=options).to_pandas()
    except ValueError as error:  # what pyarrow cannot parse, too
        raise SourceError(f"{path.name} cannot be read: {type(error).__name__}", remedy=REMEDY) from None
    return table


def read_header(path: Path) -> list[str]:
    """Names of a table's columns.

    Raises:
        SourceError: no such file.
    """
    if not path.is_file():
        raise SourceError(f"no {path.name} in {path.parent}", expected=f"the folder of the {SOURCE}")
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        return next(read_lines(lines), [])


def read_sums(root: Path) -> dict[str, str] | None:
    """SHA256SUMS.txt: file relative to the root -> digest; None where it was not downloaded.

    Raises:
        SourceError: a line that is none of its form.
    """
    path = root / SUMS
    if not path.is_file():
        return None
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip():
            digest, _, name = line.strip().partition(" ")
            if len(digest) != 64 or not name.strip():
                raise SourceError(f"{SUMS} has a line of another form", expected="a digest and a file name")
            sums[name.strip().removeprefix("*").removeprefix("./")] = digest.lower()
    return sums


def verify_sums(root: Path, paths: Iterable[Path], progress: Progress) -> None:
    """Hash files and compare with SHA256SUMS.txt.

    Raises:
        SourceError: there is no such list, or it lacks a file.
        MismatchError: a file differs.
    """
    sums = read_sums(root)
    if sums is None:
        raise SourceError(f"no {SUMS} in {root}", remedy="Download it, or leave out --verify")
    wanted = {path.relative_to(root).as_posix(): path for path in paths}
    unlisted = [name for name in wanted if name not in sums]
    if unlisted:
        raise SourceError(f"{SUMS} does not list {unlisted[0]}", expected=f"the list of the {SOURCE}")
    megabytes = {name: path.stat().st_size >> 20 for name, path in wanted.items()}
    with progress.track("checking MB", sum(megabytes.values())) as advance:
        for name, path in wanted.items():
            if files.sha256(path) != sums[name]:
                raise MismatchError(f"{name} differs from {SUMS}", remedy="Download it again")
            advance(megabytes[name])


def read_document(root: Path, name: str) -> Any:
    """A JSON file of the release's root.

    Raises:
        SourceError: there is none.
        MismatchError: it is not JSON.
    """
    if not (root / name).is_file():
        raise SourceError(f"no {name} in {root}", expected=f"the folder of the {SOURCE}")
    return files.read_json(root / name)
