"""What a sample's score hangs on: its own input, one modality at a time.

Where a room names a layer, relevance is the gradient of the score at each feature map times the map, summed over
channels, place by place: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017) without its average of gradients over places (Draelos and Carin, "Use HiResCAM
instead of Grad-CAM for faithful explanations of convolutional neural networks", arXiv 2011.08891). Where the layer is
followed by a global average, as the last one of a ResNet, gradients are the same at all places and the two are one.

Where a room can take things away, relevance is the score minus that of the sample without the thing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.data.dataset import Batch, CohortDataset
from symile_clin.data.store import Cohort, Rows
from symile_clin.errors import MismatchError
from symile_clin.modalities.attribution import ByLayer
from symile_clin.modalities.base import Arrays, Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.schema import present_column

#: Share of the score below which relevance is the rounding of float32 encoders, and counts as none.
ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class Relevance:
    """What a score hangs on in one modality of one sample.

    Attributes:
        values: of each place of the layer, or each thing taken away, in units of the score; positive where it raises
            the score, and all 0 where the score does not answer to the input.
        names: of what was taken away, in the order of `values`; empty where places are meant.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attributed:
    """One sample's score, traced back.

    Attributes:
        score: the objective's, of the sample's own target given its other modalities.
        relevance: by modality; only those that the sample has and whose rooms can tell.
    """

    row: int
    score: float
    relevance: Mapping[str, Relevance]


def explainable(cohort: Cohort, rows: Rows, *, model: MultimodalEncoder, names: Sequence[str], target: str) -> Rows:
    """Those of `rows` that can be scored: they have the target, and all that the model has no placeholder for."""
    needed = [name for name in names if name == target or name not in model.placeholders]
    there = cohort.samples[[present_column(name) for name in needed]].to_numpy(dtype=np.bool_)[rows]
    return rows[there.all(axis=1)]


def attribute(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    rows: Sequence[int],
    target: str,
    device: torch.device | str,
) -> list[Attributed]:
    """Trace the score of each sample's own target back to all of its modalities.

    The model is left as it was: its mode, its parameters' gradients, its batch statistics, its layers' hooks.

    Args:
        model: on `device`; its training mode is left as it was.
        objective: the one that the model was trained with.
        rows: samples, of `explainable`.

    Raises:
        MismatchError: a sample lacks the target, or a modality that the model has no placeholder for.
    """
    dataset = CohortDataset(cohort, modalities, np.asarray(rows, dtype=np.int64))
    # in float64, as candidate lists are scored
    scorer = copy.deepcopy(objective).to(device="cpu", dtype=torch.float64).eval()
    with _evaluating(model):
        return [
            _trace(dataset.fetch(np.array([row])).to(device), model, scorer, dataset, target) for row in dataset.rows
        ]


def _trace(
    batch: Batch, model: MultimodalEncoder, scorer: Objective, dataset: CohortDataset, target: str
) -> Attributed:
    inputs, row = dataset.inputs(batch), int(batch.row[0])
    with torch.no_grad():
        embeddings = {name: _double(one) for name, one in model(inputs, batch.present).items()}
    lacking = [name for name, one in embeddings.items() if not one.isfinite().all()]
    if lacking or not batch.present[target].all():
        raise MismatchError(
            f"a sample that lacks {' and '.join(lacking or [target])} has no score to be traced back",
            expected="one of those that `explainable` names",
        )
    one_sample = _OneSample(scorer, embeddings, {name: here.cpu() for name, here in batch.present.items()}, target)
    with torch.no_grad():
        score = float(one_sample.scores(target, embeddings[target])[0])
    found = {}
    for name, modality in dataset.modalities.items():
        if not batch.present[name].all() or modality.attribution is None:
            continue
        way = modality.attribution
        if isinstance(way, ByLayer):
            layer = way.layer(model.encoders[name])
            found[name] = _by_gradient(one_sample, model, name, inputs[name], layer)
        else:
            own = {key: array.cpu().numpy()[0] for key, array in batch.arrays[name].items()}
            others = way.without({key: own[key] for key in modality.arrays}, dataset.cohort.state(name))
            changed = _stacked(own, list(others.values()), device=batch.row.device)
            found[name] = _by_occlusion(one_sample, model, modality, changed, names=tuple(others))
    ignored = ROUNDING * abs(score)
    return Attributed(row, score, {name: _unless_rounding(one, ignored) for name, one in found.items()})


@dataclass(frozen=True)
class _OneSample:
    """A sample's score as a function of one modality's embedding, all others as they are."""

    scorer: Objective
    embeddings: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    target: str

    def scores(self, name: str, changed: Tensor) -> Tensor:
        """(m,) float64 scores with `changed` (m, d) in the place of the embedding of `name`."""
        count = 1 if name == self.target else len(changed)
        given = {**self.embeddings, name: changed}
        queries = {other: one.expand(count, -1) for other, one in given.items() if other != self.target}
        present = {other: self.present[other].expand(count) for other in queries}
        return self.scorer.score(queries, given[self.target], target=self.target, present=present).flatten()


def _by_gradient(
    sample: _OneSample, model: MultimodalEncoder, name: str, tensor: Tensor, layer: nn.Module
) -> Relevance:
    maps: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        # what follows works on a leaf: its gradient is all that is asked for, and no parameter gets one
        maps.append(output.detach().clone().requires_grad_())
        return maps[-1]

    with torch.enable_grad():
        with layer.register_forward_hook(cut):
            embedding = _double(model.encode(name, tensor))
        score = sample.scores(name, embedding).sum()
        (gradient,) = torch.autograd.grad(score, maps[-1], allow_unused=True, materialize_grads=True)
    return Relevance((gradient * maps[-1].detach()).sum(dim=1)[0].double().cpu().numpy())


def _by_occlusion(
    sample: _OneSample,
    model: MultimodalEncoder,
    modality: Modality,
    changed: Mapping[str, Tensor],
    names: tuple[str, ...],
) -> Relevance:
    if not names:
        return Relevance(np.zeros(0))
    with torch.no_grad():
        # the whole sample is encoded in the same batch, so that what changes nothing changes nothing
        encoded = _double(model.encode(modality.name, modality.to_input(changed, None)))
        scores = sample.scores(modality.name, encoded)
    return Relevance((scores[0] - scores[1:]).numpy(), names)


def _stacked(own: Arrays, others: Sequence[Arrays], *, device: torch.device) -> dict[str, Tensor]:
    """A batch of the sample as it is and then of its variants; what a variant does not hold stays as it is."""
    return {
        key: torch.from_numpy(np.stack([array, *(other.get(key, array) for other in others)])).to(device)
        for key, array in own.items()
    }


def _unless_rounding(found: Relevance, ignored: float) -> Relevance:
    if np.abs(found.values).max(initial=0) > ignored:
        return found
    return Relevance(np.zeros_like(found.values), found.names)


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(device="cpu", dtype=torch.float64)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
