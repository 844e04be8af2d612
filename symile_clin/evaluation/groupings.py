"""Which group each sample is in: by demographics, by admission, and by what its modalities tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from symile_clin.data.strata import BAND_YEARS, age_band
from symile_clin.modalities.base import Modality
from symile_clin.schema import ADMISSION_TYPE, AGE, AGE_BAND, ANCHOR_YEAR_GROUP, GENDER, RACE

#: Sets of races in MIMIC-IV's words, by their first word; everything else it names is OTHER.
RACES: Final[Mapping[str, str]] = {"ASIAN": "Asian", "BLACK": "Black", "HISPANIC": "Hispanic", "WHITE": "White"}
#: What says that nobody knows.
UNKNOWN_RACES: Final = frozenset({"", "UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER"})
_SEXES: Final[Mapping[str, str]] = {"F": "female", "M": "male"}
#: MIMIC's code for everybody over 89.
_OLDEST: Final = 90


@dataclass(frozen=True)
class Grouping:
    """One way of dividing samples into groups.

    Attributes:
        key: its name in metrics, of letters, digits and underscores.
        title: its name for a person.
        members: (n, groups) bool; a column for each group, called as a person does, in the order to be shown.
        partition: no sample is in two groups.
    """

    key: str
    title: str
    members: pd.DataFrame
    partition: bool = True


def groupings(samples: pd.DataFrame, modalities: Mapping[str, Modality]) -> tuple[list[Grouping], list[str]]:
    """All groupings of `samples` (n rows), and the titles of those that the cohort does not tell.

    Returns:
        Sex, age band, race, admission type and anchor_year_group from the samples' columns; then each modality's own
        groups, and its findings: a group of those where it is there, which overlap. Without a sample in any group a
        grouping is not told.
    """
    told: list[Grouping] = []
    missing: list[str] = []
    for key, title, of in (
        (GENDER, "sex", _sex),
        (AGE_BAND, "age band", _age),
        (RACE, "race", _race),
        (ADMISSION_TYPE, "admission type", _as_written),
        (ANCHOR_YEAR_GROUP, "years of care", _as_written),
    ):
        column = AGE if key == AGE_BAND else key
        group = of(samples[column]) if column in samples and samples[column].notna().any() else None
        _add(told, missing, key, title, group)
    for name, modality in modalities.items():
        for title, group in modality.groups(samples).items():
            _add(told, missing, _key(f"{name} {title}"), f"{name}: {title}", group)
        present = modality.labels(samples) == 1
        present = present.loc[:, present.any()]
        if present.shape[1]:
            present.columns = [str(finding).replace("_", " ") for finding in present.columns]
            told.append(Grouping(_key(f"{name} finding"), f"{name}: finding present", present, partition=False))
    return told, missing


def race_group(race: str) -> str:
    """A race as MIMIC-IV writes it, as Asian, Black, Hispanic, White, other or unknown."""
    written = race.strip().upper()
    if written in UNKNOWN_RACES:
        return "unknown"
    first = re.split(r"[^A-Z]", written, maxsplit=1)[0]
    return RACES.get(first, "other")


def _add(told: list[Grouping], missing: list[str], key: str, title: str, group: pd.Series[Any] | None) -> None:
    if group is None or not group.notna().any():
        missing.append(title)
        return
    text = group.astype("string")
    order = group.cat.categories if isinstance(group.dtype, pd.CategoricalDtype) else sorted(text.dropna().unique())
    members = {str(name): (text == name).fillna(value=False).astype(bool) for name in order if (text == name).any()}
    told.append(Grouping(key, title, pd.DataFrame(members)))


def _key(words: str) -> str:
    return re.sub(r"\W+", "_", words).strip("_").lower()


def _sex(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.map(lambda value: None if pd.isna(value) else _SEXES.get(str(value), str(value)))


def _age(column: pd.Series[Any]) -> pd.Series[Any]:
    """Ten-year bands; the last is open, because MIMIC writes 91 for everybody over 89."""
    first = age_band(column.to_frame(AGE))
    return first.map(_band)


def _band(first: Any) -> str | None:
    if pd.isna(first):
        return None
    return "90 and over" if first >= _OLDEST else f"{int(first)} to {int(first) + BAND_YEARS - 1}"


def _race(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.map(lambda value: "unknown" if pd.isna(value) else race_group(str(value)))


def _as_written(column: pd.Series[Any]) -> pd.Series[Any]:
    return column
