"""Which samples train, validate and test: drawn by whole patients, as the paper did it, by year, or as a file says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.strata import strata
from symile_clin.errors import CohortError, ConfigError
from symile_clin.rng import stream
from symile_clin.schema import ANCHOR_YEAR_GROUP, HADM_ID, INDEX_TIME, SAMPLE_ID, SPLIT, SPLITS, SUBJECT_ID, Split
from symile_clin.strict import nearest

#: A count of samples, a share of them, or what the other splits leave.
Size = int | float | Literal["rest"]
#: Split by sample_id; a sample that is not in it belongs to none.
Drawn = dict[str, Split]
PATIENT_ELSEWHERE: Final = "patient in another split"
NOT_GIVEN: Final = "not in the given splits"
NOT_LISTED: Final = "anchor_year_group of no split"


def draw_by_subject(
    samples: pd.DataFrame, *, train: Size, val: Size, test: Size, seed: int, stratify: Sequence[str] = ()
) -> Drawn:
    """Whole patients in seeded order: a split takes the next patient until its size is reached.

    A split may exceed its size by what its last patient has too many. No sample is left out.

    Args:
        samples: sample_id, subject_id, in any order.
        stratify: columns, of which the samples' values together make a stratum; each is split in proportion. A patient
            with several samples belongs to the stratum of the earliest.

    Raises:
        CohortError: a split would be empty.
    """
    sizes = _targets(len(samples), {"train": train, "val": val, "test": test})
    of_subject = samples.groupby(SUBJECT_ID, sort=True).size()
    order = _order(of_subject, _strata_of_subjects(samples, stratify) if stratify else None, seed)
    subjects, running = of_subject.index.to_numpy()[order], np.cumsum(of_subject.to_numpy()[order])
    split_of = np.full(len(subjects), _rest(sizes), dtype=object)
    first = 0
    for split, size in sizes.items():
        if size is not None:
            before = int(running[first - 1]) if first else 0
            last = min(int(np.searchsorted(running, before + size)) + 1, len(subjects))
            split_of[first:last] = split
            first = last
            if first == len(subjects):
                break
    by_subject = dict(zip(subjects, split_of, strict=True))
    result: Drawn = {sample: by_subject[subject] for sample, subject in _pairs(samples)}
    _check_filled(result, samples, sizes)
    return result


def _order(of_subject: pd.Series, stratum: NDArray[np.int64] | None, seed: int) -> NDArray[np.int64]:
    """Places of patients in the order in which splits take them.

    With strata every stratum's patients are spread evenly over the order, from a seeded start, so that any stretch of
    it holds its share of each: systematic sampling.

    Args:
        of_subject: samples of each patient.
        stratum: of each patient.
    """
    if stratum is None:
        return stream(seed, "splits", "subject").permutation(len(of_subject))
    weight = of_subject.to_numpy(dtype=np.float64)
    place = np.empty(len(weight))
    for number in np.unique(stratum):
        rng = stream(seed, "splits", "stratum", int(number))
        mine = rng.permutation(np.flatnonzero(stratum == number))
        reached = np.cumsum(weight[mine])
        place[mine] = (reached / reached[-1] + rng.random()) % 1
    return np.lexsort((stream(seed, "splits", "subject").permutation(len(place)), place))


def _strata_of_subjects(samples: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """The stratum of each patient's earliest sample, in the order of subject_id."""
    numbered = samples[[SUBJECT_ID, INDEX_TIME, SAMPLE_ID]].assign(stratum=strata(samples, columns))
    first = numbered.sort_values([SUBJECT_ID, INDEX_TIME, SAMPLE_ID]).drop_duplicates(SUBJECT_ID)
    return first["stratum"].to_numpy(dtype=np.int64)


def draw_by_anchor_year_group(
    samples: pd.DataFrame, *, train: Sequence[str], val: Sequence[str], test: Sequence[str]
) -> Drawn:
    """Splits in time: each takes the samples of some of MIMIC's three-year groups, whose years are true ones.

    A patient has one group, so splits are by patient. Samples of other groups belong to no split.

    Args:
        samples: sample_id, anchor_year_group.

    Raises:
        ConfigError: a group that no sample has.
    """
    groups = {"train": train, "val": val, "test": test}
    there = sorted(samples[ANCHOR_YEAR_GROUP].dropna().astype(str).unique())
    for split, listed in groups.items():
        for group in listed:
            if group not in there:
                raise ConfigError(
                    f"'splits.{split}' lists the anchor_year_group '{group}', which no sample has "
                    f"({nearest(group, there)})",
                    expected=f"some of {', '.join(there)}",
                )
    split_of: dict[str, Split] = {group: split for split in SPLITS for group in groups[split]}
    pairs = zip(samples[SAMPLE_ID], samples[ANCHOR_YEAR_GROUP].astype(object), strict=True)
    return {sample: split_of[group] for sample, group in pairs if isinstance(group, str) and group in split_of}


def draw_admission_then_drop(samples: pd.DataFrame, *, train: Size, val: Size, seed: int) -> Drawn:
    """The paper's way: admissions of train, then of val; held-out admissions of patients drawn before are dropped.

    What remains is test, so its size changes with the seed, and held-out splits lean to patients with few admissions.

    Args:
        samples: sample_id, subject_id; their order does not matter.

    Raises:
        CohortError: a split would be empty.
    """
    sizes = _targets(len(samples), {"train": train, "val": val, "test": "rest"})
    remaining = samples[[SAMPLE_ID, SUBJECT_ID]].sort_values(SAMPLE_ID, ignore_index=True)
    result: Drawn = {}
    for split in ("train", "val"):
        count = min(sizes[split] or 0, len(remaining))
        chosen = remaining.iloc[stream(seed, "splits", split).permutation(len(remaining))[:count]]
        result |= dict.fromkeys(chosen[SAMPLE_ID], split)
        remaining = remaining[~remaining[SUBJECT_ID].isin(chosen[SUBJECT_ID])].reset_index(drop=True)
    result |= dict.fromkeys(remaining[SAMPLE_ID], "test")
    _check_filled(result, samples, sizes)
    return result


def given_splits(samples: pd.DataFrame, path: Path, *, id_column: str | None = None) -> Drawn:
    """The splits that a CSV or Parquet file gives samples or admissions, in a column split.

    Whose they are says a column sample_id or, where there is none, one called as the index table's ids, or hadm_id.

    Args:
        id_column: of the index table that the user names.

    Raises:
        ConfigError: no such file, a column missing, another word than train, val or test, or a sample or admission
            twice.
        CohortError: a split would be empty.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}", expected="the splits that 'splits.from' names")
    try:
        text = {name: str for name in (SAMPLE_ID, id_column) if name not in (None, HADM_ID)}
        given = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=text)
    except Exception as error:  # pandas and pyarrow raise many kinds for a file that is neither
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}", expected="CSV or Parquet") from None
    keys = [name for name in (SAMPLE_ID, id_column, HADM_ID) if name is not None]
    key = next((name for name in keys if name in given.columns), None)
    if key is None or SPLIT not in given.columns:
        raise ConfigError(
            f"{path} has columns {', '.join(map(str, given.columns))}", expected=f"{SPLIT}, and {' or '.join(keys)}"
        )
    unknown = sorted(set(given[SPLIT].astype(str)) - set(SPLITS))
    if unknown:
        raise ConfigError(f"{path} has a split '{unknown[0]}'", expected=", ".join(SPLITS))
    if key == HADM_ID and not pd.api.types.is_integer_dtype(given[HADM_ID]):
        raise ConfigError(f"{path} has a {HADM_ID} that is no whole number", expected="one admission a row")
    whose = given[key] if key == HADM_ID else given[key].astype(str)
    if whose.duplicated().any():
        what = "an admission" if key == HADM_ID else "a sample"
        raise ConfigError(f"{path} gives {what} more than one row", expected="one row each")
    split_of = dict(zip(whose, given[SPLIT], strict=True))
    pairs = zip(samples[SAMPLE_ID], samples[HADM_ID if key == HADM_ID else SAMPLE_ID], strict=True)
    result: Drawn = {sample: split_of[own] for sample, own in pairs if own in split_of}
    empty = [split for split in SPLITS if split not in result.values()]
    if empty:
        raise CohortError(
            f"{path} leaves {', '.join(empty)} empty: it names {len(result):,} of the cohort's "
            f"{len(samples):,} samples",
            expected="at least one sample in each split",
            remedy="Check that the file is of this cohort",
        )
    return result


def check_disjoint(samples: pd.DataFrame, split_of: Drawn) -> None:
    """Prove that no patient is in two splits.

    Raises:
        CohortError: saying how many are.
    """
    split = samples[SAMPLE_ID].map(split_of)
    shared = int((split.groupby(samples[SUBJECT_ID]).nunique() > 1).sum())
    if shared:
        raise CohortError(
            f"{shared:,} patients are in more than one split", remedy="Give each patient's admissions one split"
        )


def _pairs(samples: pd.DataFrame) -> Any:
    return zip(samples[SAMPLE_ID], samples[SUBJECT_ID], strict=True)


def _targets(total: int, sizes: dict[Split, Size]) -> dict[Split, int | None]:
    """Samples each split should have; None for the one that takes the rest.

    Raises:
        CohortError: more are asked for than there are.
    """
    if "rest" not in sizes.values():
        sizes = {**sizes, "test": "rest"}  # shares that sum to 1
    counts: dict[Split, int | None] = {
        split: None if size == "rest" else round(size * total) if isinstance(size, float) else int(size)
        for split, size in sizes.items()
    }
    if sum(count or 0 for count in counts.values()) >= total:
        raise _too_small(total, counts)
    return counts


def _rest(counts: dict[Split, int | None]) -> Split:
    return next(split for split, count in counts.items() if count is None)


def _check_filled(drawn: Drawn, samples: pd.DataFrame, sizes: dict[Split, int | None]) -> None:
    found: NDArray[np.str_] = np.array(list(drawn.values()))
    if not all((found == split).any() for split in SPLITS):
        raise _too_small(len(samples), sizes)


def _too_small(total: int, sizes: dict[Split, int | None]) -> CohortError:
    asked = ", ".join(f"{split} {'the rest' if size is None else format(size, ',')}" for split, size in sizes.items())
    return CohortError(
        f"the cohort's {total:,} samples do not fill the splits asked for ({asked})",
        expected="at least one sample in each",
        remedy=f"Counts up to {max(total * 8 // 10, 1):,} train and {max(total // 10, 1):,} val would fit, or use "
        "shares: --set splits.train=0.8 --set splits.val=0.1",
    )
