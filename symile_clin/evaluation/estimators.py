"""Estimators of the mutual information of two vectors, each with what it is: a lower bound, an upper bound, or neither.

Each fits a small function of a pair to some samples and is read off on others, which the function has never seen. That
is what makes a lower bound one: on the samples it was fitted to, any of them can be driven far above the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from symile_clin.errors import ConfigError
from symile_clin.evaluation.critics import GaussianConditional, Pair, SeparableCritic, fit
from symile_clin.rng import stream
from symile_clin.strict import nearest

Bound = Literal["lower", "upper", "neither"]

#: SMILE's clip of log density ratios (Song and Ermon 2020, section 5: 1, 5 and infinity were tried).
TAU: Final = 5.0
#: Samples a step of fitting.
FIT_BATCH: Final = 128
#: Share of the training samples that only say when to stop fitting.
STOP_SHARE: Final = 0.2


def info_nce(scores: Tensor) -> Tensor:
    """log n − cross-entropy of picking the match, both directions averaged; scores (n, n), matches on the diagonal."""
    both = torch.logsumexp(scores, dim=1) + torch.logsumexp(scores, dim=0)
    return math.log(len(scores)) + (scores.diagonal() - both / 2).mean()


def nwj(scores: Tensor) -> Tensor:
    """Mean of T over matched pairs − mean of exp(T − 1) over all others."""
    return scores.diagonal().mean() - torch.exp(_log_mean_exp(scores) - 1)


def donsker_varadhan(scores: Tensor) -> Tensor:
    """Mean of T over matched pairs − log mean of exp(T) over all others."""
    return scores.diagonal().mean() - _log_mean_exp(scores)


def clipped_donsker_varadhan(scores: Tensor) -> Tensor:
    """As `donsker_varadhan`, with T in the second mean clipped to [−TAU, TAU]."""
    return scores.diagonal().mean() - _log_mean_exp(scores.clamp(-TAU, TAU))


def contrastive_log_ratio(scores: Tensor) -> Tensor:
    """Mean of log q(y | x) over matched pairs − its mean over all others."""
    return scores.diagonal().mean() - _others(scores).mean()


def _jensen_shannon(scores: Tensor) -> Tensor:
    """Loss whose minimum is at T = the log density ratio, and which is calm: logistic regression of matched or not."""
    return functional.softplus(-scores.diagonal()).mean() + functional.softplus(_others(scores)).mean()


def _others(scores: Tensor) -> Tensor:
    return scores[~torch.eye(len(scores), dtype=torch.bool, device=scores.device)]


def _log_mean_exp(scores: Tensor) -> Tensor:
    others = _others(scores)
    return torch.logsumexp(others, dim=0) - math.log(len(others))


@dataclass(frozen=True)
class Estimator:
    """One way to estimate I(x; y).

    Attributes:
        bound: what its expectation over fresh samples is, for whatever function was fitted.
        why: the reason, in one line.
        source: paper.
        value: of the matrix (n, n) of the fitted function over a batch of fresh samples.
        loss: what the function is fitted by.
        build: the function, from training samples.
        capped: never above log n.
    """

    bound: Bound
    why: str
    source: str
    value: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor], Tensor]
    build: Callable[[Tensor, Tensor], nn.Module]
    capped: bool = False


ESTIMATORS: Final[Mapping[str, Estimator]] = {
    "infonce": Estimator(
        bound="lower",
        why="holds for every function and n, and is never above log n",
        source="van den Oord, Li, Vinyals 2018, section 2.3; Poole et al. 2019, section 2.3",
        value=info_nce,
        loss=lambda scores: -info_nce(scores),
        build=SeparableCritic,
        capped=True,
    ),
    "nwj": Estimator(
        bound="lower",
        why="holds for every function without a cap; its variance grows with the exponential of the information",
        source="Nguyen, Wainwright, Jordan 2010; Poole et al. 2019, section 2.2",
        value=nwj,
        loss=lambda scores: -nwj(scores),
        build=SeparableCritic,
    ),
    "mine": Estimator(
        bound="neither",
        why="the functional is a lower bound, but the log of a mean of samples is too small on average (Jensen), "
        "which makes the estimate too large",
        source="Belghazi et al. 2018, section 3; Poole et al. 2019, section 2.2; McAllester and Stratos 2020",
        value=donsker_varadhan,
        loss=lambda scores: -donsker_varadhan(scores),
        build=SeparableCritic,
    ),
    "smile": Estimator(
        bound="neither",
        why="clipping the ratios lowers the variance and takes the bound away",
        source="Song and Ermon 2020, section 5; fitted by their code's Jensen-Shannon loss",
        value=clipped_donsker_varadhan,
        loss=_jensen_shannon,
        build=SeparableCritic,
    ),
    "club": Estimator(
        bound="neither",
        why="an upper bound only if q(y | x) is the true conditional; here it is a fitted normal distribution (vCLUB)",
        source="Cheng et al. 2020, sections 3.1 (CLUB) and 3.2 (vCLUB)",
        value=contrastive_log_ratio,
        loss=lambda scores: -scores.diagonal().mean(),
        build=GaussianConditional,
    ),
}


@dataclass(frozen=True)
class Estimate:
    """An estimate of mutual information, in nats.

    Attributes:
        standard_error: of `value` over held-out batches, given the fitted function; NaN with one batch.
        bound: what the value is to the truth, in expectation.
        n: samples a batch.
        cap: what the value cannot exceed; None if nothing.
    """

    value: float
    standard_error: float
    bound: Bound
    n: int
    cap: float | None


def estimate_information(
    *,
    estimator: str,
    train: Pair,
    held_out: Pair,
    n: int = 256,
    seed: int,
) -> Estimate:
    """Estimate I(x; y) of pairs that were drawn independently of each other.

    Args:
        estimator: a name in ESTIMATORS.
        train: x (n, dx) and y (n, dy), float32, which the function is fitted to.
        held_out: other samples; the estimate is read off whole batches of n, and a rest smaller than that is left out.
        n: samples a batch there, and so the cap log n of InfoNCE; all held-out samples if there are fewer.

    Raises:
        ConfigError: no such estimator, or fewer than two samples of a kind.
    """
    if estimator not in ESTIMATORS:
        raise ConfigError(f"no estimator is called '{estimator}'", remedy=nearest(estimator, ESTIMATORS).capitalize())
    if min(len(train[0]), len(held_out[0])) < 4:
        raise ConfigError("mutual information cannot be estimated from fewer than 4 samples")
    chosen = ESTIMATORS[estimator]
    order = stream(seed, "critic", "stop").permutation(len(train[0]))
    stop, rest = np.split(order, [max(2, round(STOP_SHARE * len(order)))])
    module = fit(
        chosen.build,
        chosen.loss,
        train=(train[0][rest], train[1][rest]),
        stop=(train[0][stop], train[1][stop]),
        batch_size=FIT_BATCH,
        seed=seed,
    )
    n = min(n, len(held_out[0]))
    values = _values(module, chosen.value, held_out, n)
    return Estimate(
        value=float(values.mean()),
        standard_error=float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan,
        bound=chosen.bound,
        n=n,
        cap=math.log(n) if chosen.capped else None,
    )


def _values(module: nn.Module, value: Callable[[Tensor], Tensor], pair: Pair, n: int) -> NDArray[np.float64]:
    """The estimator's value on every whole batch."""
    x, y = map(torch.from_numpy, pair)
    with torch.no_grad():
        return np.array(
            [
                float(value(module(x[start : start + n], y[start : start + n]).double()))
                for start in range(0, len(x) - n + 1, n)
            ]
        )
