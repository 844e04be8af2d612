"""Clinical multimodal research toolkit: MIMIC labs, ECGs and chest X-rays, trained with Symile."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symile_clin.pipeline.exported import load as load

__version__ = "0.1.0"

# Before anything can import MLflow, which asks once: MONAI does, too. What the user has set stands.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def __getattr__(name: str) -> Any:
    """`symile_clin.load`, an exported model; imported when it is asked for, because it needs torch."""
    if name != "load":
        raise AttributeError(f"module 'symile_clin' has no attribute '{name}'")
    return import_module("symile_clin.pipeline.exported").load
