"""A cohort spec in words a clinician can read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from symile_clin.cohort.spec import CohortSpec

#: Keys that the sentences below say; the others of a block are listed as they are.
_SAID: Final = {
    "index": {"event", "time"},
    "splits": {"by", "train", "val", "test", "seed", "from"},
    "candidates": {"target", "n", "seed"},
}
_RULES: Final = {
    "subject": "whole patients in seeded order",
    "admission_then_drop": "admissions are drawn, and those of patients in another split dropped",
}


def in_words(spec: CohortSpec) -> list[str]:
    """What makes a sample, where each modality is looked for and what is taken, what is required, how it is split."""
    plain = spec.resolved()
    index = plain["index"]
    extra = _others(index, "index")
    measured = f"; windows are measured from its {index['time']}" if "time" in index else ""
    of = "row of the index table" if index["event"] == "table" and not measured else index["event"]
    lines = [f"Every {of} may be a sample{measured}{extra}."]
    required, at_least = _required(plain["require"])
    width = max(len(name) for name in plain["modalities"])
    for name, one in plain["modalities"].items():
        need = "required" if name in required else "optional"
        chosen = spec.modalities[name].options.model_dump(mode="json", exclude_unset=True)
        options = "".join(f"; {key} {_value(value)}" for key, value in chosen.items())
        found = f"{one['take']} in {interval(one['window'])}" if "window" in one else "by its key"
        lines.append(f"  {name:<{width}}  {found}, {need}{options}")
    if at_least:
        lines.append(f"A sample has at least {at_least} of them.")
    unreadable = "the next event of its window is taken" if spec.on_unreadable == "next" else "its sample is dropped"
    lines.append(f"Where a chosen file is there but cannot be read, {unreadable}, unless its room goes on by itself.")
    splits = plain["splits"]
    if "from" in splits:
        lines.append(f"Splits: as {splits['from']} says{_others(splits, 'splits')}.")
    else:
        sizes = ", ".join(f"{split} {_size(splits[split])}" for split in ("train", "val", "test"))
        rule = _RULES.get(splits["by"], splits["by"])
        lines.append(f"Splits: {sizes}; {rule}; seed {splits['seed']}{_others(splits, 'splits')}.")
    candidates = plain["candidates"]
    lines.append(
        f"Candidates: each query of val and test is ranked against {candidates['n']:,} of {candidates['target']}, "
        f"seed {candidates['seed']}{_others(candidates, 'candidates')}."
    )
    return lines


def _required(require: object) -> tuple[list[str], int]:
    """Modalities that every sample has, and how many it has at least if that is more."""
    if isinstance(require, Mapping):
        return list(require.get("all", ())), int(require.get("at_least") or 0)
    return list(require) if isinstance(require, list | tuple) else [], 0


def interval(window: Mapping[str, Any]) -> str:
    """A window in interval notation: `(+24 h, +72 h]`."""
    left, right = "[" if window["include_start"] else "(", "]" if window["include_end"] else ")"
    return f"{left}{_offset(window['start'])}, {_offset(window['end'])}{right}"


def _offset(duration: str) -> str:
    match = re.fullmatch(r"(-?)(\d+)([dhms])", duration)
    if match is None:
        return duration
    sign, number, unit = match.groups()
    mark = "" if int(number) == 0 else "−" if sign else "+"
    return f"{mark}{number} {'min' if unit == 'm' else unit}"


def _size(size: object) -> str:
    if isinstance(size, float):
        return f"{size:.0%}" if round(size * 100, 6).is_integer() else f"{size:.1%}"
    if isinstance(size, list):
        return "of " + ", ".join(map(str, size))
    return f"{size:,}" if isinstance(size, int) else str(size)


def _others(block: Mapping[str, Any], kind: str) -> str:
    rest = {key: value for key, value in block.items() if key not in _SAID[kind] and value not in ([], {}, None)}
    return "".join(f"; {key} {_value(value)}" for key, value in rest.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]" if len(value) <= 8 else f"{len(value)} of them"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(one)}" for key, one in value.items()) + "}"
    return str(value)
