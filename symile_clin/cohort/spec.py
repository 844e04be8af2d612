"""The declarative cohort spec: a YAML file a clinician can read, checked as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    SerializeAsAny,
    model_validator,
)

from symile_clin.cohort.quantities import Duration, Name, Share
from symile_clin.modalities.base import Modality, RoomOptions
from symile_clin.modalities.linked import Linked
from symile_clin.schema import (
    ADMISSION_TYPE,
    AGE_BAND,
    ANCHOR_YEAR_GROUP,
    GENDER,
    HADM_ID,
    RACE,
    SAMPLE_COLUMNS,
    SAMPLE_ID,
    SUBJECT_ID,
    present_column,
)
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

Take = Literal["earliest", "latest", "nearest", "all"]
OnUnreadable = Literal["drop", "next"]
SplitRule = Literal["subject", "admission_then_drop", "anchor_year_group"]
#: Events that make samples, each with the times that windows may be measured from; a named table has its own.
INDEX_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "admission": ("admittime", "dischtime", "deathtime", "edregtime", "edouttime"),
    "icu_stay": ("intime", "outtime"),
    "table": (),
}
#: What samples can be alike in, beside their modalities' columns.
INDEX_GROUPS: Final = (GENDER, AGE_BAND, RACE, ADMISSION_TYPE, ANCHOR_YEAR_GROUP)
#: Columns of every sample by which a modality can be linked to it.
INDEX_KEYS: Final = (SAMPLE_ID, SUBJECT_ID, HADM_ID)
#: Keys of a modality that are not its room's own.
_MODALITY_KEYS: Final = ("room", "window", "take")


class IndexSpec(Strict):
    """What makes a sample, and the time its windows are measured from.

    Attributes:
        event: "admission", "icu_stay", or "table" for a table that the user names.
        time: a column of that table. A named table may do without: it then stands alone, no table of MIMIC is read
            for its samples, and no modality has a window.
        path: of the named table: CSV, gzipped CSV or Parquet; a relative one starts at the working directory.
        id: column of the named table that identifies its events.
    """

    event: str
    time: str | None = None
    path: str | None = None
    id: str | None = None

    @model_validator(mode="after")
    def _known(self) -> IndexSpec:
        times = INDEX_EVENTS.get(self.event)
        if times is None:
            raise ValueError(f"unknown event '{self.event}' ({nearest(self.event, INDEX_EVENTS)})")
        named = (self.path, self.id)
        if self.event == "table":
            if None in named:
                raise ValueError(
                    "event 'table' needs 'path', the file, and 'id', the column that identifies its events"
                )
            if len({self.id, self.time, SUBJECT_ID}) < 3:
                raise ValueError(f"'id' and 'time' are two columns other than {SUBJECT_ID}")
            return self
        if named != (None, None):
            raise ValueError(f"'path' and 'id' are keys of event 'table', not of '{self.event}'")
        if self.time is None:
            raise ValueError(f"'time' is missing; it is one of {', '.join(times)}")
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
    """One modality: its room, its window, which event of the window is taken, and the room's own options.

    Attributes:
        window, take: None where a key links samples to the modality.
    """

    room: str
    window: WindowSpec | None = None
    take: Take | None = None
    options: SerializeAsAny[RoomOptions]


class SplitsSpec(Strict):
    """How samples are split: by a rule and sizes, by year, or as a file says.

    Attributes:
        stratify: columns whose values together make strata that are split in proportion; with `by: subject`.
        given: path of a CSV or Parquet file with hadm_id and split; the spec's key is `from`.
    """

    by: SplitRule | None = None
    train: Share | None = None
    val: Share | None = None
    test: Share | None = None
    seed: NonNegativeInt = 0
    stratify: tuple[str, ...] = ()
    given: str | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def _one_way(self) -> SplitsSpec:
        sizes = (self.train, self.val, self.test)
        if self.stratify and self.by != "subject":
            raise ValueError("'stratify' goes with 'by: subject'")
        if self.given is not None:
            if self.by is not None or any(size is not None for size in sizes):
                raise ValueError("'from' takes the splits of a file; leave out by, train, val and test")
            return self
        if self.by is None or any(size is None for size in sizes):
            raise ValueError("give by, train, val and test, or 'from: FILE'")
        listed = [size for size in sizes if isinstance(size, tuple)]
        if len(listed) != (3 if self.by == "anchor_year_group" else 0):
            raise ValueError("anchor_year_group lists the groups of train, val and test; other rules take sizes")
        if listed:
            groups = [group for size in listed for group in size]
            if len(set(groups)) < len(groups):
                raise ValueError("an anchor_year_group is in two splits")
            return self
        if self.by == "admission_then_drop" and (self.test != "rest" or "rest" in (self.train, self.val)):
            raise ValueError("admission_then_drop draws train, then val; test is what remains: write 'test: rest'")
        shares = [size for size in sizes if isinstance(size, float)]
        rests = sizes.count("rest")
        if rests > 1 or (rests == 0 and not (len(shares) == 3 and abs(sum(shares) - 1) < 1e-9)):
            raise ValueError("one of train, val and test must be 'rest', or three shares must sum to 1")
        if rests == 1 and sum(shares) >= 1:
            raise ValueError("the shares leave nothing for 'rest'")
        return self

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The anchor_year_groups of each split; empty under other rules."""
        shares = {"train": self.train, "val": self.val, "test": self.test}
        return {split: share for split, share in shares.items() if isinstance(share, tuple)}

    @property
    def sizes(self) -> dict[str, int | float | Literal["rest"]]:
        """The size of each split; empty where splits are lists of groups, or given."""
        shares = {"train": self.train, "val": self.val, "test": self.test}
        return {split: share for split, share in shares.items() if share is not None and not isinstance(share, tuple)}


class RequireSpec(Strict):
    """What a sample needs.

    Attributes:
        all: modalities without which there is no sample.
        at_least: how many modalities it needs, these among them; None if they are enough.
    """

    all: tuple[str, ...] = ()
    at_least: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> RequireSpec:
        if not self.all and self.at_least is None:
            raise ValueError("nothing is required; list modalities, or write {at_least: 2}")
        if self.at_least is not None and self.at_least <= len(self.all):
            raise ValueError(f"'at_least: {self.at_least}' adds nothing to the {len(self.all)} of 'all'; leave it out")
        return self


def _parse_require(value: object) -> object:
    return {"all": value} if isinstance(value, list | tuple) else value


def _write_require(require: RequireSpec) -> list[str] | dict[str, Any]:
    every = list(require.all)
    return every if require.at_least is None else {"all": every, "at_least": require.at_least}


class CandidatesSpec(Strict):
    """The fixed lists that each query is ranked against.

    Attributes:
        matched: also draw lists of negatives that are like the query, for the queries that have enough of them.
    """

    target: str
    n: Annotated[int, Field(ge=2, le=10_000)]
    seed: NonNegativeInt = 0
    matched: bool = True


class CohortSpec(Strict):
    """A whole cohort.

    Attributes:
        require: which modalities a sample needs.
        on_unreadable: what becomes of a sample whose chosen file is there but cannot be read, in the rooms that would
            not go on to the next file by themselves: "drop" it, or take the "next" one.
        max_refused: share of a modality's files that may be refused, missing ones among them; beyond it the build stops
            by itself, if that is at least `cohort.refusals.LEAST_REFUSED` files.
        preset: the config that `train` takes by default.
    """

    name: Name
    index: IndexSpec
    modalities: Annotated[dict[Name, ModalitySpec], Field(min_length=2)]
    require: Annotated[RequireSpec, BeforeValidator(_parse_require), PlainSerializer(_write_require)]
    on_unreadable: OnUnreadable = "drop"
    max_refused: Annotated[float, Field(ge=0, le=1)] = 0.2
    splits: SplitsSpec
    candidates: CandidatesSpec
    preset: str

    @model_validator(mode="after")
    def _names_exist(self) -> CohortSpec:
        for name in (*self.require.all, self.candidates.target):
            if name not in self.modalities:
                raise ValueError(f"'{name}' is not among the modalities ({nearest(name, self.modalities)})")
        if (self.require.at_least or 0) > len(self.modalities):
            raise ValueError(f"'require.at_least' is {self.require.at_least}, of {len(self.modalities)} modalities")
        return self

    @model_validator(mode="after")
    def _one_each(self) -> CohortSpec:
        every = [name for name, one in self.modalities.items() if one.take == "all"]
        if len(every) > 1:
            raise ValueError(f"'take: all' can make samples of one modality only, not of {' and '.join(every)}")
        if every and every[0] not in self.require.all:
            raise ValueError(f"each sample has an event of '{every[0]}', which takes all: list it in require")
        return self

    @model_validator(mode="after")
    def _windows_have_a_start(self) -> CohortSpec:
        windowed = [name for name, one in self.modalities.items() if one.window is not None]
        if self.index.time is None and windowed:
            raise ValueError(f"'index.time' is missing, from which the window of '{windowed[0]}' is measured")
        return self

    @property
    def sampled(self) -> str | None:
        """The modality of which every event makes a sample; None if index events do."""
        return next((name for name, one in self.modalities.items() if one.take == "all"), None)

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
        ConfigError: every problem of the spec, each with the nearest valid name; or files that it names are not there.
        SourceError: files that it names are not what they should be.
    """
    path = find_preset("cohorts", source)
    spec = parse_spec(apply_overrides(load_yaml(path), overrides), rooms, source=f"cohort spec {path.name}")
    modalities = {}
    for name, one in spec.modalities.items():
        room = rooms[one.room]
        options = room.completed(name, one.options) if issubclass(room, Linked) else one.options
        modalities[name] = one.model_copy(update={"options": options})
    return spec.model_copy(update={"modalities": modalities})


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
        if modality.keyed and spec.modalities[name].take == "all":
            found.append(f"'modalities.{name}.take': all needs one event per sample, and {name} has one per item")
    found += _key_problems(spec, rooms)
    groups = [*INDEX_GROUPS, *(column for column in owners if column not in SAMPLE_COLUMNS)]
    found += [
        f"'splits.stratify': no column '{column}' ({nearest(column, groups)})"
        for column in spec.splits.stratify
        if column not in groups
    ]
    if found:
        raise_problems(found, source=source)
    return spec


def _key_problems(spec: CohortSpec, rooms: Mapping[str, type[Modality]]) -> list[str]:
    """Keys that no sample has; a named table's columns show when it is read."""
    modalities = spec.make_modalities(rooms).values()
    known = [*INDEX_KEYS, *(column for one in modalities if not isinstance(one, Linked) for column in one.columns)]
    return [
        f"'modalities.{one.name}.key': no column '{one.key}' ({nearest(one.key, known)})"
        for one in modalities
        if isinstance(one, Linked) and one.key not in known and spec.index.event != "table"
    ]


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
    linked = issubclass(room, Linked)
    for key in ("window", "take"):
        if linked and key in values:
            found.append(f"'{at}.{key}': leave it out, {generic['room']} are found by 'key' and not in a window")
        elif not linked and key not in values:
            found.append(f"'{at}.{key}' is missing")
    own = {str(key): value for key, value in values.items() if key not in _MODALITY_KEYS}
    for key in [key for key in own if key not in room.Options.model_fields]:
        del own[key]
        found.append(f"unknown key '{at}.{key}' ({nearest(key, [*_MODALITY_KEYS, *room.Options.model_fields])})")
    wrong = problems(room.Options, own, at=at)
    found += wrong
    if not wrong:
        generic["options"] = room.Options.model_validate(own)
    return generic
