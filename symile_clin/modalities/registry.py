"""Which rooms there are. Only the pipeline imports this; everything else is handed modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from symile_clin.errors import ConfigError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.cxr import CXR
from symile_clin.modalities.ecg import ECG
from symile_clin.modalities.features import Features
from symile_clin.modalities.labs import Labs
from symile_clin.modalities.released import ReleasedForm
from symile_clin.strict import nearest, validate

ROOMS: Mapping[str, type[Modality]] = {room.room: room for room in (CXR, ECG, Labs, Features)}
#: Keys of a spec's modality that belong to every room and are not among its options.
SHARED_KEYS = frozenset({"room", "window", "take"})


def released_forms() -> Mapping[str, type[ReleasedForm]]:
    """How rooms look in the Symile-MIMIC release, by room, in the order of its columns."""
    from symile_clin.modalities.cxr.released import ReleasedXrays
    from symile_clin.modalities.ecg.released import ReleasedEcgs
    from symile_clin.modalities.labs.released import ReleasedLabs

    return {form.room: form for form in (ReleasedXrays, ReleasedEcgs, ReleasedLabs)}


def modalities_of(spec: Mapping[str, Any]) -> dict[str, Modality]:
    """The modalities of a cohort's resolved spec, in its order.

    Raises:
        ConfigError: a room that this version does not have, or its options.
    """
    found = {}
    for name, entry in spec["modalities"].items():
        if entry["room"] not in ROOMS:
            hint = nearest(str(entry["room"]), ROOMS).capitalize()
            raise ConfigError(f"'modalities.{name}': no room is called '{entry['room']}'", remedy=hint)
        room = ROOMS[entry["room"]]
        options = {key: value for key, value in entry.items() if key not in SHARED_KEYS}
        found[name] = room(name, validate(room.Options, options, source=f"modalities.{name}"))
    return found
