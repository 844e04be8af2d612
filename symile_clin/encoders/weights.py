"""Starting an encoder from a file, and saying exactly what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from symile_clin.errors import MismatchError, NotFoundError

State = Mapping[str, Tensor]
#: The last layer of every encoder: its width is the embedding's, so a start from elsewhere leaves it out.
HEAD = "fc."


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a state_dict file by name, on the CPU; nothing but tensors is ever unpickled.

    Raises:
        NotFoundError: no such file.
        MismatchError: not a state_dict.
    """
    if not path.is_file():
        raise NotFoundError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader of hostile bytes may raise anything
        raise MismatchError(
            f"{path} cannot be read as weights ({type(error).__name__})",
            expected="a state_dict of tensors (.pt, .pth or .safetensors)",
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MismatchError(f"{path} holds something else than tensors by name", expected="a state_dict")
    return state


def load_start(encoder: nn.Module, path: str) -> None:
    """Load everything but the last layer from a file.

    Raises:
        NotFoundError: no such file.
        MismatchError: names that are missing or left over, or shapes that differ.
    """
    start(encoder, read_state(Path(path)), source=path)


def start(encoder: nn.Module, state: State, *, source: str) -> None:
    """Load everything but the last layer from `state`.

    A first convolution over 3 colour channels is summed where the encoder has one channel: it then answers to a
    one-channel image as the original would to the same image in grey.

    Raises:
        MismatchError: names that are missing or left over, or shapes that differ.
    """
    body = {name: value for name, value in state.items() if not name.startswith(HEAD)}
    own = encoder.state_dict()
    for name, value in body.items():
        if name in own and value.dim() == 4 and value.shape[1] == 3 and own[name].shape[1] == 1:
            body[name] = value.sum(dim=1, keepdim=True)
    head = {name: value for name, value in own.items() if name.startswith(HEAD)}
    load_exactly(encoder, {**body, **head}, source=source)


def load_exactly(module: nn.Module, state: State, *, source: str) -> None:
    """Load `state` into `module`; every name and shape must fit.

    Raises:
        MismatchError: naming the first few of what is missing, left over or of another shape.
    """
    own = module.state_dict()
    problems = [
        *_named("missing", own.keys() - state.keys()),
        *_named("unknown", state.keys() - own.keys()),
        *_named(
            "of another shape",
            (
                f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
                for name in own.keys() & state.keys()
                if own[name].shape != state[name].shape
            ),
        ),
    ]
    if problems:
        raise MismatchError(
            f"{source} does not fit the network: {'; '.join(problems)}",
            remedy="Use weights of the same architecture and size",
        )
    module.load_state_dict(dict(state))


def _named(problem: str, names: Iterable[str], *, shown: int = 3) -> list[str]:
    found = sorted(names)
    if not found:
        return []
    rest = f" and {len(found) - shown} more" if len(found) > shown else ""
    return [f"{problem}: {', '.join(found[:shown])}{rest}"]
