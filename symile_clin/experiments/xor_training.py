"""One model of the XOR variables, trained and judged with the parts that train and judge cohorts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from symile_clin.cohort.workers import begin_item
from symile_clin.data.order import TrainingOrder
from symile_clin.evaluation.retrieval import rank
from symile_clin.experiments.xor_data import XorSamples, all_vectors, draw_samples, index_of, inputs, variable_names
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.objectives.registry import build_objective
from symile_clin.ranks import ALONE
from symile_clin.rng import seed_of
from symile_clin.training.schedule import parameter_groups
from symile_clin.training.step import optimisation_step


@dataclass(frozen=True)
class Trained:
    """What one model came to.

    Attributes:
        best_epoch: 1-based epoch of the lowest validation loss, whose weights are judged.
        val_loss: of that epoch, in nats.
        scale: of its products.
        correct: (test samples,) probability that the true vector is ranked first, ties broken at random.
    """

    best_epoch: int
    val_loss: float
    scale: float
    correct: NDArray[np.float64]


def train_xor(
    *,
    objective: Mapping[str, Any],
    variables: int,
    bits: int,
    p: float,
    missing: float,
    target: str,
    train: int,
    val: int,
    test: int,
    dim: int,
    logit_scale_init: float | None,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    decay_all: bool,
    seed: int,
) -> Trained:
    """Train linear encoders with AdamW at a constant rate, and predict one variable from all others.

    One thread, so that the numbers do not depend on how many cores there are.

    Args:
        objective: `name` and options.
        variables, bits, p, missing: of the data, see `draw_samples`; test samples lack nothing.
        target: the variable to predict, among all 2^bits vectors.
        train, val, test: numbers of samples.
        decay_all: see `parameter_groups`.

    Raises:
        TrainingError: a loss or gradient that is not finite.
    """
    names = variable_names(variables)
    shape: dict[str, Any] = {"variables": variables, "bits": bits, "p": p, "seed": seed}
    training = draw_samples(train, **shape, missing=missing, split="train")
    validation = draw_samples(val, **shape, missing=missing, split="val")
    order = TrainingOrder(rows=np.arange(train), batch_size=batch_size, seed=seed, epochs=epochs)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "objective init"))
        options = {key: value for key, value in objective.items() if key != "name"}
        loss = build_objective(str(objective["name"]), options, dim=dim, modalities=names)
        torch.manual_seed(seed_of(seed, "init"))
        model = MultimodalEncoder(
            {name: nn.Linear(bits, dim) for name in names},
            dim=dim,
            normalization=loss.normalization,
            logit_scale_init=loss.initial_logit_scale(dim, variables) if logit_scale_init is None else logit_scale_init,
            placeholders=names if missing else (),
        )
        optimizer = torch.optim.AdamW(
            parameter_groups([model, loss], weight_decay=weight_decay, decay_all=decay_all), lr=lr
        )
        both = nn.ModuleList([model, loss])
        best_loss, best_epoch, best = math.inf, 0, copy.deepcopy(both.state_dict())
        for step, draw in enumerate(order):
            if step % order.steps == 0:
                begin_item()  # a worker's time is counted anew for each epoch
            optimisation_step(
                model=model,
                objective=loss,
                optimizer=optimizer,
                batch=training.batch(draw.rows),
                prepare=inputs,
                ranks=ALONE,
                size=order.size(step),
                embed_chunk=None,
                place=f"epoch {draw.epoch + 1} of p = {p}",
                seed=seed,
                step=step,
                autocast=None,
                clip_norm=None,
            )
            if (step + 1) % order.steps == 0:
                loss_now = _loss(model, loss, validation, batch_size=batch_size, seed=seed)
                if loss_now < best_loss:
                    best_loss, best_epoch, best = loss_now, draw.epoch + 1, copy.deepcopy(both.state_dict())
        both.load_state_dict(best)
        complete = draw_samples(test, **shape, missing=0.0, split="test")
        found = correct(model, loss, complete, bits=bits, target=target)
    return Trained(best_epoch=best_epoch, val_loss=best_loss, scale=float(model.scale.detach()), correct=found)


@torch.inference_mode()
def _loss(model: MultimodalEncoder, objective: Objective, samples: XorSamples, *, batch_size: int, seed: int) -> float:
    """Mean over samples, on the same negatives every time."""
    n = len(next(iter(samples.values.values())))
    generator = torch.Generator().manual_seed(seed_of(seed, "validation negatives"))
    total = 0.0
    for rows in np.array_split(np.arange(n), math.ceil(n / batch_size)):
        batch = samples.batch(rows)
        embeddings = model(inputs(batch), batch.present)
        total += len(rows) * float(objective.loss(embeddings, model.scale, present=batch.present, generator=generator))
    return total / n


@torch.inference_mode()
def correct(
    model: MultimodalEncoder, objective: Objective, samples: XorSamples, *, bits: int, target: str
) -> NDArray[np.float64]:
    """(n,) probability that the target's own vector is first among all vectors, in float64."""
    rows = np.arange(len(samples.values[target]))
    embeddings = model(inputs(samples.batch(rows)))
    queries = {name: embedding.double() for name, embedding in embeddings.items() if name != target}
    candidates = model.encode(target, torch.from_numpy(all_vectors(bits)).float()).double()
    # Equal candidates get equal scores to the last bit: each distinct one is scored once.
    distinct, which = torch.unique(candidates, dim=0, return_inverse=True)
    scorer = copy.deepcopy(objective).double().eval()
    scores = scorer.score(queries, distinct, target=target)[:, which].numpy()
    # Candidate j of a sample becomes column j XOR its own index, which puts the true one first.
    columns = np.arange(2**bits)[None, :] ^ index_of(samples.values[target])[:, None]
    return rank(np.take_along_axis(scores, columns, axis=1)).recall_at(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
