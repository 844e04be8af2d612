"""Durations, sizes and names as a cohort spec writes them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, PlainSerializer, StringConstraints

_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def _parse_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(-?)(\d{1,6})([dhms])", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError("not a duration; write a whole number of days, hours, minutes or seconds, such as 3d or -24h")
    sign, number, unit = match.groups()
    return timedelta(seconds=int(number) * _UNITS[unit]) * (-1 if sign else 1)


def _write_duration(value: timedelta) -> str:
    seconds = round(value.total_seconds())
    unit = next(name for name in "hms" if seconds % _UNITS[name] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_parse_duration), PlainSerializer(_write_duration, return_type=str)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


def _parse_size(value: object) -> int | float | Literal["rest"]:
    if value == "rest":
        return "rest"
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, float) and 0 < value < 1:
        return value
    raise ValueError("not a size; write a count of samples, a share between 0 and 1, or rest")


#: A count of samples, a share of them, or what the other splits leave.
Size = Annotated[int | float | Literal["rest"], BeforeValidator(_parse_size)]


def _parse_share(value: object) -> object:
    if isinstance(value, list | tuple):
        if not value or not all(isinstance(group, str) for group in value) or len(set(value)) < len(value):
            raise ValueError("not a list of anchor_year_groups, such as ['2008 - 2010', '2011 - 2013']")
        return tuple(value)
    return _parse_size(value)


#: What a split gets: a size, or the anchor_year_groups that it takes.
Share = Annotated[int | float | Literal["rest"] | tuple[str, ...], BeforeValidator(_parse_share)]
