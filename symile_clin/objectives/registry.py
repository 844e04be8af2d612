"""Which objectives there are, by the name configs use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from symile_clin.errors import ConfigError
from symile_clin.objectives.base import Objective
from symile_clin.objectives.clip import PairwiseClip
from symile_clin.objectives.gated_symile import GatedSymile
from symile_clin.objectives.gram import Gram
from symile_clin.objectives.symile import Symile
from symile_clin.objectives.triangle import Triangle
from symile_clin.strict import nearest, problems, raise_problems

OBJECTIVES: Mapping[str, type[Objective]] = {
    objective.name: objective for objective in (Symile, PairwiseClip, Gram, Triangle, GatedSymile)
}


def build_objective(name: str, options: Mapping[str, Any], *, dim: int, modalities: Sequence[str]) -> Objective:
    """An objective from its name and options, defaults for those left out.

    Parameters of its own, if it has any, start from torch's global generator.

    Args:
        dim: of the embeddings.
        modalities: their names.

    Raises:
        ConfigError: no such objective or option, with the nearest name, or not for these modalities.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"no objective is called '{name}'", remedy=nearest(name, OBJECTIVES).capitalize())
    found = option_problems(name, options, modalities)
    if found:
        raise_problems(found, source=f"objective '{name}'")
    kind = OBJECTIVES[name]
    settings = kind.Options.model_validate(options).model_dump()
    if kind.has_parameters:
        settings |= {"dim": dim, "modalities": modalities}
    return kind(**settings)


def option_problems(name: str, options: Mapping[str, Any], modalities: Sequence[str], *, at: str = "") -> list[str]:
    """Every way in which a registered objective is not to be had with these options for these modalities."""
    kind = OBJECTIVES[name]
    found = problems(kind.Options, options, at=at)
    where = f"{at}." if at else ""
    if kind.defined_for not in (None, len(modalities)):
        found.append(f"'{name}' is defined for {kind.defined_for} modalities, and here are {len(modalities)}")
    anchor = options.get("anchor") if "anchor" in kind.Options.model_fields else None
    if isinstance(anchor, str) and anchor not in modalities:
        found.append(f"'{where}anchor': no modality is called '{anchor}' ({nearest(anchor, modalities)})")
    return found
