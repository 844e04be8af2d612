"""The settings of a training run: strict, frozen, resolved once, written beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from symile_clin.errors import ConfigError
from symile_clin.modalities.base import EncoderOptions, Modality
from symile_clin.objectives.registry import OBJECTIVES, option_problems
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


class ModelConfig(Strict):
    """Size and encoders of the model.

    Attributes:
        dim: width of the shared embedding space.
        logit_scale_init: start of the learned log scale; None takes the objective's own.
        placeholders: modalities that samples may lack, each with a learned vector in its place; None takes those that
            some training sample lacks.
        encoders: settings by modality name; a modality that is left out takes its room's default encoder.
    """

    dim: PositiveInt
    logit_scale_init: float | None = None
    placeholders: tuple[str, ...] | None = None
    encoders: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)


class TrainingConfig(Strict):
    """How the model is trained; every field is an argument of `symile_clin.training.fit.fit`.

    Attributes:
        decay_all: also decay norms, biases and the logit scale, as the paper's code does.
        warmup_epochs: epochs of linear warm-up from zero to `lr`.
        clip_norm: largest gradient norm; None does not clip.
        precision: "auto" is bf16 autocast where a CUDA device has it, float32 elsewhere.
        patience: epochs without a better validation result before training stops; None runs to the end.
        select_by: what makes a checkpoint the best one.
        workers: processes that fetch batches, at most one per core; 0 fetches in the main process.
        embed_chunk: samples that a device encodes at once, for batches that do not fit; the loss is of the whole batch,
            and encoding costs one more pass (docs/scaling.md). None encodes a batch at once.
        sync_batchnorm: batch statistics over all CUDA devices of a run instead of each its own.
        memory_format: "auto" is channels_last on a CUDA device, where convolutions in bf16 are faster by it.
        compile: compile the encoders (torch.compile); the first steps take minutes.
        checkpoint_minutes: time between checkpoints inside an epoch, beside the one at its end; None writes no others.
    """

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=3)]  # of all devices together
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.01
    decay_all: bool = False
    warmup_epochs: NonNegativeFloat = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: PositiveFloat | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    patience: PositiveInt | None = None
    select_by: Literal["retrieval", "loss"] = "retrieval"
    workers: NonNegativeInt = 0
    embed_chunk: PositiveInt | None = None
    sync_batchnorm: bool = False
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    compile: bool = False
    checkpoint_minutes: PositiveFloat | None = 10.0


class InitFrom(Strict):
    """Weights that a model starts from, known by what they are, not by where they lay.

    Attributes:
        file: its name.
        sha256: of its bytes.
    """

    file: str
    sha256: str


class RunConfig(Strict):
    """Everything that decides a training run, given its cohort.

    Attributes:
        preset: the name it started from.
        init_from: weights of a whole model to start from; `train --init-from` writes it.
        objective: `name` and the objective's options.
    """

    preset: str
    init_from: InitFrom | None = None
    seed: NonNegativeInt = 0
    objective: Mapping[str, Any]
    model: ModelConfig
    training: TrainingConfig


def load_config(
    preset: str, *, overrides: Sequence[str], objective: str | None, modalities: Mapping[str, Modality]
) -> RunConfig:
    """Read a preset, apply overrides, and resolve it against a cohort's modalities.

    Args:
        preset: name of a file in configs/ or path of a YAML file.
        overrides: `key=value` strings; they win over the file.
        objective: replaces the preset's objective by this one with its default options.

    Raises:
        NotFoundError: no such preset.
        ConfigError: naming every problem at once.
    """
    path = find_preset("configs", preset)
    raw: dict[str, Any] = {"preset": path.stem, **load_yaml(path)}
    if "experiment" in raw:
        raise ConfigError(
            f"{path.name} is a preset of the experiment {raw['experiment']}, which needs no cohort",
            remedy=f"Run `symile-clin {raw['experiment']} {preset}`",
        )
    raw = apply_overrides(raw, overrides)
    if objective is not None:
        raw["objective"] = {"name": objective}
    return resolve_config(raw, source=path.name, modalities=modalities)


def resolve_config(raw: Mapping[str, Any], *, source: str, modalities: Mapping[str, Modality]) -> RunConfig:
    """Validate plain settings and write every default out, so that the record of a run is complete.

    Raises:
        ConfigError: naming every problem at once.
    """
    found = problems(RunConfig, raw)
    found += _objective_problems(raw.get("objective"), list(modalities))
    encoders = raw.get("model", {}).get("encoders", {}) if isinstance(raw.get("model"), Mapping) else {}
    if isinstance(encoders, Mapping):
        for name, options in encoders.items():
            if name not in modalities:
                found.append(f"'model.encoders.{name}': the cohort has no such modality ({nearest(name, modalities)})")
            else:
                found += problems(modalities[name].Encoder, options, at=f"model.encoders.{name}")
    placeholders = raw["model"].get("placeholders") if isinstance(raw.get("model"), Mapping) else None
    for name in placeholders if isinstance(placeholders, list | tuple) else ():
        if name not in modalities:
            found.append(f"'model.placeholders': the cohort has no '{name}' ({nearest(str(name), modalities)})")
    if found:
        raise_problems(found, source=source)
    config = RunConfig.model_validate(raw)
    name = str(config.objective["name"])
    objective = {"name": name, **_written_out(OBJECTIVES[name].Options, _options(raw))}
    written = {key: _written_out(modality.Encoder, encoders.get(key, {})) for key, modality in modalities.items()}
    model = config.model.model_copy(update={"encoders": written})
    return config.model_copy(update={"objective": objective, "model": model})


def with_placeholders(config: RunConfig, *, lacking: Sequence[str]) -> RunConfig:
    """A resolved config whose model can be trained on samples without the modalities `lacking`.

    Raises:
        ConfigError: it names its placeholders itself, and one is missing.
    """
    given = config.model.placeholders
    missing = [name for name in lacking if given is not None and name not in given]
    if missing:
        raise ConfigError(
            f"some training samples lack {', '.join(missing)}, and 'model.placeholders' leaves it out",
            remedy="Leave model.placeholders out, or build a cohort whose `require` names every modality",
        )
    chosen = tuple(lacking) if given is None else given
    return config.model_copy(update={"model": config.model.model_copy(update={"placeholders": chosen})})


def _written_out(settings: type[Strict], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their defaults, in the plain types that YAML gives back, so that a saved config compares equal."""
    return settings.model_validate(given).model_dump(mode="json")


def encoder_options(config: RunConfig, modalities: Mapping[str, Modality]) -> dict[str, EncoderOptions]:
    """The typed encoder settings of each modality of a resolved config."""
    return {
        name: validate(modality.Encoder, config.model.encoders[name], source=f"model.encoders.{name}")
        for name, modality in modalities.items()
    }


def flatten(config: RunConfig) -> dict[str, object]:
    """The resolved config as flat `a.b.c` names, the same names for every objective, so that runs compare.

    An option that only other objectives have is "-".
    """
    flat: dict[str, object] = {"objective.name": config.objective["name"]}
    flat |= {f"objective.{option}": "-" for one in OBJECTIVES.values() for option in sorted(one.Options.model_fields)}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value

    walk("", config.model_dump(mode="json"))
    return flat


def _options(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw["objective"].items() if key != "name"}


def _objective_problems(objective: object, modalities: Sequence[str]) -> list[str]:
    if not isinstance(objective, Mapping):
        return []  # already reported by the model above
    name = str(objective.get("name"))
    if name not in OBJECTIVES:
        return [f"'objective.name': no objective '{name}' ({nearest(name, OBJECTIVES)})"]
    options = {key: value for key, value in objective.items() if key != "name"}
    return option_problems(name, options, modalities, at="objective")
