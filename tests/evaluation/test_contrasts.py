"""Contrasts: which samples an anchor meets, bounds against loops, and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.errors import CohortError
from symile_clin.evaluation import contrasts
from symile_clin.evaluation.contrasts import (
    Contrast,
    Sample,
    Terms,
    best_scale,
    difference,
    draw_rows,
    exhaustive_terms,
    joint_information,
    pair_information,
    terms,
    total_correlation,
)
from symile_clin.evaluation.information import critic_of
from symile_clin.objectives.symile import Symile

mip = critic_of(Symile())
BASE = 1000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbered(n: int, names: str, *, subjects: NDArray[np.int64] | None = None) -> Sample:
    """Embeddings that hold the number of their own sample."""
    ids = torch.arange(n, dtype=torch.float64)[:, None]
    return Sample(dict.fromkeys(names, ids), np.arange(n) if subjects is None else subjects)


def spelled(queries: Mapping[str, Tensor], candidates: Tensor, target: str) -> Tensor:  # noqa: ARG001
    """A critic whose score spells out which samples it was given: the candidate's number last."""
    code = torch.zeros(len(candidates), dtype=torch.float64)
    for tensor in queries.values():
        code = code * BASE + tensor[:, 0]
    return code[:, None] * BASE + candidates[:, 0]


def read(score: float, k: int) -> list[int]:
    """The numbers of a tuple's k − 1 queries, then of its candidate."""
    return [int(score // BASE**place) % BASE for place in reversed(range(k))]


@pytest.mark.parametrize(
    ("m", "names", "n"), [(9, "abc", 5), (10, "abc", 5), (3, "abc", 2), (13, "abcd", 5), (6, "ab", 6)]
)
def test_no_sample_is_used_twice_for_an_anchor(m: int, names: str, n: int) -> None:
    sample, k = numbered(m, names), len(names)
    rows = rng().permutation(m)
    every = list(total_correlation(sample, spelled)(rows))
    assert len(every) == k
    for scores in every:
        assert scores.shape == (m, n)
        for i, row in enumerate(rows):
            assert read(float(scores[i, 0]), k) == [row] * k
            negatives = [read(float(score), k) for score in scores[i, 1:]]
            assert {one[-1] for one in negatives} == {row}  # the anchor is the candidate
            used = [number for one in negatives for number in one[:-1]]
            assert len(set(used)) == len(used) == (n - 1) * (k - 1)
            assert row not in used


def test_a_joint_query_meets_every_other_patients_target_once() -> None:
    sample = numbered(7, "abc")
    (scores,) = joint_information(sample, spelled, "b")(rng().permutation(7))
    for candidates in scores:
        tuples = [read(float(score), 3) for score in candidates]
        own = tuples[0][-1]
        assert tuples[0] == [own] * 3
        assert all(one[:2] == [own, own] for one in tuples)
        assert sorted(one[-1] for one in tuples) == list(range(7))


def test_a_draw_takes_one_sample_of_each_patient_each_as_often() -> None:
    patient_of = np.array([0, 1, 1, 1, 2, 2])
    seen = np.zeros(6)
    places = np.zeros((3, 3))
    generator = rng()
    for _ in range(6000):
        rows = draw_rows(patient_of, generator)
        assert sorted(patient_of[rows]) == [0, 1, 2]
        seen[rows] += 1
        places[patient_of[rows], range(3)] += 1
    np.testing.assert_allclose(seen / 6000, [1, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2], atol=0.03)
    np.testing.assert_allclose(places / 6000, 1 / 3, atol=0.03)


def test_no_negative_is_of_the_anchors_own_patient() -> None:
    subjects = np.repeat([5, 3, 8, 1, 4], 3)
    met: list[tuple[int, int]] = []

    def spy(rows: NDArray[np.int64]) -> Iterator[Tensor]:
        for scores in total_correlation(numbered(15, "abc"), spelled)(rows):
            met.extend(
                (read(float(s), 3)[-1], number) for s in scores[:, 1:].ravel() for number in read(float(s), 3)[:2]
            )
            yield scores / BASE**3

    found = terms(spy, subjects, scale=1.0, draws=5, rng=rng())
    assert found.n == 3
    assert len(found.values) == 5
    assert all(subjects[one] != subjects[other] for one, other in met)


def slow_terms(
    contrast: Contrast, subjects: NDArray[np.int64], scale: float, draws: int, generator: np.random.Generator
) -> list[float]:
    """The definition in loops, for patients who all have one sample."""
    total = [0.0] * len(subjects)
    for _ in range(draws):
        rows = draw_rows(np.unique(subjects, return_inverse=True)[1], generator)
        ways = [scores.tolist() for scores in contrast(rows)]
        for scores, (place, row) in itertools.product(ways, enumerate(rows)):
            exps = [math.exp(scale * score) for score in scores[place]]
            total[row] += math.log(len(exps) * exps[0] / sum(exps)) / len(ways) / draws
    return total


def test_terms_equal_the_loop() -> None:
    embeddings = {name: torch.from_numpy(rng(i).normal(size=(11, 4))) for i, name in enumerate("abc")}
    sample = Sample(embeddings, np.arange(11))
    for contrast in (
        total_correlation(sample, mip),
        joint_information(sample, mip, "c"),
        pair_information(embeddings["a"], embeddings["b"], lambda x, y: x @ y.T),
    ):
        found = terms(contrast, sample.subjects, scale=0.7, draws=3, rng=rng(5))
        np.testing.assert_allclose(found.values, slow_terms(contrast, sample.subjects, 0.7, 3, rng(5)), rtol=1e-10)
    assert found.n == 11
    assert found.cap == pytest.approx(math.log(11))


def test_groups_hold_fewer_patients_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrasts, "GROUP", 10)
    sample = numbered(25, "abc")
    found = terms(
        total_correlation(sample, lambda q, c, t: spelled(q, c, t) / BASE**3),
        sample.subjects,
        scale=0.0,
        draws=2,
        rng=rng(),
    )
    assert found.n == 1 + 7 // 2  # groups of 9, 8 and 8
    np.testing.assert_allclose(found.values, 0.0, atol=1e-12)


@pytest.mark.parametrize("names", ["abc", "abcd"])
def test_exhaustive_equals_the_loop(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrasts, "_CHUNK", 7)
    m, k = 5, len(names)
    vectors = [rng(i).normal(size=(m, 3)) for i in range(k)]
    sample = Sample({name: torch.from_numpy(one) for name, one in zip(names, vectors, strict=True)}, np.arange(m))
    found = exhaustive_terms(sample, mip, scale=0.8, rng=rng())
    for i in range(m):
        total = 0.0
        for anchor in range(k):
            exps = {}
            for others in itertools.product(range(m), repeat=k - 1):
                rows = [*others[:anchor], i, *others[anchor:]]
                exps[others] = math.exp(0.8 * sum(np.prod([vectors[j][rows[j]] for j in range(k)], axis=0)))
            total += math.log(m ** (k - 1) * exps[(i,) * (k - 1)] / sum(exps.values())) / k
        assert found.values[i] == pytest.approx(total)
    assert found.n == m ** (k - 1)


def exclusive_or(m: int, *, bits: int, flip: float, seed: int = 0) -> tuple[Sample, float, float]:
    """Signs whose third is the product of two but for flips: the sample, the best scale of the mip, and the truth."""
    generator = rng(seed)
    a, b = generator.choice([-1.0, 1.0], size=(2, m, bits))
    c = a * b * np.where(generator.random((m, bits)) < flip, -1.0, 1.0)
    truth = bits * (math.log(2) + flip * math.log(flip) + (1 - flip) * math.log(1 - flip))
    sample = Sample({name: torch.from_numpy(one) for name, one in zip("abc", (a, b, c), strict=True)}, np.arange(m))
    return sample, 0.5 * math.log((1 - flip) / flip), truth


def test_the_bound_is_near_a_total_correlation_that_is_known() -> None:
    values = []
    for seed in range(20):
        sample, scale, truth = exclusive_or(300, bits=2, flip=0.05, seed=seed)
        found = terms(total_correlation(sample, mip), sample.subjects, scale=scale, draws=4, rng=rng(seed))
        values.append(found.values.mean())
    standard_error = np.std(values, ddof=1) / math.sqrt(20)
    assert np.mean(values) < truth + 2 * standard_error
    assert np.mean(values) > truth - 0.06
    assert found.draws_se is not None
    assert found.draws_se < 0.02


def test_joint_information_finds_the_exclusive_or_and_pairs_do_not() -> None:
    sample, scale, truth = exclusive_or(400, bits=2, flip=0.05)
    joint = terms(joint_information(sample, mip, "c"), sample.subjects, scale=scale, draws=1, rng=rng())
    assert joint.values.mean() == pytest.approx(truth, abs=0.12)
    pair = pair_information(sample.embeddings["a"], sample.embeddings["c"], lambda x, y: x @ y.T)
    scale, bound = best_scale(pair, sample.subjects, start=scale, draws=1, rng=rng())
    assert bound < 0.02


def test_independent_modalities_give_no_information() -> None:
    values = []
    for seed in range(30):
        generator = rng(seed)
        sample = Sample({name: torch.from_numpy(generator.normal(size=(60, 3))) for name in "abc"}, np.arange(60))
        values.append(
            terms(total_correlation(sample, mip), sample.subjects, scale=0.1, draws=2, rng=rng(seed)).values.mean()
        )
    assert np.mean(values) < 2 * np.std(values, ddof=1) / math.sqrt(30)
    assert abs(np.mean(values)) < 0.05


def test_the_training_sampler_gives_about_the_same() -> None:
    """Shuffling inside a batch is not the theorem's sampling; with hundreds of samples it hardly differs."""
    sample, scale, truth = exclusive_or(800, bits=3, flip=0.05)
    exact = terms(total_correlation(sample, mip), sample.subjects, scale=scale, draws=8, rng=rng()).values.mean()
    batch = {name: tensor[:400] for name, tensor in sample.embeddings.items()}
    generator = torch.Generator().manual_seed(0)
    losses = [
        float(Symile(negatives="permuted").loss(batch, torch.tensor(scale), generator=generator)) for _ in range(8)
    ]
    assert math.log(400) - np.mean(losses) == pytest.approx(exact, abs=0.15)
    assert exact < truth + 0.1


def test_the_best_scale_repairs_an_overconfident_critic() -> None:
    sample, scale, truth = exclusive_or(300, bits=2, flip=0.1)
    contrast = total_correlation(sample, mip)
    as_trained = terms(contrast, sample.subjects, scale=8 * scale, draws=2, rng=rng()).values.mean()
    fitted, bound = best_scale(contrast, sample.subjects, start=8 * scale, draws=2, rng=rng())
    assert as_trained < 0 < bound
    assert fitted == pytest.approx(scale, rel=0.5)
    assert bound == pytest.approx(truth, abs=0.15)


def test_the_bound_is_capped() -> None:
    same = torch.eye(40)
    found = terms(pair_information(same, same, lambda x, y: x @ y.T), np.arange(40), scale=100.0, draws=1, rng=rng())
    assert found.values.mean() == pytest.approx(math.log(40))
    assert found.cap == pytest.approx(math.log(40))


def test_too_few_patients_are_refused() -> None:
    sample = numbered(6, "abc", subjects=np.array([1, 1, 1, 2, 2, 2]))
    with pytest.raises(CohortError, match="2 patients are too few"):
        terms(total_correlation(sample, mip), sample.subjects, scale=1.0, draws=1, rng=rng())


def test_draws_that_quantities_share_count_once_in_their_difference() -> None:
    whole = Terms(values=np.array([3.0, 1.0]), n=8, by_draw=np.array([1.0, 2.0, 3.0]))
    part = Terms(values=np.array([1.0, 1.0]), n=8, by_draw=np.array([0.0, 1.0, 2.0]))
    assert difference(whole, [part]).values.tolist() == [2.0, 0.0]
    assert difference(whole, [part]).draws_se == 0, "what a draw adds to both is not in their difference"
    assert difference(whole, [replace(part, by_draw=part.by_draw[::-1])]).draws_se == pytest.approx(2 / math.sqrt(3))
