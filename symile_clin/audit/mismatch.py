"""Possible mix-ups: samples whose own modalities fit each other worse than those of different patients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import CohortError
from symile_clin.evaluation.absence import StandIns
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.scoring import Scorer
from symile_clin.objectives.base import Objective

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Mismatch:
    """How badly the modalities of each sample fit each other, from k sides.

    Attributes:
        names: the k modalities.
        share: (n, k) share of other patients' embeddings that score better in the place of the sample's own, equal ones
            counted half: 0, the own one beats all; 1, all others beat it. NaN where the modality is absent, or stands
            alone.
        evidence: (n, k) by how many nats it is likelier that the modality is of another patient than that it is the
            sample's own: log of the mean over those embeddings of exp(scale · (their score − the own one's)).
    """

    names: tuple[str, ...]
    share: Values
    evidence: Values

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(n,) which samples have at least two modalities, so that there is something to compare."""
        scored: NDArray[np.bool_] = ~np.isnan(self.mean_share)
        return scored

    @cached_property
    def mean_share(self) -> Values:
        """(n,) mean of `share` over the modalities that the sample has: what possible mix-ups are sorted by."""
        return _mean(self.share)

    @cached_property
    def mean_evidence(self) -> Values:
        """(n,) mean of `evidence` over the modalities that the sample has, in nats."""
        return _mean(self.evidence)

    @cached_property
    def suspicion(self) -> Values:
        """(n, k) chance that each modality is the wrong one, given that exactly one is, all equally likely beforehand.

        NaN where a sample has fewer than three: two tell that they do not belong together, but not which is wrong.
        """
        told = (~np.isnan(self.evidence)).sum(axis=1, keepdims=True) >= 3
        largest = np.where(told, np.fmax.reduce(self.evidence, axis=1, keepdims=True), np.nan)
        odds = np.exp(self.evidence - largest)
        chance: Values = odds / np.nansum(odds, axis=1, keepdims=True)
        return chance


def mismatch(
    *,
    objective: Objective,
    encoded: Embedded,
    patients: NDArray[np.int64],
    scale: float,
    stand_ins: StandIns | None,
) -> Mismatch:
    """Score each modality of each sample, given its others, against that of all samples of other patients.

    One modality and a bounded number of samples at a time; there is never a table of all against all.

    Args:
        objective: the one that the embeddings were trained with.
        encoded: embeddings of the n samples of a split.
        patients: (n,) whose each sample is.
        scale: exp of the model's learned log scale.
        stand_ins: for modalities that samples lack; may be left out where none lacks anything.

    Raises:
        CohortError: all samples that have a modality are of one patient.
        TrainingError: a score is not finite.
    """
    names = tuple(encoded.present)
    there = np.stack([encoded.present[name] for name in names], axis=1)
    share, evidence = np.full(there.shape, np.nan), np.full(there.shape, np.nan)
    for column, name in enumerate(names):
        candidates = np.flatnonzero(there[:, column])
        queries = np.flatnonzero(there[:, column] & (there.sum(axis=1) >= 2))
        if not len(queries):
            continue
        if len(np.unique(patients[candidates])) < 2:
            raise CohortError(
                f"all samples that have {name} are of one patient",
                expected="other patients, whose samples could have been mixed up with them",
                remedy="Audit a larger split",
            )
        scorer = Scorer(
            objective=objective,
            encoded=encoded,
            target=name,
            queries=queries,
            candidates=candidates,
            stand_ins=stand_ins,
        )
        own_vector = scorer.vector_of[np.searchsorted(candidates, queries)]
        for table in scorer.tables():
            asked = queries[table.queries]
            own = np.take_along_axis(table.scores, own_vector[table.queries][:, None], axis=1)
            gain = table.scores[:, scorer.vector_of] - own  # of each candidate over the sample's own
            other = patients[candidates] != patients[asked][:, None]
            share[asked, column] = _share(gain, other)
            evidence[asked, column] = _log_mean_exp(scale * gain, other)
    return Mismatch(names, share, evidence)


def _share(gain: Values, counted: NDArray[np.bool_]) -> Values:
    better, level = ((gain > 0) & counted).sum(axis=1), ((gain == 0) & counted).sum(axis=1)
    share: Values = (better + level / 2) / counted.sum(axis=1)
    return share


def _log_mean_exp(values: Values, counted: NDArray[np.bool_]) -> Values:
    values = np.where(counted, values, -np.inf)
    largest = values.max(axis=1)
    mean: Values = largest + np.log(np.exp(values - largest[:, None]).sum(axis=1) / counted.sum(axis=1))
    return mean


def _mean(values: Values) -> Values:
    counts = (~np.isnan(values)).sum(axis=1)
    mean: Values = np.full(len(values), np.nan)
    np.divide(np.nansum(values, axis=1), counts, out=mean, where=counts > 0)
    return mean
