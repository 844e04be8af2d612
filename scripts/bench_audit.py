"""How well `symile-clin audit` finds mix-ups and faulty inputs that are planted in a synthetic cohort.

    python scripts/bench_audit.py [DEMO] [--plantings 20] [--resamples 2000]

DEMO is a folder in which the demo's cohort was built and runs were trained on it; without one, the demo cohort is
built and trained with both objectives in a temporary folder. Prints two Markdown tables of areas under the ROC curve
with 95 % intervals over patients, each beside a baseline that never sees the model: that of raw inputs.

Mix-ups: one modality is exchanged among 5 % of the test samples, in a ring, so that each gets another patient's. The
encoders look at one sample at a time, so exchanging embeddings is the same as exchanging files. The area is the mean
over plantings, and intervals resample patients with all plantings at once.

Faults: every test sample is scored as it is and with the fault; a score is of one input alone, so the area over all
pairs is what any share of faulty samples gives in expectation.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import RidgeCV
from torch import Tensor

from scripts.planted_faults import FAULTS, Faulty
from symile_clin.audit.listed import NAMED_FROM
from symile_clin.audit.mismatch import Mismatch, mismatch
from symile_clin.audit.unlike import TREES, Usual
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, Rows
from symile_clin.evaluation.embed import Embedded, embed, encoder_states
from symile_clin.objectives.base import Embeddings, Memory, Objective, Present
from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Trained, open_trained
from symile_clin.rng import seed_of, stream
from symile_clin.schema import RUNS_ROOT, SUBJECT_ID
from symile_clin.synthetic.truth import read_planting, scores

Values = NDArray[np.float64]

SHARE: Final = 0.05
#: Principal components of raw inputs; as many for every modality.
COMPONENTS: Final = 32
COMMAND: Final = str(Path(sys.executable).with_name("symile-clin"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", nargs="?", type=Path)
    parser.add_argument("--plantings", type=int, default=20)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.demo or Path(temporary)
        if options.demo is None:
            for command in (["cohort", "build", "--demo"], ["train"], ["train", "--objective", "clip"]):
                subprocess.run([COMMAND, *command, "--no-tracking", "--quiet"], cwd=folder, check=True)
        os.chdir(folder)
        names = sorted(path.parent.name for path in Path(RUNS_ROOT).glob("[!.]*/manifest.json"))
        runs = [_open(name) for name in reversed(names)]
        raw = RawInputs(runs[0])
        mix_ups(runs, raw, plantings=options.plantings, resamples=options.resamples)
        faults(runs, raw, resamples=options.resamples)


def _open(name: str) -> Trained:
    run = open_run(Path(RUNS_ROOT), name)
    return open_trained(run, cohort_of(run, None), device="cpu")


# --- what is compared with ---


def shrunk(name: str, inputs: Tensor) -> Tensor:
    """(b, values) an encoder's input with fewer pixels and points in time, as numbers in a row."""
    if name == "cxr":
        return torch.nn.functional.avg_pool2d(inputs[:, :1], 2).flatten(1)
    if name == "ecg":
        return torch.nn.functional.avg_pool2d(inputs, (20, 1)).flatten(1)
    return inputs


def statistics(inputs: Tensor) -> Tensor:
    """(b, 6) mean, spread, ends, and the share of values at either end."""
    flat = inputs.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return torch.cat(
        [
            flat.mean(1, keepdim=True), flat.std(1, keepdim=True), low, high,
            (flat == low).float().mean(1, keepdim=True), (flat == high).float().mean(1, keepdim=True),
        ],
        dim=1,
    )  # fmt: skip


@final
class RawInputs:
    """Principal components and statistics of inputs, fitted on train, without any model."""

    def __init__(self, trained: Trained) -> None:
        self.cohort, self._modalities = trained.cohort, trained.modalities
        seen = self._read(CohortDataset(self.cohort, self._modalities, self.cohort.rows("train")))
        self._axes, self._forests, self._usual = {}, {}, {}
        for name, (small, numbers) in seen.items():
            self._usual[name] = Usual(small, seed=0, name=name)
            self._axes[name] = PCA(COMPONENTS, random_state=0).fit(small)
            forest = IsolationForest(n_estimators=TREES, random_state=seed_of(0, "raw forest", name) % 2**32)
            self._forests[name] = forest.fit(np.hstack([self._axes[name].transform(small), numbers]))

    def components(self, rows: Rows) -> Embedded:
        """Principal components of samples that have every modality, in units of their spread in train."""
        seen = self._read(CohortDataset(self.cohort, self._modalities, rows))
        return Embedded(
            {
                name: (self._axes[name].transform(small) / np.sqrt(self._axes[name].explained_variance_)).astype(
                    np.float32
                )
                for name, (small, _) in seen.items()
            },
            {name: np.ones(len(rows), dtype=np.bool_) for name in seen},
        )

    def same_method(self, dataset: CohortDataset, name: str) -> Values:
        """Scores as of encoder states, of the inputs themselves."""
        return self._usual[name].unlike(self._read(dataset)[name][0])

    def of_statistics(self, dataset: CohortDataset, name: str) -> Values:
        """Scores of a forest over principal components and statistics."""
        small, numbers = self._read(dataset)[name]
        found: Values = -self._forests[name].score_samples(np.hstack([self._axes[name].transform(small), numbers]))
        return found

    def _read(self, dataset: CohortDataset) -> dict[str, tuple[Values, Values]]:
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for batch in dataset.batches(BATCH_SIZE):
            for name, inputs in dataset.inputs(batch).items():
                parts.setdefault(name, []).append((shrunk(name, inputs), statistics(inputs)))
        return {
            name: (
                torch.cat([one for one, _ in of]).double().numpy(),
                torch.cat([two for _, two in of]).double().numpy(),
            )
            for name, of in parts.items()
        }


@final
class RidgeOfPixels(Objective):
    """How likely a candidate's principal components are given the others', by a linear model with Gaussian errors.

    The score is log p(candidate | the others) − log p(candidate): a ridge regression of each component on all
    components of the other modalities, its penalty chosen by leaving one training sample out.
    """

    name: ClassVar[str] = "ridge"

    def __init__(self, train: Embedded) -> None:
        super().__init__("l2")
        self._fitted: dict[str, tuple[Any, Tensor, Tensor]] = {}
        for target, own in train.embeddings.items():
            others = np.hstack([one for name, one in train.embeddings.items() if name != target]).astype(np.float64)
            ridge = RidgeCV(alphas=10.0 ** np.arange(0, 6)).fit(others, own)
            errors = (own - ridge.predict(others)).var(axis=0)
            self._fitted[target] = (
                ridge,
                torch.from_numpy(errors),
                torch.from_numpy(own.var(axis=0).astype(np.float64)),
            )

    def memory(self, n: int, dim: int, modalities: int, *, device: torch.device, processes: int = 1) -> Memory:
        """Not trained."""
        raise NotImplementedError

    def initial_logit_scale(self, dim: int, modalities: int) -> float:  # noqa: ARG002  not trained
        """Scores are in nats as they are."""
        return 0.0

    def loss(self, embeddings: Embeddings, scale: Tensor, **_: Any) -> Tensor:
        raise NotImplementedError

    def score(
        self, queries: Embeddings, candidates: Tensor, *, target: str, present: Present | None = None  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        ridge, errors, spread = self._fitted[target]
        expected = torch.from_numpy(ridge.predict(torch.cat(list(queries.values()), dim=1).numpy()))
        given = ((candidates[None] - expected[:, None]) ** 2 / errors).sum(dim=2)
        return ((candidates**2 / spread).sum(dim=1) - given) / 2

    def query_vector(self, queries: Embeddings, target: str, *, present: Present | None = None) -> None:
        """Its score is no inner product."""


# --- areas with intervals ---


@dataclass(frozen=True)
class Pairs:
    """What an area counts: how often planted score above clean, summed by patient of either.

    Attributes:
        above: (p, p) number of pairs in which the planted one of the first patient is above, equal ones counted half.
        all: (p, p) number of pairs.
    """

    above: Values
    all: Values


def pairs(score: Values, other: Values, patient: NDArray[np.int64], other_patient: NDArray[np.int64], n: int) -> Pairs:
    above = (score[:, None] > other) + 0.5 * (score[:, None] == other)
    left, right = np.eye(n)[patient], np.eye(n)[other_patient]
    return Pairs(left.T @ above @ right, np.outer(left.sum(axis=0), right.sum(axis=0)))


def area(counted: Sequence[Pairs], resamples: int) -> str:
    """Mean area over plantings, with its interval over patients, each drawn with all plantings."""
    n = len(counted[0].all)
    drawn = stream(0, "audit patients").multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    weights = np.vstack([np.ones(n), drawn])
    with np.errstate(invalid="ignore"):  # a resample without a planted sample of one planting
        each = [
            ((weights @ one.above) * weights).sum(axis=1) / ((weights @ one.all) * weights).sum(axis=1)
            for one in counted
        ]
    means = np.nanmean(each, axis=0)
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return f"{means[0]:.3f} [{low:.3f}, {high:.3f}]"


# --- the two tables ---


def mix_ups(runs: Sequence[Trained], raw: RawInputs, *, plantings: int, resamples: int) -> None:
    """One row per exchanged modality."""
    cohort = raw.cohort
    rows = cohort.rows("test")
    _, patient = np.unique(cohort.samples[SUBJECT_ID].to_numpy()[rows], return_inverse=True)
    ways: dict[str, tuple[Objective, Embedded, float]] = {}
    for trained in runs:
        dataset = CohortDataset(cohort, trained.modalities, rows)
        encoded = embed(model=trained.model, dataset=dataset, batch_size=BATCH_SIZE, device="cpu")
        ways[trained.run.name] = (trained.objective, encoded, trained.model.scale.item())
    ways["raw inputs"] = (RidgeOfPixels(raw.components(cohort.rows("train"))), raw.components(rows), 1.0)
    names = list(runs[0].modalities)
    swaps = {
        name: [_ring(patient, stream(0, "mix-ups", name, repeat)) for repeat in range(plantings)] for name in names
    }
    counted: dict[tuple[str, str], list[Pairs]] = {}
    told: dict[str, list[tuple[float, float, float]]] = {}
    for name in names:
        for source in swaps[name]:
            planted = source != np.arange(len(rows))
            for way, (objective, encoded, scale) in ways.items():
                swapped = {**encoded.embeddings, name: encoded.embeddings[name][source]}
                found = mismatch(
                    objective=objective, encoded=Embedded(swapped, encoded.present), patients=patient, scale=scale,
                    stand_ins=None,
                )  # fmt: skip
                _count(counted, (way, name), found.mean_share, planted, patient)
                _count(counted, (f"{way}, nats", name), found.mean_evidence, planted, patient)
                told.setdefault(way, []).append(_told(found, found.mean_share, planted, name))
            odds = _bayes(cohort, rows, name, source)
            _count(counted, ("ceiling", name), odds[name], planted, patient)
            known = Mismatch(
                tuple(odds), share=np.zeros((len(rows), len(odds))), evidence=np.column_stack([*odds.values()])
            )
            told.setdefault("ceiling", []).append(_told(known, known.mean_evidence, planted, name))
    print(f"Mix-ups: {round(SHARE * len(rows))} of {len(rows)} samples, {plantings} times")
    columns = [*ways, "ceiling"]
    print(f"\n| exchanged | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in names:
        print(f"| {name} | " + " | ".join(area(counted[way, name], resamples) for way in columns) + " |")
    print(f"\nBy nats instead of shares:\n\n| exchanged | {' | '.join(ways)} |\n|---|{'---|' * len(ways)}")
    for name in names:
        print(f"| {name} | " + " | ".join(area(counted[f"{way}, nats", name], resamples) for way in ways) + " |")
    print("\n| | planted among as many listed | suspect named | named rightly |\n|---|---|---|---|")
    for way, shares in told.items():
        precision, named, right = np.nanmean(shares, axis=0)
        print(f"| {way} | {precision:.0%} | {named:.0%} | {right:.0%} |")


def _told(found: Mismatch, score: Values, planted: NDArray[np.bool_], name: str) -> tuple[float, float, float]:
    """Share planted of as many first ones, share of the planted with a suspect, and of these, with the right one."""
    first = np.argsort(-score, kind="stable")[: planted.sum()]
    named = found.suspicion[planted].max(axis=1) > NAMED_FROM
    right = found.suspicion[planted].argmax(axis=1) == found.names.index(name)
    return float(planted[first].mean()), float(named.mean()), float(right[named].mean())


def faults(runs: Sequence[Trained], raw: RawInputs, *, resamples: int) -> None:
    """One row per kind of fault."""
    cohort = raw.cohort
    rows = cohort.rows("test")
    _, patient = np.unique(cohort.samples[SUBJECT_ID].to_numpy()[rows], return_inverse=True)
    patients = int(patient.max()) + 1

    ways: dict[str, Callable[[CohortDataset, str], Values]] = {}
    for trained in runs:
        usual = {}
        for name, modality in trained.modalities.items():
            train = CohortDataset(cohort, {name: modality}, cohort.rows("train"))
            usual[name] = Usual(states(trained, train, name), seed=0, name=name)
        ways[trained.run.name] = partial(_unlike, trained, usual)
    ways |= {"raw inputs, same method": raw.same_method, "raw inputs, with statistics": raw.of_statistics}
    print(f"\nFaults, {len(rows)} test samples\n\n| fault | {' | '.join(ways)} |\n|---|{'---|' * len(ways)}")
    for fault, (name, _) in FAULTS.items():
        clean = CohortDataset(cohort, {name: runs[0].modalities[name]}, rows)
        faulty = Faulty(cohort, runs[0].modalities, rows, fault=fault, seed=0)
        cells = [
            area([pairs(way(faulty, name), way(clean, name), patient, patient, patients)], resamples)
            for way in ways.values()
        ]
        print(f"| {fault} | " + " | ".join(cells) + " |", flush=True)


def states(trained: Trained, dataset: CohortDataset, name: str) -> NDArray[np.float32]:
    """(n, d) encoder states of samples that have the modality."""
    return encoder_states(model=trained.model, dataset=dataset, batch_size=BATCH_SIZE, device="cpu").embeddings[name]


def _unlike(trained: Trained, usual: Mapping[str, Usual], dataset: CohortDataset, name: str) -> Values:
    return usual[name].unlike(states(trained, dataset, name))


def _ring(patient: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) from which sample each takes the modality: most from themselves, some from another patient's."""
    chosen = rng.permutation(len(patient))[: round(SHARE * len(patient))]
    source = np.arange(len(patient))
    source[chosen] = np.roll(chosen, 1)
    source[patient[source] == patient] = np.flatnonzero(patient[source] == patient)
    return source


def _count(
    counted: dict[tuple[str, str], list[Pairs]],
    key: tuple[str, str],
    score: Values,
    planted: NDArray[np.bool_],
    patient: NDArray[np.int64],
) -> None:
    one = pairs(score[planted], score[~planted], patient[planted], patient[~planted], int(patient.max()) + 1)
    counted.setdefault(key, []).append(one)


def _bayes(cohort: Cohort, rows: Rows, name: str, source: NDArray[np.int64]) -> dict[str, Values]:
    """By modality (n,), log odds that it was exchanged, by one who knows all planted factors; `name` really was."""
    assert cohort.truth is not None
    assert cohort.planted is not None
    planting = read_planting(cohort.planted)
    shown = {
        one: cohort.truth[[f"{one}_{j}" for j in range(count)]].to_numpy(dtype=np.int64)[rows]
        for one, count in planting.factors.items()
    }
    shown[name] = shown[name][source]
    target = shown.pop(planting.target)
    together = _of_own(shown, target, cohort.planted)
    odds = {planting.target: -together}
    for one in planting.queries:  # what is left without it: the mean over all that it could be
        guesses = [
            _of_own({**shown, one: np.tile(bits, (len(rows), 1))}, target, cohort.planted)
            for bits in _all(planting.factors[one])
        ]
        without = np.logaddexp.reduce(guesses) - np.log(len(guesses))
        odds[one] = np.round(without - together, 9)  # sums in another order must not break a tie
    return odds


def _of_own(own: Mapping[str, NDArray[np.int64]], target: NDArray[np.int64], planted: Mapping[str, Any]) -> Values:
    """(n,) log p(own target | own others) − log p(own target)."""
    patterns, number = np.unique(target, axis=0, return_inverse=True)
    found: Values = scores(dict(own), patterns, planted, synergy=True)[np.arange(len(target)), number.ravel()]
    return found


def _all(bits: int) -> Iterator[NDArray[np.int64]]:
    return (np.array(one, dtype=np.int64) for one in product((0, 1), repeat=bits))


if __name__ == "__main__":
    main()
