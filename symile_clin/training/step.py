"""One optimisation step: forward, loss, backward, clip, update.

The loss is taken on embeddings that are cut off from the encoders' graph, and their gradient is handed to the encoders
afterwards. So it does not matter where they come from: other processes, or chunks that are encoded once more for their
gradient (gradient caching: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", RepL4NLP 2021, arXiv 2101.06983).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from symile_clin.data.dataset import Batch
from symile_clin.errors import TrainingError
from symile_clin.evaluation.embed import shown_rows
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.ranks import ALONE, Ranks
from symile_clin.rng import seed_of
from symile_clin.training.distributed import sum_gradients


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
    """Update the model and the objective on one batch; on all processes alike.

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
        The whole batch's loss, in nats.

    Raises:
        TrainingError: the loss or gradient is not finite, and no weight was updated; or what was updated is not.
        WorkerError: another process has ended.
    """
    optimizer.zero_grad(set_to_none=True)
    # cut evenly, as the order cuts an epoch: a last part of one sample would have no batch statistics
    sizes = [
        len(rows) for rows in np.array_split(range(len(batch)), math.ceil(len(batch) / (embed_chunk or len(batch))))
    ]
    parts = [batch.part(end - rows, end) for rows, end in zip(sizes, accumulate(sizes), strict=True)]

    def encode(number: int) -> dict[str, Tensor]:
        """The same numbers each time: every part of every process has a stream of dropout of its own."""
        own = () if ranks.is_first and number == 0 else (ranks.rank, number)
        torch.manual_seed(seed_of(seed, "dropout", step, *own))
        # Entered anew: until it is left, autocast keeps the weights it has cast, a first pass those without gradient.
        with torch.autocast(model.logit_scale.device.type, dtype=autocast, enabled=autocast is not None):
            embeddings = model(prepare(parts[number]), parts[number].present)
        return {name: embedding.to(model.logit_scale.dtype) for name, embedding in embeddings.items()}

    if len(parts) == 1:
        encoded = [encode(0)]
    else:
        with torch.no_grad(), _unchanged_buffers(model):
            encoded = [encode(number) for number in range(len(parts))]
    whole = {
        name: ranks.gather(torch.cat([one[name].detach() for one in encoded]), size).requires_grad_()
        for name in encoded[0]
    }
    present = {name: ranks.gather(here, size) for name, here in batch.present.items()}
    generator = torch.Generator().manual_seed(seed_of(seed, "negatives", step))
    share = objective.share_of_loss(whole, model.scale, ranks=ranks, present=present, generator=generator)
    loss = float(ranks.sum(share))
    if not math.isfinite(loss):
        raise _not_finite(f"the loss is {loss}", _bad_rows(ranks.gather(batch.row, size), whole), place)
    torch.autograd.backward(share)
    gradients = {
        name: torch.split(ranks.sum(torch.zeros_like(one) if one.grad is None else one.grad)[ranks.mine(size)], sizes)
        for name, one in whole.items()
    }
    for number in range(len(parts)):
        embeddings = encoded[0] if len(parts) == 1 else encode(number)
        trained = {name: embedding for name, embedding in embeddings.items() if embedding.requires_grad}
        if trained:
            torch.autograd.backward(list(trained.values()), [gradients[name][number] for name in trained])
    parameters = [*model.parameters(), *objective.parameters()]
    sum_gradients(parameters, ranks)
    norm = _clip(parameters, clip_norm)
    if not math.isfinite(norm):
        raise _not_finite(f"the gradient's norm is {norm}", ranks.gather(batch.row, size), place)
    optimizer.step()
    if not is_finite([*parameters, *model.buffers(), *objective.buffers()], ranks):
        what = "weights or running statistics are not finite after the step"
        raise _not_finite(what, ranks.gather(batch.row, size), place)
    return loss


def is_finite(tensors: Iterable[Tensor], ranks: Ranks = ALONE) -> bool:
    """Whether all numbers are, on every process.

    A loss and a gradient may be finite that leave others behind: a variance of too large numbers is infinite, and what
    is divided by it zero.
    """
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floating:
        return True
    norm = nn.utils.get_total_norm(floating)  # 0.06 s for 60 million on one core, where AdamW's step takes 0.7 s
    return math.isfinite(float(ranks.max(norm.nan_to_num(nan=math.inf, posinf=math.inf))))


@contextmanager
def _unchanged_buffers(model: MultimodalEncoder) -> Iterator[None]:
    """Running statistics that a first pass updates are put back: the second one updates them again."""
    kept = [buffer.clone() for buffer in model.buffers()]
    yield
    for buffer, before in zip(model.buffers(), kept, strict=True):
        buffer.copy_(before)


def _clip(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = nn.utils.get_total_norm(gradients)
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return float(norm)


def _bad_rows(rows: Tensor, embeddings: Mapping[str, Tensor]) -> Tensor:
    """Rows with an embedding that is not finite; all, if it is the loss's own doing."""
    bad = torch.stack([~embedding.isfinite().all(dim=1) for embedding in embeddings.values()]).any(dim=0)
    return rows[bad] if bool(bad.any()) else rows


def _not_finite(what: str, rows: Tensor, place: str) -> TrainingError:
    return TrainingError(
        f"{what} at {place} (rows {shown_rows(rows.tolist())})",
        remedy="Lower training.lr, set training.clip_norm, or look at these rows of the cohort; "
        "an epoch that was finished before is kept in checkpoints/last",
    )
