"""The settings of the XOR experiment: strict, frozen, resolved once, written beside the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from symile_clin.errors import ConfigError
from symile_clin.experiments.xor_data import variable_names
from symile_clin.objectives.registry import OBJECTIVES, option_problems
from symile_clin.strict import (
    Strict,
    apply_overrides,
    find_preset,
    load_yaml,
    nearest,
    problems,
    raise_problems,
)

#: What a preset of this experiment says of itself.
EXPERIMENT = "xor"

Probability = Annotated[float, Field(ge=0, le=1)]


class SampleCounts(Strict):
    """Samples of each split; of test at least two, which an interval needs."""

    train: Annotated[int, Field(ge=2)]
    val: Annotated[int, Field(ge=2)]
    test: Annotated[int, Field(ge=2)]


class XorTraining(Strict):
    """How each model is trained; see `symile_clin.experiments.xor_training.train_xor`."""

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=3)]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.01
    decay_all: bool = True


class XorConfig(Strict):
    """Everything that decides the experiment's numbers.

    Attributes:
        preset: the name it started from.
        variables: how many vectors there are, called a, b, c, ...
        bits: coordinates of each; the candidates are all 2^bits vectors.
        p: probabilities that the last variable is the XOR of the others and not the first.
        missing: probability of each variable to be absent from a training or validation sample.
        target: the variable that is predicted from all others.
        seeds: of data, start and negatives; each trains every model anew.
        objectives: `name` and options of each.
        dim: width of the shared space.
        logit_scale_init: start of the learned log scale; None takes each objective's own.
    """

    preset: str
    experiment: Literal["xor"]
    variables: Annotated[int, Field(ge=3, le=26)] = 3
    bits: Annotated[int, Field(ge=1, le=12)]
    p: Annotated[tuple[Probability, ...], Field(min_length=1)]
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target: str
    samples: SampleCounts
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    objectives: Annotated[tuple[Mapping[str, Any], ...], Field(min_length=1)]
    dim: PositiveInt
    logit_scale_init: float | None = None
    training: XorTraining


def load_xor_config(preset: str, *, overrides: Sequence[str]) -> XorConfig:
    """Read a preset, apply overrides, and write every default out.

    Args:
        preset: name of a file in configs/ or path of a YAML file.
        overrides: `key=value` strings; they win over the file.

    Raises:
        NotFoundError: no such preset.
        ConfigError: naming every problem at once; or a preset of something else.
    """
    path = find_preset("configs", preset)
    raw = load_yaml(path)
    if raw.get("experiment") != EXPERIMENT:
        raise ConfigError(
            f"{path.name} is no preset of the XOR experiment",
            expected=f"one that says 'experiment: {EXPERIMENT}'",
            remedy=f"Train on a cohort with `symile-clin train {preset}`, or take the preset xor",
        )
    raw = apply_overrides({"preset": path.stem, **raw}, overrides)
    found = problems(XorConfig, raw)
    if not found:
        found += _disagreements(XorConfig.model_validate(raw))
    if found:
        raise_problems(found, source=path.name)
    config = XorConfig.model_validate(raw)
    written = tuple(
        {"name": one["name"], **OBJECTIVES[one["name"]].Options.model_validate(_options(one)).model_dump(mode="json")}
        for one in config.objectives
    )
    return config.model_copy(update={"objectives": written})


def _disagreements(config: XorConfig) -> list[str]:
    names = variable_names(config.variables)
    found = []
    if config.target not in names:
        found.append(f"'target': no variable '{config.target}' ({nearest(config.target, names)})")
    chosen = [str(one.get("name")) for one in config.objectives]
    for index, (name, one) in enumerate(zip(chosen, config.objectives, strict=True)):
        at = f"objectives.{index}"
        if name in OBJECTIVES:
            found += option_problems(name, _options(one), names, at=at)
        else:
            found.append(f"'{at}.name': no objective '{name}' ({nearest(name, OBJECTIVES)})")
    for key, values in (("p", config.p), ("seeds", config.seeds), ("objectives", chosen)):
        if len(set(values)) < len(values):
            found.append(f"'{key}': a value is repeated")
    return found


def _options(objective: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in objective.items() if key != "name"}
