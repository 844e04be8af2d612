"""The paper's synthetic experiment: objectives side by side, while information moves from a pair to all three.

Source: Saporta et al., "Contrasting with Symile", NeurIPS 2024, section 5.1 and figure 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from symile_clin.cohort.workers import Workers
from symile_clin.evaluation.bootstrap import Interval, bootstrap_interval
from symile_clin.experiments.information import Information, Reachable, information, reachable
from symile_clin.experiments.xor_data import variable_names
from symile_clin.experiments.xor_training import Trained, train_xor
from symile_clin.progress import Progress
from symile_clin.rng import stream

#: Of the test samples; an endpoint's Monte Carlo error is then a twentieth of the interval's width.
RESAMPLES: Final = 1000


@dataclass(frozen=True)
class Accuracy:
    """How well one objective's models predict the target at one p.

    Attributes:
        interval: over the test samples of all seeds, the trained models given.
        by_seed: accuracy of each seed's model.
        models: by seed, in the same order.
    """

    p: float
    objective: str
    interval: Interval
    by_seed: tuple[float, ...]
    models: tuple[Trained, ...]

    def record(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "p": self.p,
            "objective": self.objective,
            "accuracy": self.interval.estimate,
            "ci_low": self.interval.low,
            "ci_high": self.interval.high,
            "by_seed": list(self.by_seed),
            "best_epoch": [model.best_epoch for model in self.models],
            "val_loss": [model.val_loss for model in self.models],
            "scale": [model.scale for model in self.models],
        }


@dataclass(frozen=True)
class XorResult:
    """Accuracies, by p and then by objective, and what theory says of the same p.

    Attributes:
        information: in nats; None unless there are three variables.
        reachable: of the target.
    """

    p: tuple[float, ...]
    accuracies: tuple[Accuracy, ...]
    information: Information | None
    reachable: Reachable

    def of(self, objective: str) -> list[Accuracy]:
        """One objective's accuracies, by p."""
        return [one for one in self.accuracies if one.objective == objective]

    @property
    def objectives(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(one.objective for one in self.accuracies))


def run_xor(
    *,
    variables: int,
    bits: int,
    p: Sequence[float],
    missing: float,
    target: str,
    samples: Mapping[str, int],
    seeds: Sequence[int],
    objectives: Sequence[Mapping[str, Any]],
    dim: int,
    logit_scale_init: float | None,
    training: Mapping[str, Any],
    workers: int | None,
    progress: Progress,
) -> XorResult:
    """Train every objective with every seed at every p, and set the accuracies beside what theory says.

    Args:
        samples: numbers of train, val and test samples.
        training: epochs, batch_size, lr, weight_decay and decay_all, as of `train_xor`, which explains the others, too.
        workers: processes; None takes one per core. Their number changes no figure.

    Raises:
        TrainingError: a loss or gradient that is not finite.
    """
    jobs: list[dict[str, Any]] = [
        {"p": one, "objective": dict(objective), "seed": seed}
        for one in p
        for objective in objectives
        for seed in seeds
    ]
    shared = {
        "variables": variables, "bits": bits, "missing": missing, "target": target, **samples,
        "dim": dim, "logit_scale_init": logit_scale_init, **training,
    }  # fmt: skip
    trained: list[Trained] = []
    with progress.track("models trained", len(jobs)) as advance, Workers(workers) as pool:
        for model in pool.map(partial(_train, shared), jobs, chunk=1):
            trained.append(model)
            advance(1)
    accuracies = [
        _accuracy(jobs[start]["p"], str(jobs[start]["objective"]["name"]), trained[start : start + len(seeds)])
        for start in range(0, len(jobs), len(seeds))
    ]
    ends = target in (variable_names(variables)[0], variable_names(variables)[-1])
    return XorResult(
        p=tuple(p),
        accuracies=tuple(accuracies),
        information=information(p, bits) if variables == 3 else None,
        reachable=reachable(p, bits, ends=ends),
    )


def _train(shared: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> list[Trained]:
    return [train_xor(**shared, **job) for job in jobs]


def _accuracy(p: float, objective: str, models: Sequence[Trained]) -> Accuracy:
    correct = np.concatenate([model.correct for model in models])
    interval = bootstrap_interval(
        correct, np.arange(len(correct)), resamples=RESAMPLES, rng=stream(0, "xor", "interval")
    )
    return Accuracy(
        p=p,
        objective=objective,
        interval=interval,
        by_seed=tuple(float(model.correct.mean()) for model in models),
        models=tuple(models),
    )
