"""What a trained model shows that modalities tell about each other, on samples it never saw, in nats."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.errors import CohortError
from symile_clin.evaluation.bootstrap import Interval, bootstrap_interval
from symile_clin.evaluation.contrasts import (
    Contrast,
    Critic,
    Sample,
    Terms,
    best_scale,
    difference,
    exhaustive_terms,
    joint_information,
    pair_information,
    terms,
    total_correlation,
)
from symile_clin.evaluation.critics import SeparableCritic, fit
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.estimators import info_nce
from symile_clin.evaluation.measures import patient_stream
from symile_clin.objectives.base import Objective
from symile_clin.rng import stream

Kind = Literal["lower bound", "estimate"]
Pair = tuple[str, str]
PairScores = Callable[[Tensor, Tensor], Tensor]

#: Draws of samples and negatives that are averaged.
DRAWS: Final = 32
#: Draws by which a scale is chosen.
SCALE_DRAWS: Final = 4
#: A value above this share of its cap says little about how much more there is.
SATURATED: Final = 0.9
#: With fewer samples of train or calibration no critic of pairs is fitted.
MIN_SAMPLES: Final = 32


@dataclass(frozen=True)
class Encoded:
    """A split's embeddings.

    Attributes:
        subjects: (n,) the patient of each sample.
    """

    embedded: Embedded
    subjects: NDArray[Any]

    def having(self, names: Sequence[str]) -> Sample:
        """The samples that have all of these modalities, and of their embeddings these."""
        here = np.logical_and.reduce([self.embedded.present[name] for name in names])
        chosen = {name: torch.from_numpy(self.embedded.embeddings[name][here]) for name in names}
        return Sample(embeddings=chosen, subjects=self.subjects[here])


@dataclass(frozen=True)
class Quantity:
    """One row of the report, in nats.

    Attributes:
        key: its name in the metrics, without its kind.
        label: its name for a reader.
        kind: what the value is to the truth.
        interval: over resamples of patients, given the critic and the draws of negatives.
        n: candidates of an anchor; None for a difference of such quantities, which has no cap.
        samples, patients: with all modalities concerned.
        left_out: samples without one of them.
        draws_se: standard error left from drawing samples and negatives; None if they were drawn once.
    """

    key: str
    label: str
    kind: Kind
    interval: Interval
    n: int | None
    samples: int
    patients: int
    left_out: int
    draws_se: float | None

    @property
    def cap(self) -> float | None:
        """log n, which the value cannot exceed."""
        return None if self.n is None else math.log(self.n)

    @property
    def saturated(self) -> bool:
        """Whether the value is so near its cap that the truth may be far above."""
        return self.cap is not None and self.interval.estimate > SATURATED * self.cap


def measure(
    *,
    held_out: Encoded,
    calibration: Encoded | None,
    train: Encoded,
    objective: Objective,
    scale: float,
    seed: int,
) -> list[Quantity]:
    """Every row of the report.

    Args:
        held_out: samples that neither trained nor chose anything.
        calibration: samples that did not train; critics are scaled and chosen by them. None where `held_out` are the
            ones that chose the checkpoint: they then take this part, too, and every row is an estimate, none a bound.
        train: samples that critics of pairs are fitted to.
        objective: the one that the model was trained with; its score is the critic.
        scale: exp of the model's learned log scale.

    Raises:
        CohortError: too few patients to contrast.
    """
    names = tuple(held_out.embedded.embeddings)
    complete = held_out.having(names)
    if complete.patients < max(2, len(names)):
        raise CohortError(
            f"{complete.patients} patients of the split have every modality",
            expected=f"at least {max(2, len(names))}",
            remedy="Take a larger cohort",
        )
    report = _Report(
        held_out=held_out,
        calibration=held_out if calibration is None else calibration,
        train=train,
        critic=critic_of(objective),
        scale=scale,
        bound="estimate" if calibration is None else "lower bound",
        seed=seed,
    )
    return report.quantities(names, complete)


def critic_of(objective: Objective) -> Critic:
    """An objective's own score, without the scale, as a critic."""
    scorer = copy.deepcopy(objective).cpu().eval()

    def critic(queries: Mapping[str, Tensor], candidates: Tensor, target: str) -> Tensor:
        with torch.inference_mode():
            return scorer.score(queries, candidates, target=target)

    return critic


@final
@dataclass(frozen=True, kw_only=True)
class _Report:
    """What the rows share; see `measure`."""

    held_out: Encoded
    calibration: Encoded
    train: Encoded
    critic: Critic
    scale: float
    bound: Kind
    seed: int

    def quantities(self, names: tuple[str, ...], complete: Sample) -> list[Quantity]:
        rows = self._total_correlation(names, complete)
        of_pair = {pair: self._pair_contrast(pair) for pair in combinations(names, 2)}
        joint = {name: self._joint(name, names, complete) for name in names if len(names) > 2}
        for name, found in joint.items():
            others = ", ".join(other for other in names if other != name)
            rows.append(self._row(f"joint/{name}", f"I({name}; {others})", self.bound, found, complete))
        for pair, (contrast_of, scale) in of_pair.items():
            sample = self.held_out.having(pair)
            found = self._terms(contrast_of(sample), sample, scale)
            key = f"pair/{'+'.join(sorted(pair))}"
            rows.append(self._row(key, f"I({pair[0]}; {pair[1]})", self.bound, found, sample))
        for name, found in joint.items():
            parts = [
                self._terms(contrast_of(complete), complete, scale)
                for pair, (contrast_of, scale) in of_pair.items()
                if name in pair
            ]
            synergy = difference(found, parts)
            rows.append(
                self._row(f"synergy/{name}", f"synergy about {name}", "estimate", synergy, complete, capped=False)
            )
        return rows

    def _total_correlation(self, names: tuple[str, ...], complete: Sample) -> list[Quantity]:
        def contrast_of(sample: Sample) -> Contrast:
            return total_correlation(sample, self.critic)

        contrast, (fitted, _) = contrast_of(complete), self._best_scale(contrast_of, names, self.scale)
        rng = stream(self.seed, "information", "exhaustive")
        key, label = "total_correlation", f"TC({', '.join(names)})"
        found = {
            (key, label, self.bound): self._terms(contrast, complete, fitted),
            (f"{key}_as_trained", "TC, scale as trained", self.bound): self._terms(contrast, complete, self.scale),
            (f"{key}_exhaustive", "TC, all tuples of a batch", "estimate"): exhaustive_terms(
                complete, self.critic, scale=fitted, rng=rng
            ),
        }
        return [self._row(key, label, kind, one, complete) for (key, label, kind), one in found.items()]

    def _joint(self, target: str, names: tuple[str, ...], complete: Sample) -> Terms:
        def contrast_of(sample: Sample) -> Contrast:
            return joint_information(sample, self.critic, target)

        scale, _ = self._best_scale(contrast_of, names, self.scale)
        return self._terms(contrast_of(complete), complete, scale)

    def _pair_contrast(self, pair: Pair) -> tuple[Callable[[Sample], Contrast], float]:
        """How a pair is contrasted: by the inner product of its embeddings, or by a critic fitted to the train split's.

        The one with the larger bound on the calibration samples; with its scale there.
        """
        candidates: list[tuple[PairScores, float]] = [(lambda x, y: x @ y.T, self.scale)]
        train, stop = self.train.having(pair), self.calibration.having(pair)
        if min(len(train.subjects), len(stop.subjects)) >= MIN_SAMPLES:
            candidates.append((_fit_pair_scores(train, stop, pair, self.seed), 1.0))
        found = []
        for scores, start in candidates:

            def contrast_of(sample: Sample, scores: PairScores = scores) -> Contrast:
                return pair_information(sample.embeddings[pair[0]], sample.embeddings[pair[1]], scores)

            scale, bound = self._best_scale(contrast_of, pair, start)
            found.append((bound, contrast_of, scale))
        _, best, scale = max(found, key=lambda one: one[0])
        return best, scale

    def _best_scale(
        self, contrast_of: Callable[[Sample], Contrast], names: Sequence[str], start: float
    ) -> tuple[float, float]:
        sample = self.calibration.having(names)
        if sample.patients < max(2, len(names)):
            return start, -math.inf
        rng = stream(self.seed, "information", "scale")
        return best_scale(contrast_of(sample), sample.subjects, start=start, draws=SCALE_DRAWS, rng=rng)

    def _terms(self, contrast: Contrast, sample: Sample, scale: float) -> Terms:
        # The same draws for every quantity, so that a difference of two is over the same samples.
        rng = stream(self.seed, "information", "draws")
        return terms(contrast, sample.subjects, scale=scale, draws=DRAWS, rng=rng)

    def _row(self, key: str, label: str, kind: Kind, found: Terms, sample: Sample, *, capped: bool = True) -> Quantity:
        patients = np.arange(len(found.values))
        return Quantity(
            key=key,
            label=label,
            kind=kind,
            interval=bootstrap_interval(found.values, patients, rng=patient_stream(self.seed)),
            n=found.n if capped else None,
            samples=len(sample.subjects),
            patients=len(patients),
            left_out=len(self.held_out.subjects) - len(sample.subjects),
            draws_se=found.draws_se,
        )


def _fit_pair_scores(train: Sample, stop: Sample, pair: Pair, seed: int) -> PairScores:
    def vectors(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return sample.embeddings[pair[0]].numpy(), sample.embeddings[pair[1]].numpy()

    module = fit(
        lambda x, y: SeparableCritic(x, y, rank=16, hidden=0),
        lambda scores: -info_nce(scores),
        train=vectors(train),
        stop=vectors(stop),
        batch_size=256,
        seed=seed,
    )

    def scores(x: Tensor, y: Tensor) -> Tensor:
        with torch.inference_mode():
            matrix: Tensor = module(x, y)
            return matrix

    return scores
