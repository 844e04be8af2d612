"""One optimisation step: forward, loss, backward, clip, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from symile_clin.data.dataset import Batch
from symile_clin.errors import TrainingError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.ranks import Ranks
from symile_clin.rng import seed_of

#: Rows of a bad batch that an error shows.
ROWS_SHOWN = 10


def optimisation_step(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    prepare: Callable[[Batch], Mapping[str, Tensor]],
    ranks: Ranks,
    size: int,
    embed_chunk: int | None,
    place: str,
    seed: int,
    step: int,
    autocast: torch.dtype | None,
    clip_norm: float | None,
) -> float:
    """Update the model and the objective on one batch.

    Only the encoders run in `autocast`'s type: products of k embeddings and their exponentials need float32.

    Args:
        batch: this process's part.
        prepare: makes encoder inputs of it.
        size: samples of the batch, of all processes together.
        embed_chunk: samples that are encoded at once, see docs/scaling.md; None: all of the part.
        place: where in the run this is, for an error.
        seed: of the run; dropout and drawn negatives follow from it and the step.
        step: 0-based, of the run.
        clip_norm: largest norm of the gradient; None does not clip.

    Returns:
        The batch's loss, in nats.

    Raises:
        TrainingError: loss or gradient is not finite; nothing was updated.
    """
    device = model.logit_scale.device.type
    torch.manual_seed(seed_of(seed, "dropout", step))
    generator = torch.Generator().manual_seed(seed_of(seed, "negatives", step))
    with torch.autocast(device, dtype=autocast, enabled=autocast is not None):
        embeddings = model(prepare(batch), batch.present)
    embeddings = {name: embedding.float() for name, embedding in embeddings.items()}
    loss = objective.loss(embeddings, model.scale, present=batch.present, generator=generator)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    norm = _clip([*model.parameters(), *objective.parameters()], clip_norm)
    value = float(loss.detach())
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise _not_finite(value, norm, batch, place)
    optimizer.step()
    return value


def _clip(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = nn.utils.get_total_norm(gradients)
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return float(norm)


def _not_finite(loss: float, norm: float, batch: Batch, place: str) -> TrainingError:
    what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
    rows = batch.row.tolist()
    shown = ", ".join(map(str, rows[:ROWS_SHOWN])) + (", ..." if len(rows) > ROWS_SHOWN else "")
    return TrainingError(
        f"{what} at {place} (rows {shown})",
        remedy="Lower training.lr, set training.clip_norm, or look at these rows of the cohort; "
        "an epoch that was finished before is kept in checkpoints/last",
    )
