"""Which objectives there are, by the name configs use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from symile_clin.errors import ConfigError
from symile_clin.objectives.base import Objective
from symile_clin.objectives.clip import PairwiseClip
from symile_clin.objectives.symile import Symile
from symile_clin.strict import nearest, validate

OBJECTIVES: Mapping[str, type[Objective]] = {objective.name: objective for objective in (Symile, PairwiseClip)}


def build_objective(name: str, options: Mapping[str, Any]) -> Objective:
    """An objective from its name and options, defaults for those left out.

    Raises:
        ConfigError: no such objective or option; the nearest name is suggested.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"no objective is called '{name}'", remedy=nearest(name, OBJECTIVES).capitalize())
    kind = OBJECTIVES[name]
    return kind(**validate(kind.Options, options, source=f"objective '{name}'").model_dump())
