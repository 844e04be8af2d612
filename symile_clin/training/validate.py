"""What an epoch is judged by: the loss on fixed negatives, and retrieval from fixed candidate lists."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.dataset import CohortDataset
from symile_clin.errors import CohortError
from symile_clin.evaluation.absence import stand_ins
from symile_clin.evaluation.embed import Embedded, embed
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.ranks import Ranks
from symile_clin.rng import seed_of, stream

#: Not the run's seed: all runs on a cohort are validated on the same batches and negatives.
VALIDATION_SEED = 0


@dataclass(frozen=True)
class Validation:
    """Figures of one epoch on the validation split.

    Attributes:
        loss: mean over samples, in nats; those are left out that lack what no training sample lacks.
        recall_at_1: share of queries whose positive is first, ties broken by expectation; all have the target.
    """

    loss: float
    recall_at_1: float


def validate(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    dataset: CohortDataset,
    candidates: CandidateLists,
    target: str,
    batch_size: int,
    device: torch.device,
    ranks: Ranks,
) -> Validation:
    """Encode the validation split once, in float32, and judge it; every process finds the same.

    Args:
        batch_size: of encoding, and of the loss's negatives.
        ranks: processes that share out the encoding and the loss.

    Raises:
        CohortError: fewer than two samples have all that the model needs.
        TrainingError: an embedding or score is not finite.
    """
    encoded = _encoded(model, dataset, batch_size=batch_size, device=device, ranks=ranks)
    complete = np.ones(len(dataset), dtype=np.bool_)
    for name, here in encoded.present.items():
        if name not in model.placeholders:
            complete &= here
    absent = stand_ins(
        model=model,
        names=[name for name, here in encoded.present.items() if name != target and not here.all()],
        cohort=dataset.cohort,
        modalities=dataset.modalities,
        batch_size=batch_size,
        device=device,
    )

    def recall_at_1() -> float:
        scores = score_lists(
            objective, encoded.embeddings, dataset.rows, candidates, target, present=encoded.present, stand_ins=absent
        )
        return float(rank(scores).recall_at(1).mean())

    return Validation(
        loss=_loss(model, objective, encoded, complete, batch_size=batch_size, device=device, ranks=ranks),
        recall_at_1=ranks.first(recall_at_1),
    )


def _encoded(
    model: MultimodalEncoder, dataset: CohortDataset, *, batch_size: int, device: torch.device, ranks: Ranks
) -> Embedded:
    """All of the split, each process having encoded its part."""
    n = len(dataset)
    if n < ranks.size:
        return embed(model=model, dataset=dataset, batch_size=batch_size, device=device, rows=dataset.rows)
    part = CohortDataset(dataset.cohort, dataset.modalities, dataset.rows[ranks.mine(n)])
    own = embed(model=model, dataset=part, batch_size=batch_size, device=device, rows=part.rows)
    return Embedded(
        embeddings={name: ranks.gather(torch.from_numpy(rows), n).numpy() for name, rows in own.embeddings.items()},
        present={name: ranks.gather(torch.from_numpy(rows), n).numpy() for name, rows in own.present.items()},
    )


def _loss(
    model: MultimodalEncoder,
    objective: Objective,
    encoded: Embedded,
    complete: NDArray[np.bool_],
    *,
    batch_size: int,
    device: torch.device,
    ranks: Ranks,
) -> float:
    """Mean over `complete` samples: what another lacks, the model has no embedding for."""
    order = stream(VALIDATION_SEED, "validation order").permutation(len(complete))
    order = order[complete[order]]
    if len(order) < 2:
        raise CohortError(
            f"{len(order):,} validation samples have all that every training sample has: too few for a loss",
            remedy="Name these modalities in the cohort's `require`, or use larger splits",
        )
    generator = torch.Generator().manual_seed(seed_of(VALIDATION_SEED, "validation negatives"))
    total = 0.0
    with torch.inference_mode():
        for batch in np.array_split(order, math.ceil(len(order) / batch_size)):
            tensors = {name: torch.from_numpy(array[batch]).to(device) for name, array in encoded.embeddings.items()}
            here = {name: torch.from_numpy(array[batch]).to(device) for name, array in encoded.present.items()}
            share = objective.share_of_loss(tensors, model.scale, ranks=ranks, present=here, generator=generator)
            total += len(batch) * float(ranks.sum(share))
    return total / len(order)
