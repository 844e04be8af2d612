"""How far a training run is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from symile_clin.errors import MismatchError

#: Beyond these, a number of steps is none.
MOST_STEPS: Final = 1 << 48


@dataclass
class TrainingState:
    """What training needs to go on, beside weights and optimizer. Every random stream follows from seed and step.

    Attributes:
        step: steps finished, of the run.
        loss: sum over the samples seen in the unfinished epoch.
        history: metrics of each finished epoch.
        best_epoch: 1-based; 0 before the first is finished.
        seconds: spent on the run so far.
    """

    step: int = 0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the best epoch."""
        return self.history[self.best_epoch - 1]

    def has_stalled(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        return patience is not None and self.epoch - self.best_epoch >= patience

    def close_epoch(self, metrics: dict[str, float], *, is_best: bool) -> None:
        """Take note of a finished epoch."""
        self.history.append(metrics)
        self.loss = 0.0
        if is_best:
            self.best_epoch = self.epoch


def checked(values: Mapping[str, Any], *, source: str) -> TrainingState:
    """A state from what a file holds.

    Raises:
        MismatchError: names or types that no training state has.
    """
    state = TrainingState(**values) if values.keys() == TrainingState().__dict__.keys() else None
    if (
        state is None
        or not all(type(number) is int and 0 <= number < MOST_STEPS for number in (state.step, state.best_epoch))
        or not all(isinstance(number, float) and math.isfinite(number) for number in (state.loss, state.seconds))
        or not isinstance(state.history, list)
        or not all(isinstance(epoch, dict) and all(map(_is_metric, epoch.items())) for epoch in state.history)
        or state.best_epoch > state.epoch
    ):
        raise MismatchError(f"{source} holds something else than a training state", remedy="Use another checkpoint")
    return state


def _is_metric(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], float | int)
