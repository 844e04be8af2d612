"""Settings that fail loudly: frozen models, all problems listed at once, the nearest valid name suggested."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from symile_clin.errors import ConfigError, NotFoundError

#: A settings file is some kilobytes; PyYAML takes half a minute for a megabyte.
MAX_YAML_BYTES = 100_000
#: Lists and mappings in each other. The parser's time grows with the square of the depth.
MAX_YAML_DEPTH = 32


class Strict(BaseModel):
    """Base of every settings model: frozen, an unknown key is an error, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_written_as_such(cls, value: object, info: ValidationInfo) -> object:
        """YAML reads yes, no, on and off as true and false, which Python takes for 1 and 0."""
        if isinstance(value, bool) and info.field_name is not None:
            kinds = _flatten(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and (int in kinds or float in kinds):
                raise ValueError(f"{str(value).lower()} is no number (YAML takes yes, no, on and off for such, too)")
        return value


S = TypeVar("S", bound=BaseModel)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A suggestion for a mistyped name: the close match, else all valid names."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(names)}"


def problems(model: type[BaseModel], raw: object, *, at: str = "") -> list[str]:
    """Every way in which `raw` is not a `model`, one line each; empty when it is."""
    try:
        model.model_validate(raw)
    except ValidationError as error:
        return [_describe(model, detail, at) for detail in error.errors()]
    return []


def validate(model: type[S], raw: object, *, source: str) -> S:
    """Turn a plain mapping into settings.

    Raises:
        ConfigError: naming every problem found in `source`.
    """
    found = problems(model, raw)
    if found:
        raise_problems(found, source=source)
    return model.model_validate(raw)


def raise_problems(found: Sequence[str], *, source: str) -> None:
    """Raise one ConfigError for all problems of one source."""
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    raise ConfigError(f"{source} has {count}: " + "; ".join(found))


def _describe(model: type[BaseModel], detail: Any, at: str) -> str:
    path = [at] if at else []
    path += [str(part) for part in detail["loc"]]
    where = ".".join(path)
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, detail["loc"][:-1])
        hint = nearest(str(detail["loc"][-1]), owner.model_fields) if owner else ""
        return f"unknown key '{where}' ({hint})" if hint else f"unknown key '{where}'"
    if detail["type"] == "missing":
        return f"'{where}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"'{where}': {message[0].lower()}{message[1:]}" if where else message


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The settings model that owns the key at `loc`, following nested models, unions and mappings."""
    current: type[BaseModel] | None = model
    annotation: Any = model
    for part in loc:
        if current is not None and str(part) in current.model_fields:
            annotation = current.model_fields[str(part)].annotation
        models = [a for a in _flatten(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        current = models[0] if models else None
    return current


def _flatten(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    return [annotation] if not inner else [leaf for arg in inner for leaf in _flatten(arg)]


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is repeated", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value):  # 0100 is 64 to YAML, 12:30:45 is 45045
            problem = "a number is not plain decimal; put quotes around what is text,"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        value = super().construct_yaml_int(node)
        if abs(value) >> 63:
            raise yaml.constructor.ConstructorError(None, None, "a number is beyond 64 bits", node.start_mark)
        return value


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _UniqueKeyLoader.construct_yaml_int)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping: plain values, no tags, no aliases, no repeated keys, at most 100 kB and 32 levels deep.

    Raises:
        ConfigError: not readable as such.
    """
    with path.open("rb") as file:
        text = file.read(MAX_YAML_BYTES + 1)
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_YAML_BYTES:,} bytes", expected="a settings file")
    raw = _plain(text, source=str(path))
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else "holds a list" if isinstance(raw, list) else "holds a single value"
        raise ConfigError(f"{path} {found}", expected="a mapping of keys to values")
    return raw


def _plain(text: bytes | str, *, source: str) -> Any:
    """Plain values of a YAML text, in time and memory that its length bounds.

    Raises:
        ConfigError: it asks for anything else, or is no YAML.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{source} uses YAML aliases", remedy="Write the values out")
            if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
                raise ConfigError(f"{source} uses YAML tags", remedy="Write plain values")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_YAML_DEPTH:
                raise ConfigError(f"{source} is nested more than {MAX_YAML_DEPTH} levels deep")
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  a SafeLoader subclass
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_yaml_problem(error)}") from None
    except (ValueError, TypeError, OverflowError) as error:  # of a value that only looks like what it is read as
        raise ConfigError(
            f"{source} holds a value that is none, such as a date or number out of range ({type(error).__name__})",
            remedy="Put quotes around what is text",
        ) from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong, and in which line where that is known, without the parser's picture of the place."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return "it is no plain UTF-8 text"
    mark = error.problem_mark
    return f"{error.problem}" + (f" in line {mark.line + 1}" if mark is not None else "")


class _WritesOut(yaml.SafeDumper):
    """Safe YAML without aliases, which `load_yaml` refuses."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the signature of PyYAML
        return True


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML text of plain settings, keys in their given order."""
    return yaml.dump(dict(values), Dumper=_WritesOut, sort_keys=False, allow_unicode=True, width=110)


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `raw` with `key.sub=value` overrides applied; values are read as YAML scalars or lists.

    Raises:
        ConfigError: an override that is not of the form key=value.
    """
    result: dict[str, Any] = _copy(raw)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override!r} is not understood", expected="key=value, e.g. splits.train=0.8")
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            child = target.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {override!r}: '{parent}' holds a value, not keys")
            target = child
        if len(value) > MAX_YAML_BYTES:
            raise ConfigError(f"--set {key}: the value is larger than {MAX_YAML_BYTES:,} characters")
        target[last] = _plain(value, source=f"--set {override!r}")
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def find_preset(kind: str, name: str) -> Path:
    """The YAML file of a preset: a path as given, else `<name>.yaml` of a checkout, else of the installed wheel.

    Args:
        kind: "cohorts" or "configs".
        name: a preset's name, or the path of a YAML file.

    Raises:
        NotFoundError: no such preset; the nearest name is suggested.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if path.is_file():
            return path
        raise NotFoundError(f"no file {name}", remedy="Give a preset's name or the path of a YAML file")
    folder = preset_folder(kind)
    path = folder / f"{name}.yaml"
    if path.parent == folder and path.is_file():
        return path
    valid = [p.stem for p in folder.glob("*.yaml")]
    raise NotFoundError(f"no preset called '{name}' among the {kind}", remedy=nearest(name, valid).capitalize())


def preset_folder(kind: str) -> Path:
    """Where the presets of a kind live: a checkout's own folder first, the wheel's copy otherwise."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return package / "presets" / kind
