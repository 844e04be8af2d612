"""Small trainable functions of a pair of vectors, and how they are fitted: train, stop by other samples, seeded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from symile_clin.rng import seed_of, stream

#: Two matrices (n, dx) and (n, dy); row i of both belongs to sample i.
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]

EPOCHS: Final = 200
#: Epochs without a better loss on the stopping samples before fitting ends.
PATIENCE: Final = 15
LEARNING_RATE: Final = 2e-3
WEIGHT_DECAY: Final = 1e-3


@final
class SeparableCritic(nn.Module):
    """T(x, y) = ⟨g(x), h(y)⟩ + a(x) + b(y) for all pairs of a batch in one matrix product.

    g, h, a, b are a linear map plus a network of one hidden layer, of standardised inputs.

    Args:
        x, y: samples whose means and spreads standardise the inputs.
        rank: width of g and h.
        hidden: width of the hidden layer; 0 leaves the network out.
    """

    def __init__(self, x: Tensor, y: Tensor, *, rank: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.rank = rank
        self.x, self.y = _Branch(x, rank + 1, hidden), _Branch(y, rank + 1, hidden)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """T of every x with every y: (n, dx), (m, dy) -> (n, m)."""
        one, other = self.x(x), self.y(y)
        products: Tensor = one[:, : self.rank] @ other[:, : self.rank].T / math.sqrt(self.rank)
        biases: Tensor = one[:, self.rank :] + other[:, self.rank :].T
        return products + biases


@final
class GaussianConditional(nn.Module):
    """log q(y | x) of a normal distribution with mean and diagonal variance from x; y is standardised first.

    Standardising changes the log density by a constant, which no difference of two of them sees.

    Args:
        x, y, hidden: as in `SeparableCritic`.
    """

    def __init__(self, x: Tensor, y: Tensor, *, hidden: int = 128) -> None:
        super().__init__()
        self.moments = _Branch(x, 2 * y.shape[1], hidden)
        self.standard = _Standardise(y)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """log q(y_j | x_i) for every pair: (n, dx), (m, dy) -> (n, m)."""
        mean, raw = self.moments(x).chunk(2, dim=1)
        log_variance = 6 * torch.tanh(raw / 6)  # bounded, so that no variance vanishes
        precision, y = torch.exp(-log_variance), self.standard(y)
        squares: Tensor = (
            precision @ (y * y).T - 2 * (precision * mean) @ y.T + (precision * mean * mean).sum(1, keepdim=True)
        )
        return -0.5 * (squares + log_variance.sum(1, keepdim=True))


@final
class _Standardise(nn.Module):
    mean: Tensor
    spread: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", values.mean(0))
        self.register_buffer("spread", values.std(0).clamp_min(1e-6))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.spread


@final
class _Branch(nn.Module):
    def __init__(self, values: Tensor, out: int, hidden: int) -> None:
        super().__init__()
        self.standard = _Standardise(values)
        self.linear = nn.Linear(values.shape[1], out)
        self.first = nn.Linear(values.shape[1], hidden) if hidden else None
        self.last = nn.Linear(hidden, out) if hidden else None

    def forward(self, values: Tensor) -> Tensor:
        standard = self.standard(values)
        out: Tensor = self.linear(standard)
        if self.first is not None and self.last is not None:
            out = out + self.last(functional.gelu(self.first(standard)))
        return out


def fit(
    build: Callable[[Tensor, Tensor], nn.Module],
    loss: Callable[[Tensor], Tensor],
    *,
    train: Pair,
    stop: Pair,
    batch_size: int,
    seed: int,
    epochs: int = EPOCHS,
) -> nn.Module:
    """A function of pairs fitted to `train`, as it was when its loss on `stop` was least.

    Args:
        build: from the samples of `train` to the function to fit; its output is a matrix (n, n) over all pairs.
        loss: of that matrix, whose diagonal holds the matched pairs.
        stop: other samples than `train`.
    """
    x, y = map(torch.from_numpy, train)
    held_x, held_y = map(torch.from_numpy, stop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "critic", "init"))
        module = build(x, y)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rng = stream(seed, "critic", "order")
    batches = max(1, len(x) // batch_size)
    best, best_loss, waited = _state(module), math.inf, 0
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(x)), batches):
            optimizer.zero_grad()
            loss(module(x[rows], y[rows])).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
        with torch.no_grad():
            parts = np.array_split(np.arange(len(held_x)), max(1, len(held_x) // batch_size))
            now = float(np.mean([float(loss(module(held_x[part], held_y[part]))) for part in parts]))
        if now < best_loss - 1e-4:
            best, best_loss, waited = _state(module), now, 0
        else:
            waited += 1
            if waited > PATIENCE:
                break
    module.load_state_dict(best)
    return module.eval()


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
