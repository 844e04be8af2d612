"""What training needs to know about its device: number format and reproducibility."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from symile_clin.errors import ConfigError
from symile_clin.model import MultimodalEncoder

Precision = Literal["auto", "fp32", "bf16"]
MemoryFormat = Literal["auto", "channels_last", "contiguous"]


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type that encoders compute in under autocast; None is plain float32.

    Args:
        precision: "auto" is bf16 on a CUDA device that has it; on a CPU bf16 is mostly slower, and only for the asking.

    Raises:
        ConfigError: the device has no bf16.
    """
    if precision == "fp32":
        return None
    if device.type != "cuda":
        return torch.bfloat16 if precision == "bf16" else None
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not has_bf16:
        raise ConfigError("this CUDA device has no bf16", remedy="Set training.precision to auto or fp32")
    return torch.bfloat16 if has_bf16 else None


def put_on_device(
    model: MultimodalEncoder, *, device: torch.device, memory_format: MemoryFormat, compile: bool
) -> MultimodalEncoder:
    """Move a model to its device, in the layout and form that its encoders run best in there.

    Args:
        memory_format: "channels_last" lays the weights of 2-D convolutions out so that they, and with them their
            results, are; "auto" does so on a CUDA device, where its bf16 kernels want it. On a CPU it makes the ResNets
            faster and the small encoders slower.
        compile: compile each encoder where it is first called; names and values of its weights stay as they are.
    """
    model.to(device)
    if memory_format == "channels_last" or (memory_format == "auto" and device.type == "cuda"):
        model.to(memory_format=torch.channels_last)
    if compile:
        for encoder in model.encoders.values():
            encoder.compile()
    return model


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic kernels inside the block; afterwards torch's settings and random state are as before.

    On a CPU torch is deterministic as it is, for a fixed number of threads. On a CUDA device an operation without a
    deterministic kernel warns and goes on.
    """
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    # cuBLAS reads it when first used; with its default a few products depend on timing.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[device]):
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            torch.backends.cudnn.benchmark = benchmark
