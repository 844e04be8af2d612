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
) -> Validation:
    """Encode the validation split once, in float32, and judge it.

    Raises:
        CohortError: fewer than two samples have all that the model needs.
        TrainingError: an embedding or score is not finite.
    """
    encoded = embed(model=model, dataset=dataset, batch_size=batch_size, device=device)
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
    scores = score_lists(
        objective, encoded.embeddings, dataset.rows, candidates, target, present=encoded.present, stand_ins=absent
    )
    return Validation(
        loss=_loss(model, objective, encoded, complete, batch_size=batch_size, device=device),
        recall_at_1=float(rank(scores).recall_at(1).mean()),
    )


def _loss(
    model: MultimodalEncoder,
    objective: Objective,
    encoded: Embedded,
    complete: NDArray[np.bool_],
    *,
    batch_size: int,
    device: torch.device,
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
            total += len(batch) * float(objective.loss(tensors, model.scale, present=here, generator=generator))
    return total / len(order)
