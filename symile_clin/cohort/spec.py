"""The declarative cohort spec: a YAML file a clinician can read, checked as a whole before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    SerializeAsAny,
    StringConstraints,
    model_validator,
)

from symile_clin.modalities.base import Modality, RoomOptions
from symile_clin.schema import SAMPLE_COLUMNS, present_column
from symile_clin.strict import (
    Strict,
    apply_overrides,
    find_preset,
    load_yaml,
    nearest,
    problems,
    raise_problems,
    validate,
)

Take = Literal["earliest", "latest", "nearest"]
OnUnreadable = Literal["drop", "next"]
SplitRule = Literal["subject", "admission_then_drop"]
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
#: Events that make samples, each with the times that windows may be measured from.
INDEX_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {"admission": ("admittime",)}
#: Keys of a modality that are not its room's own.
_MODALITY_KEYS: Final = ("room", "window", "take")


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


class IndexSpec(Strict):
    """What makes a sample, and the time its windows are measured from."""

    event: str
    time: str

    @model_validator(mode="after")
    def _known(self) -> IndexSpec:
        times = INDEX_EVENTS.get(self.event)
        if times is None:
            raise ValueError(f"unknown event '{self.event}' ({nearest(self.event, INDEX_EVENTS)})")
        if self.time not in times:
            raise ValueError(f"unknown time '{self.time}' of {self.event} ({nearest(self.time, times)})")
        return self


class WindowSpec(Strict):
    """A window around the index time; whether each border belongs to it is written out."""

    start: Duration
    end: Duration
    include_start: bool
    include_end: bool

    @model_validator(mode="after")
    def _ordered(self) -> WindowSpec:
        if self.start >= self.end:
            raise ValueError("'end' is not after 'start'")
        return self


class ModalitySpec(Strict):
    """One modality: its room, its window, which event of the window is taken, and the room's own options."""

    room: str
    window: WindowSpec
    take: Take
    options: SerializeAsAny[RoomOptions]


class SplitsSpec(Strict):
    """How samples are split: by a rule and sizes, or as a file says.

    Attributes:
        given: path of a CSV or Parquet file with hadm_id and split; the spec's key is `from`.
    """

    by: SplitRule | None = None
    train: Size | None = None
    val: Size | None = None
    test: Size | None = None
    seed: NonNegativeInt = 0
    given: str | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def _one_way(self) -> SplitsSpec:
        sizes = (self.train, self.val, self.test)
        if self.given is not None:
            if self.by is not None or any(size is not None for size in sizes):
                raise ValueError("'from' takes the splits of a file; leave out by, train, val and test")
            return self
        if self.by is None or any(size is None for size in sizes):
            raise ValueError("give by, train, val and test, or 'from: FILE'")
        if self.by == "admission_then_drop" and (self.test != "rest" or "rest" in (self.train, self.val)):
            raise ValueError("admission_then_drop draws train, then val; test is what remains: write 'test: rest'")
        shares = [size for size in sizes if isinstance(size, float)]
        rests = sizes.count("rest")
        if rests > 1 or (rests == 0 and not (len(shares) == 3 and abs(sum(shares) - 1) < 1e-9)):
            raise ValueError("one of train, val and test must be 'rest', or three shares must sum to 1")
        if rests == 1 and sum(shares) >= 1:
            raise ValueError("the shares leave nothing for 'rest'")
        return self


class CandidatesSpec(Strict):
    """The fixed lists that each query is ranked against."""

    target: str
    n: Annotated[int, Field(ge=2, le=10_000)]
    seed: NonNegativeInt = 0


class CohortSpec(Strict):
    """A whole cohort.

    Attributes:
        require: modalities without which there is no sample.
        on_unreadable: what becomes of a sample whose chosen file is there but cannot be read, in the rooms that would
            not go on to the next file by themselves: "drop" it, or take the "next" one.
        preset: the config that `train` takes by default.
    """

    name: Name
    index: IndexSpec
    modalities: Annotated[dict[Name, ModalitySpec], Field(min_length=2)]
    require: Annotated[tuple[str, ...], Field(min_length=1)]
    on_unreadable: OnUnreadable = "drop"
    splits: SplitsSpec
    candidates: CandidatesSpec
    preset: str

    @model_validator(mode="after")
    def _names_exist(self) -> CohortSpec:
        for name in (*self.require, self.candidates.target):
            if name not in self.modalities:
                raise ValueError(f"'{name}' is not among the modalities ({nearest(name, self.modalities)})")
        if self.candidates.target not in self.require:
            raise ValueError(f"the target of the candidates, '{self.candidates.target}', must be in require")
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain values, defaults filled in, that `parse_spec` turns into an equal spec."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for modality in plain["modalities"].values():
            modality |= modality.pop("options")
        return plain

    def make_modalities(self, rooms: Mapping[str, type[Modality]]) -> dict[str, Modality]:
        """The spec's modalities by name, in its order."""
        return {name: rooms[one.room](name, one.options) for name, one in self.modalities.items()}


def load_spec(source: str, overrides: Sequence[str], rooms: Mapping[str, type[Modality]]) -> CohortSpec:
    """Read a cohort spec by name or path and apply `key=value` overrides.

    Raises:
        NotFoundError: no such spec.
        ConfigError: every problem of the spec, each with the nearest valid name.
    """
    path = find_preset("cohorts", source)
    return parse_spec(apply_overrides(load_yaml(path), overrides), rooms, source=f"cohort spec {path.name}")


def parse_spec(raw: Mapping[str, Any], rooms: Mapping[str, type[Modality]], *, source: str) -> CohortSpec:
    """Turn plain values into a cohort spec.

    Raises:
        ConfigError: every problem found in `source`.
    """
    generic = dict(raw)
    found: list[str] = []
    if isinstance(raw.get("modalities"), Mapping):
        generic["modalities"] = {
            str(name): _split_modality(str(name), values, rooms, found) for name, values in raw["modalities"].items()
        }
    found += problems(CohortSpec, generic)
    if found:
        raise_problems(found, source=source)
    spec = validate(CohortSpec, generic, source=source)
    owners: dict[str, str] = dict.fromkeys(SAMPLE_COLUMNS, "every cohort")
    for name, modality in spec.make_modalities(rooms).items():
        for column in (*modality.columns, present_column(name)):
            if column in owners:
                found.append(f"'modalities.{name}': its column '{column}' is already one of {owners[column]}")
            owners[column] = f"'{name}'"
    if found:
        raise_problems(found, source=source)
    return spec


def _split_modality(name: str, values: Any, rooms: Mapping[str, type[Modality]], found: list[str]) -> Any:
    """Put a modality's own options apart from the keys that all modalities have; problems go to `found`."""
    at = f"modalities.{name}"
    if not isinstance(values, Mapping):
        return values
    generic = {key: value for key, value in values.items() if key in _MODALITY_KEYS}
    generic.setdefault("room", name)
    generic["options"] = RoomOptions()
    room = rooms.get(str(generic["room"]))
    if room is None:
        key = "room" if "room" in values else "name without a 'room'"
        found.append(f"'{at}': unknown {key} '{generic['room']}' ({nearest(str(generic['room']), rooms)})")
        return generic
    own = {str(key): value for key, value in values.items() if key not in _MODALITY_KEYS}
    for key in [key for key in own if key not in room.Options.model_fields]:
        del own[key]
        found.append(f"unknown key '{at}.{key}' ({nearest(key, [*_MODALITY_KEYS, *room.Options.model_fields])})")
    wrong = problems(room.Options, own, at=at)
    found += wrong
    if not wrong:
        generic["options"] = room.Options.model_validate(own)
    return generic
