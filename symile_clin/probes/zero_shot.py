"""Which findings the other modalities retrieve: what the best candidates of a query have in common with it.

Asked as `eval` asks by default, over the whole split: every sample's other modalities rank the targets of all other
patients. Its own target and those of its patient's other samples are left out, for they would show its finding whatever
the model had learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.evaluation.bootstrap import Interval, PatientResamples
from symile_clin.evaluation.scoring import Scorer
from symile_clin.probes.policy import States
from symile_clin.progress import Progress

Values = NDArray[np.float64]
#: Best candidates that are looked at.
TOP: Final = 10
MEASURES: Final = ("precision", "prevalence", "auroc")


@dataclass(frozen=True)
class Retrieved:
    """What queries retrieved, finding by finding.

    Attributes:
        values: (3, q, findings) MEASURES of each query: the share of its first TOP candidates that have the finding,
            the share of all its candidates that have it, and the probability that a candidate with the finding stands
            above one without; each the expectation over random order of equal scores, NaN where the candidates cannot
            tell. A candidate whose state is left out by the policy is none.
        labels: (q, findings) of the queries themselves.
        patient: (q,)
    """

    values: Values
    labels: States
    patient: NDArray[np.int64]

    def among(self, n: int, places: NDArray[np.int64]) -> Retrieved:
        """The same, as if `n` samples were queries, of which these stand at `places` and the others found nothing."""
        values, labels = (
            np.full((len(MEASURES), n, self.labels.shape[1]), np.nan),
            np.full((n, self.labels.shape[1]), np.nan),
        )
        patient = np.full(n, -1, dtype=np.int64)
        values[:, places], labels[places], patient[places] = self.values, self.labels, self.patient
        return Retrieved(values=values, labels=labels, patient=patient)


def retrieve(scorer: Scorer, labels: States, patient: NDArray[np.int64], *, progress: Progress) -> Retrieved:
    """Rank all candidates of other patients for every query.

    Args:
        scorer: whose queries and candidates are the same n samples, in order.
        labels: (n, findings) of these samples.
        patient: (n,) their patients.
    """
    values = np.full((len(MEASURES), *labels.shape), np.nan)
    with progress.track("retrieving findings", len(patient)) as advance:
        for table in scorer.tables():
            scores = table.scores[:, np.searchsorted(table.vectors, scorer.vector_of)]
            others = patient[None, :] != patient[table.queries, None]
            values[:, table.queries] = measure(scores, labels, others)
            advance(len(table.queries))
    return Retrieved(values=values, labels=labels, patient=patient)


def measure(scores: Values, labels: States, others: NDArray[np.bool_]) -> Values:
    """(3, b, findings) MEASURES, see `Retrieved`.

    Args:
        scores: (b, c) larger is better.
        labels: (c, findings) of the candidates: 1, 0, or NaN for left out.
        others: (b, c) which candidates each query may find.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    start, end = _tied(np.take_along_axis(scores, order, axis=1))
    allowed = np.take_along_axis(others, order, axis=1)
    found = np.full((len(MEASURES), len(scores), labels.shape[1]), np.nan)
    for column, label in enumerate(labels.T):
        has = label[order] == 1
        with_it, without = (allowed & has).astype(np.float64), (allowed & (label[order] == 0)).astype(np.float64)
        total_with, total = with_it.sum(axis=1), (with_it + without).sum(axis=1)
        before = _before(with_it + without)
        above, level = np.take_along_axis(before, start, 1), np.take_along_axis(before, end, 1)
        # of m candidates level with each other, a above them, the first k hold each with probability (k − a) / m
        among = np.divide(TOP - above, level - above, out=np.zeros_like(with_it), where=level > above)
        hits = (with_it * np.clip(among, 0.0, 1.0)).sum(axis=1)
        found[0, :, column] = _ratio(hits, np.minimum(TOP, total))
        found[1, :, column] = _ratio(total_with, total)
        lost = _before(without)  # candidates without the finding that stand above
        lost = (np.take_along_axis(lost, start, 1) + np.take_along_axis(lost, end, 1)) / 2
        pairs = total_with * (total - total_with)
        found[2, :, column] = 1 - _ratio((with_it * lost).sum(axis=1), pairs)
    return found


@dataclass(frozen=True)
class Lift:
    """How well one finding is retrieved, with intervals over patients of the queries, given the candidates.

    Attributes:
        queries, patients: that have the finding themselves.
        precision: mean share of their first TOP candidates that have it, too.
        prevalence: mean share of all their candidates that have it: precision by chance.
        lift: precision / prevalence.
        auroc: mean probability, over these queries, that a candidate with the finding stands above one without.
        precision_without, auroc_without: the same over queries that do not have the finding. Candidates that everybody
            is shown first raise both alike.
        precision_contrast, auroc_contrast: the differences; 0 where what is retrieved does not depend on who asks.
    """

    finding: str
    queries: int
    patients: int
    prevalence: float
    precision: Interval
    precision_without: Interval
    precision_contrast: Interval
    lift: Interval
    auroc: Interval
    auroc_without: Interval
    auroc_contrast: Interval


def lifts(found: Retrieved, names: Sequence[str], resamples: PatientResamples) -> list[Lift]:
    """One for each finding that some query has, some lacks, and candidates can tell.

    Args:
        names: of the findings of `found`.
        resamples: of the patients of its queries.
    """
    made = []
    for column, name in enumerate(names):
        values, label = found.values[:, :, column], found.labels[:, column]
        told = ~np.isnan(values).any(axis=0)
        has, lacks = told & (label == 1), told & (label == 0)
        if not has.any() or not lacks.any():
            continue
        precision, prevalence, auroc = np.where(told, values, 0.0)
        columns = np.column_stack(
            [has, precision * has, prevalence * has, auroc * has, lacks, precision * lacks, auroc * lacks]
        )
        measures = _measures(columns.sum(axis=0, keepdims=True))[:, 0]
        low, high = np.nanquantile(_measures(resamples.totals(columns)), (0.025, 0.975), axis=1)
        intervals = [Interval(*map(float, one)) for one in zip(measures, low, high, strict=True)]
        made.append(
            Lift(
                name,
                int(has.sum()),
                len(np.unique(found.patient[has])),
                float(prevalence[has].mean()),
                *intervals,
            )
        )
    return made


def _measures(totals: Values) -> Values:
    """(7, b) in the order of `Lift`: precision of queries with the finding, of those without, their difference, lift,
    AUROC of either, their difference; NaN where a resample has none of either."""
    having, precision, prevalence, auroc, lacking, precision_without, auroc_without = totals.T
    found = []
    for own, other in ((precision, precision_without), (auroc, auroc_without)):
        with_it, without = _ratio(own, having), _ratio(other, lacking)
        found.append([with_it, without, with_it - without])
    return np.stack([*found[0], _ratio(precision, prevalence), *found[1]])


def _tied(scores: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(b, c) where the run of scores equal to each begins, and where it has ended, in rows that are sorted."""
    place = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    edge = np.ones((len(scores), scores.shape[1] + 1), dtype=np.bool_)
    edge[:, 1:-1] = scores[:, 1:] != scores[:, :-1]
    start = np.maximum.accumulate(np.where(edge[:, :-1], place, 0), axis=1)
    last = np.where(edge[:, 1:], place + 1, scores.shape[1])
    end = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    return start, end


def _before(values: Values) -> Values:
    """(b, c + 1) sums of all values before each place."""
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _ratio(upper: Values, lower: Values) -> Values:
    return np.divide(upper, lower, out=np.full_like(lower, np.nan), where=lower > 0)
