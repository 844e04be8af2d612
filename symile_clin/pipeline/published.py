"""The released Symile-MIMIC checkpoint as a model of ours: names, settings, objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from symile_clin import files
from symile_clin.config import InitFrom, RunConfig, resolve_config
from symile_clin.encoders.lightning import LightningCheckpoint, read_lightning
from symile_clin.encoders.weights import load_exactly, read_state
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import released_forms
from symile_clin.modalities.released import ReleasedForm
from symile_clin.model import MultimodalEncoder
from symile_clin.progress import Progress

NORM: Final = "layer_norm."
SCALE: Final = "logit_scale"
#: `negative_sampling` of the published code -> ours.
NEGATIVES: Final = {"n": "permuted", "n_squared": "exhaustive"}
#: Objectives of the published code as ours are configured; its CLIP sums the losses of the pairs.
OBJECTIVES: Final[Mapping[str, Mapping[str, Any]]] = {
    "symile": {"name": "symile", "normalization": "layernorm", "precision": "fp32"},
    "clip": {"name": "clip", "normalization": "layernorm", "reduction": "sum"},
}
#: Our weights files have the model under this name, beside the objective.
MODEL: Final = "model."


def read_weights(path: Path, modalities: Mapping[str, Modality]) -> dict[str, Tensor]:
    """Weights to start a model from, by our names: of the released kind (.ckpt), or a run's model.safetensors.

    Raises:
        NotFoundError: no such file.
        MismatchError: another kind of file, or weights of other modalities.
    """
    if path.suffix != ".safetensors":
        return own_names(read_lightning(path), modalities, source=path.name)
    return {name.removeprefix(MODEL): value for name, value in read_state(path).items() if name.startswith(MODEL)}


def weights_of(path: Path) -> InitFrom:
    """What a config records of a weights file.

    Raises:
        NotFoundError: no such file.
    """
    if not path.is_file():
        raise NotFoundError(f"no weights file {path}")
    return InitFrom(file=path.name, sha256=files.sha256(path))


def start_from(path: Path, model: MultimodalEncoder, modalities: Mapping[str, Modality]) -> None:
    """Load weights of a whole model; placeholders that the file lacks stay as they are.

    Raises:
        NotFoundError: no such file.
        MismatchError: another kind of file, or a model of another size.
    """
    placeholders = {name: value for name, value in model.state_dict().items() if name.startswith("placeholders.")}
    weights = read_weights(path, modalities)
    try:
        load_exactly(model, placeholders | weights, source=path.name)
    except MismatchError as error:
        raise MismatchError(
            error.found,
            remedy="Train with the dim and encoders of these weights; the released ones have paper_symile's",
        ) from None


def own_names(checkpoint: LightningCheckpoint, modalities: Mapping[str, Modality], *, source: str) -> dict[str, Tensor]:
    """Weights of a released checkpoint under the names that `MultimodalEncoder` gives them.

    Raises:
        MismatchError: modalities without an encoder there, encoders without a modality, or names of another network.
    """
    prefixes = {SCALE: SCALE}
    for name, form in _forms(modalities, source=source).items():
        prefixes |= {form.encoder_prefix + NORM: f"normalizations.{name}."}
        prefixes |= {form.encoder_prefix + there: f"encoders.{name}.{own}" for there, own in form.encoder_names.items()}
    found, unknown = {}, []
    for name, value in checkpoint.state.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
        else:
            found[prefixes[prefix] + name.removeprefix(prefix)] = value
    if unknown or not found:
        what = f"holds '{unknown[0]}'" if unknown else "holds no weights"
        raise MismatchError(
            f"{source} {what}, which no modality of the cohort ({', '.join(modalities)}) has a place for",
            expected="the released Symile-MIMIC checkpoint and a cohort with its modalities",
        )
    return found


def published_config(
    checkpoint: LightningCheckpoint,
    modalities: Mapping[str, Modality],
    *,
    source: str,
    objective: str | None,
    progress: Progress,
) -> RunConfig:
    """How a released checkpoint was trained, as a config of ours: its hyper-parameters, and what its code fixes.

    Args:
        objective: scores with this one instead of the checkpoint's own.

    Raises:
        ConfigError: the checkpoint names no objective that is known, and neither does `objective`.
        MismatchError: modalities it has no encoder for, or other columns than it was trained on.
    """
    given = checkpoint.hyper_parameters
    forms = _forms(modalities, source=source)
    for form in forms.values():
        different = form.unlike_published()
        if different is not None:
            progress.say(f"The checkpoint was trained on other inputs. {different}")
    chosen = dict(OBJECTIVES.get(str(given.get("loss_fn")), {}))
    if objective is not None and objective != chosen.get("name"):
        chosen = dict(OBJECTIVES.get(objective, {"name": objective}))
    if not chosen:
        raise ConfigError(f"{source} does not say what it was trained with", remedy="Name it with --objective")
    if chosen["name"] == "symile":
        chosen["negatives"] = NEGATIVES.get(str(given.get("negative_sampling")), "exhaustive")
    norm = next((value for name, value in checkpoint.state.items() if name.endswith(NORM + "weight")), None)
    if norm is None:
        raise MismatchError(f"{source} has no '{NORM}weight'", expected="the released Symile-MIMIC checkpoint")
    raw = {
        "preset": f"paper_{chosen['name']}",
        "seed": int(given.get("seed", 0)),
        "objective": chosen,
        "model": {
            "dim": len(norm),
            "logit_scale_init": float(given.get("logit_scale_init", -7.0)),
            "placeholders": [],
            "encoders": {name: dict(form.encoder) for name, form in forms.items()},
        },
        "training": {
            "epochs": int(given.get("epochs", 80)),
            "batch_size": int(given.get("batch_sz_train", 280)),
            "lr": float(given.get("lr", 1e-3)),
            "weight_decay": float(given.get("weight_decay", 0.5)),
            "decay_all": True,
            "schedule": "constant",
            "precision": "fp32",
        },
    }
    return resolve_config(raw, source=source, modalities=modalities)


def _forms(modalities: Mapping[str, Modality], *, source: str) -> dict[str, ReleasedForm]:
    kinds = released_forms()
    rooms = [modality.room for modality in modalities.values()]
    if sorted(rooms) != sorted(kinds):
        raise MismatchError(
            f"{source} was trained on {', '.join(kinds)}, and the cohort has {', '.join(rooms)}",
            expected="a cohort with one of each",
        )
    return {name: kinds[modality.room](modality) for name, modality in modalities.items()}
