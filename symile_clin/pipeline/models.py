"""From a resolved config to a model and its objective on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from symile_clin.config import RunConfig, encoder_options
from symile_clin.errors import ConfigError
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import build_objective
from symile_clin.ranks import ALONE, Ranks
from symile_clin.rng import seed_of


def build_model(
    config: RunConfig, modalities: Mapping[str, Modality], *, pretrained: bool
) -> tuple[MultimodalEncoder, Objective]:
    """A freshly initialised model and objective, the same for the same config and seed.

    Args:
        pretrained: start encoders from the weights the config names; false for a model that a checkpoint will fill.

    Raises:
        ConfigError: pretrained weights that cannot be had.
    """
    dim, scale = config.model.dim, config.model.logit_scale_init
    with torch.random.fork_rng(devices=[]):
        # a stream of its own: encoders start the same whatever the objective
        torch.manual_seed(seed_of(config.seed, "objective init"))
        objective = build_objective(
            config.objective["name"],
            {key: value for key, value in config.objective.items() if key != "name"},
            dim=dim,
            modalities=list(modalities),
        )
    options = encoder_options(config, modalities)
    if not pretrained:
        options = {name: one.blank() for name, one in options.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "init"))
        model = MultimodalEncoder(
            {name: modality.encoder(dim, options[name]) for name, modality in modalities.items()},
            dim=dim,
            normalization=objective.normalization,
            logit_scale_init=objective.initial_logit_scale(dim, len(modalities)) if scale is None else scale,
            placeholders=config.model.placeholders or (),
        )
    return model, objective


def choose_device(device: str, ranks: Ranks = ALONE) -> torch.device:
    """The device that a name means; "auto" is CUDA where there is any. Of several processes each has a CUDA device.

    Raises:
        ConfigError: no such device here, or none left for this process.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"no device is called {device!r}", remedy="Use auto, cpu or cuda") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"{device!r} is no kind of device that training runs on", remedy="Use auto, cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this machine has no CUDA device", remedy="Use --device cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no {device!r} here", expected=f"one of the {torch.cuda.device_count()} devices from cuda:0 on"
        )
    if ranks.size == 1 or chosen.type == "cpu":
        return chosen
    if ":" in device:
        raise ConfigError(
            f"--device {device} would give all processes one device", remedy="Use --device cuda: each takes its own"
        )
    own = int(os.environ["LOCAL_RANK"])
    if own >= torch.cuda.device_count():
        raise ConfigError(
            f"this machine has {torch.cuda.device_count()} CUDA devices, and process {own} here needs one of its own",
            remedy="Start at most so many with torchrun's --nproc-per-node",
        )
    torch.cuda.set_device(own)
    return torch.device("cuda", own)
