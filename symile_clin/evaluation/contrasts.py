"""Contrasts of held-out samples whose negatives are independent draws, so that log n − loss bounds information.

A bound of the form log n − L holds if, for each anchor, the n − 1 negatives are independent draws from the product of
the marginals, independent of the anchor's own tuple. Shuffling each modality inside a batch is not quite that: a
shuffled tuple may hold the anchor's own partner, and two tuples may share a sample. Here a draw takes one random
sample of every patient and puts them on a circle in random order; an anchor's negatives are made of the samples that
follow it, none used twice. The scores of all anchors are then a band of one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.errors import CohortError

#: Score of every candidate of modality `target` for every query: ({name: (q, d)}, (c, d), target) -> (q, c).
Critic = Callable[[Mapping[str, Tensor], Tensor, str], Tensor]
Rows = NDArray[np.int64]
#: From m samples, each of another patient, to scores (m, n) of each one's candidates, the positive first; once for each
#: way to contrast them.
Contrast = Callable[[Rows], Iterator[Tensor]]

#: Patients contrasted with each other at once; more are split into groups. It bounds memory (a matrix of its square).
GROUP: Final = 2048
#: Tuples that one anchor is contrasted with in the exhaustive estimate, at most.
EXHAUSTIVE_TUPLES: Final = 1 << 14
#: Tuples scored at once there.
_CHUNK: Final = 4096


@dataclass(frozen=True)
class Sample:
    """Embeddings of samples that have all modalities concerned.

    Attributes:
        embeddings: by modality (n, d).
        subjects: (n,) the patient of each.
    """

    embeddings: Mapping[str, Tensor]
    subjects: NDArray[Any]

    @property
    def patients(self) -> int:
        """Number of patients, the units that are independent."""
        return len(np.unique(self.subjects))


@dataclass(frozen=True)
class Terms:
    """A quantity as a mean over patients.

    Attributes:
        values: (patients,) log n − loss of each patient, over draws, anchors and the patient's samples, in order of
            `np.unique`.
        n: candidates of an anchor, the positive included; the fewest if groups differ.
        by_draw: (draws,) mean over patients of each draw of samples and negatives.
    """

    values: NDArray[np.float64]
    n: int
    by_draw: NDArray[np.float64]

    @property
    def draws_se(self) -> float | None:
        """Standard error that is left from drawing samples and negatives; None if they were drawn once."""
        draws = len(self.by_draw)
        return float(self.by_draw.std(ddof=1) / math.sqrt(draws)) if draws > 1 else None

    @property
    def cap(self) -> float:
        """log n: what no value can exceed."""
        return math.log(self.n)


def difference(whole: Terms, parts: Sequence[Terms]) -> Terms:
    """One quantity less others that share its draws, so that what a draw gives to several of them counts once."""
    return Terms(
        values=whole.values - np.sum([part.values for part in parts], axis=0),
        n=whole.n,
        by_draw=whole.by_draw - np.sum([part.by_draw for part in parts], axis=0),
    )


def total_correlation(sample: Sample, critic: Critic) -> Contrast:
    """Each modality in turn as the anchor, against tuples of the others from samples that are all different.

    With m patients and k modalities there are n = 1 + (m − 1) // (k − 1) candidates.

    Source: Saporta et al., "Contrasting with Symile", NeurIPS 2024, section 3: TC >= log N − loss for each anchor and
        any critic. The mean over anchors is a bound, too.
    """
    k = len(sample.embeddings)

    def contrast(rows: Rows) -> Iterator[Tensor]:
        here = {name: tensor[rows] for name, tensor in sample.embeddings.items()}
        negatives = (len(rows) - 1) // (k - 1)
        for anchor, own in here.items():
            others = {name: tensor for name, tensor in here.items() if name != anchor}
            positive = critic(others, own, anchor).diagonal()
            apart = {
                name: tensor.roll(-block * negatives, dims=0) for block, (name, tensor) in enumerate(others.items())
            }
            yield torch.cat([positive[:, None], _following(critic(apart, own, anchor).T, negatives)], dim=1)

    return contrast


def joint_information(sample: Sample, critic: Critic, target: str) -> Contrast:
    """What all other modalities tell together of `target`: their own tuple, against every other patient's target.

    Source: van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, section 2.3.
    """

    def contrast(rows: Rows) -> Iterator[Tensor]:
        queries = {name: tensor[rows] for name, tensor in sample.embeddings.items() if name != target}
        yield _with_matches_first(critic(queries, sample.embeddings[target][rows], target))

    return contrast


def pair_information(one: Tensor, other: Tensor, critic: Callable[[Tensor, Tensor], Tensor]) -> Contrast:
    """What two modalities tell of each other, in both directions.

    Args:
        critic: (n, dx), (m, dy) -> (n, m).
    """

    def contrast(rows: Rows) -> Iterator[Tensor]:
        scores = critic(one[rows], other[rows])
        yield _with_matches_first(scores)
        yield _with_matches_first(scores.T)

    return contrast


def terms(contrast: Contrast, subjects: NDArray[Any], *, scale: float, draws: int, rng: np.random.Generator) -> Terms:
    """The bound log n − cross-entropy, term by term.

    Args:
        contrast: of rows that are one sample of each of several patients.
        subjects: (n,) the patient of each sample.
        scale: of the contrast's scores.
        draws: of samples and negatives, averaged.

    Raises:
        CohortError: too few patients to contrast anything.
    """
    patients, patient_of = np.unique(subjects, return_inverse=True)
    values = np.zeros((draws, len(patients)))
    fewest = len(patients)
    for draw in range(draws):
        for rows in _groups(draw_rows(patient_of, rng), math.ceil(len(patients) / GROUP)):
            scores = list(contrast(rows))
            fewest = min(fewest, *(one.shape[1] for one in scores))
            values[draw, patient_of[rows]] = np.mean([_log_n_minus_loss(one, scale) for one in scores], axis=0)
    if fewest < 2:
        raise CohortError(f"{len(patients)} patients are too few to contrast with each other")
    return Terms(values=values.mean(axis=0), n=fewest, by_draw=values.mean(axis=1))


def exhaustive_terms(sample: Sample, critic: Critic, *, scale: float, rng: np.random.Generator) -> Terms:
    """log n^(k−1) − cross-entropy against all tuples of a batch: an estimate, for its tuples share samples.

    Batches are as large as EXHAUSTIVE_TUPLES allows; the cap is that of the smallest batch.
    """
    patients, patient_of = np.unique(sample.subjects, return_inverse=True)
    k = len(sample.embeddings)
    size = min(len(patients), int(EXHAUSTIVE_TUPLES ** (1 / (k - 1)) + 1e-9))
    values = np.zeros(len(patients))
    tuples = size ** (k - 1)
    for rows in _groups(draw_rows(patient_of, rng), math.ceil(len(patients) / size)):
        here = {name: tensor[rows] for name, tensor in sample.embeddings.items()}
        loss = torch.stack([_exhaustive_loss(here, critic, anchor, scale) for anchor in here]).mean(dim=0)
        tuples = min(tuples, len(rows) ** (k - 1))
        values[patient_of[rows]] = (k - 1) * math.log(len(rows)) - loss.numpy()
    return Terms(values=values, n=tuples, by_draw=values.mean(keepdims=True))


def draw_rows(patient_of: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    """One random sample of every patient, in random order."""
    order = rng.permutation(len(patient_of))
    _, first = np.unique(patient_of[order], return_index=True)
    return rng.permutation(order[first])


def best_scale(
    contrast: Contrast, subjects: NDArray[Any], *, start: float, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The scale at which the bound is largest, and the bound there; 0, which bounds nothing, is among those tried.

    A critic that was overconfident on its training samples gives a negative bound on others; a smaller scale, chosen on
    samples that the bound is not reported on, repairs it.

    Args:
        start: the scales tried are 0 and `start` times powers of sqrt(2) between 2^-10 and 2^4.
    """
    _, patient_of = np.unique(subjects, return_inverse=True)
    drawn = [draw_rows(patient_of, rng) for _ in range(draws)]
    groups = [rows for one in drawn for rows in _groups(one, math.ceil(len(one) / GROUP))]
    scores = [tensor for rows in groups for tensor in contrast(rows)]
    tried = [0.0, *(start * 2.0 ** (power / 2) for power in range(-20, 9))]
    bounds = [np.mean(np.concatenate([_log_n_minus_loss(one, scale) for one in scores])) for scale in tried]
    best = int(np.argmax(bounds))
    return tried[best], float(bounds[best])


def _log_n_minus_loss(scores: Tensor, scale: float) -> NDArray[np.float64]:
    """Terms (m,) of scores (m, n) whose first column holds the positives."""
    logits = scores.double() * scale
    return (math.log(scores.shape[1]) + logits[:, 0] - torch.logsumexp(logits, dim=1)).numpy()


def _following(matrix: Tensor, count: int) -> Tensor:
    """Of each row i of a square matrix the entries i + 1 ... i + count, around the end."""
    start = torch.arange(len(matrix))[:, None]
    return matrix.gather(1, (start + 1 + torch.arange(count)) % len(matrix))


def _with_matches_first(matrix: Tensor) -> Tensor:
    return torch.cat([matrix.diagonal()[:, None], _following(matrix, len(matrix) - 1)], dim=1)


def _groups(rows: Rows, count: int) -> list[Rows]:
    return np.array_split(rows, count)


def _exhaustive_loss(here: Mapping[str, Tensor], critic: Critic, anchor: str, scale: float) -> Tensor:
    """Cross-entropies (b,) of one anchor against all b^(k−1) tuples of the others."""
    own = here[anchor]
    others = {name: tensor for name, tensor in here.items() if name != anchor}
    indices = torch.tensor(list(product(range(len(own)), repeat=len(others))))
    sums = []
    for part in torch.split(indices, _CHUNK):
        tuples = {name: tensor[part[:, block]] for block, (name, tensor) in enumerate(others.items())}
        sums.append(torch.logsumexp(critic(tuples, own, anchor).double() * scale, dim=0))
    positive = critic(others, own, anchor).diagonal().double() * scale
    return torch.logsumexp(torch.stack(sums), dim=0) - positive
