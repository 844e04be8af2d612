"""Shares and evidence against loops over samples, and planted swaps that have to be found."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from symile_clin.audit.mismatch import Mismatch, mismatch
from symile_clin.errors import CohortError, MismatchError
from symile_clin.evaluation import scoring
from symile_clin.evaluation.absence import StandIns
from symile_clin.evaluation.embed import Embedded
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective

NAMES = ("red", "green", "blue")
OBJECTIVES: Mapping[str, Objective] = {"symile": Symile(), "clip": PairwiseClip()}


def vectors(n: int, d: int, *, seed: int = 0, names: tuple[str, ...] = NAMES) -> Embedded:
    rng = np.random.default_rng(seed)
    return Embedded(
        {name: rng.normal(size=(n, d)).astype(np.float32) for name in names},
        {name: np.ones(n, dtype=np.bool_) for name in names},
    )


def together(n: int, d: int = 24, *, noise: float, seed: int = 0) -> Embedded:
    """Blue is the product of red and green: nothing a pair could tell, but all three together do."""
    rng = np.random.default_rng(seed)
    red, green = rng.choice([-1.0, 1.0], size=(2, n, d))
    own = {"red": red, "green": green, "blue": red * green}
    return Embedded(
        {name: (one + noise * rng.normal(size=(n, d))).astype(np.float32) for name, one in own.items()},
        {name: np.ones(n, dtype=np.bool_) for name in own},
    )


def found(
    encoded: Embedded,
    patients: NDArray[np.int64] | None = None,
    *,
    objective: str = "symile",
    scale: float = 0.4,
    stand_ins: StandIns | None = None,
) -> Mismatch:
    n = len(next(iter(encoded.present.values())))
    return mismatch(
        objective=OBJECTIVES[objective],
        encoded=encoded,
        patients=np.arange(n) if patients is None else patients,
        scale=scale,
        stand_ins=stand_ins,
    )


def by_loops(
    encoded: Embedded, patients: NDArray[np.int64], objective: Objective, scale: float, placeholders: list[str]
) -> tuple[list[list[float]], list[list[float]]]:
    """(shares, evidences), one list per sample; absent modalities are among the placeholders."""
    shares, evidences = [], []
    for i in range(len(patients)):
        share_of, evidence_of = [], []
        for name in NAMES:
            others = [other for other in NAMES if other != name]
            lone = not any(encoded.present[other][i] for other in others)
            if not encoded.present[name][i] or lone:
                share_of.append(math.nan)
                evidence_of.append(math.nan)
                continue
            assert all(encoded.present[other][i] or other in placeholders for other in others)
            query = {other: torch.tensor(encoded.embeddings[other][[i]], dtype=torch.float64) for other in others}
            here = {other: torch.tensor([bool(encoded.present[other][i])]) for other in others}

            def score(j: int, name: str = name, query=query, here=here) -> float:  # type: ignore[no-untyped-def]
                candidate = torch.tensor(encoded.embeddings[name][[j]], dtype=torch.float64)
                return objective.score(query, candidate, target=name, present=here).item()

            own, better, total, count = score(i), 0.0, 0.0, 0
            for j in range(len(patients)):
                if patients[j] == patients[i] or not encoded.present[name][j]:
                    continue
                other = score(j)
                better += 1.0 if other > own else 0.5 if other == own else 0.0
                total += math.exp(scale * (other - own))
                count += 1
            share_of.append(better / count)
            evidence_of.append(math.log(total / count))
        shares.append(share_of)
        evidences.append(evidence_of)
    return shares, evidences


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shares_and_evidence_are_those_of_loops(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, patients = vectors(17, 5), np.arange(17) // 2
    encoded.embeddings["blue"][4] = encoded.embeddings["blue"][9]  # level
    encoded.present["green"][[2, 3, 11]] = False
    encoded.embeddings["green"][[2, 3, 11]] = 0.5
    encoded.present["red"][3] = False  # row 3 has blue alone
    encoded.embeddings["red"][3] = -0.25
    absent = StandIns(
        placeholders={"green": np.full(5, 0.5, np.float32), "red": np.full(5, -0.25, np.float32)},
        reference={},
        scale=0.4,
    )
    shares, evidences = by_loops(encoded, patients, OBJECTIVES[objective], 0.4, ["green", "red"])
    for together_ in (256, 3):
        monkeypatch.setattr(scoring, "QUERIES_PER_CHUNK", together_)
        one = found(encoded, patients, objective=objective, stand_ins=absent)
        np.testing.assert_allclose(one.share, shares, rtol=1e-12)
        np.testing.assert_allclose(one.evidence, evidences, rtol=1e-9, atol=1e-12)
    assert np.flatnonzero(~one.scored).tolist() == [3]
    assert np.isnan(one.mean_share[3])
    assert np.isnan(one.suspicion[[2, 3, 11]]).all(), "two modalities cannot tell which of them is wrong"
    np.testing.assert_allclose(one.suspicion[0], np.exp(evidences[0]) / np.exp(evidences[0]).sum())


def test_what_is_absent_without_placeholder_is_marginalised_or_refused() -> None:
    encoded = vectors(8, 4)
    encoded.present["green"][5] = False
    encoded.embeddings["green"][5] = np.nan
    with pytest.raises(MismatchError, match="nothing stands for it"):
        found(encoded)
    reference = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    one = found(encoded, stand_ins=StandIns({}, {"green": reference}, scale=0.4))
    assert np.isnan(one.share[5]).tolist() == [False, True, False]
    red, blue = (encoded.embeddings[name].astype(float) for name in ("red", "blue"))
    score = [
        math.log(np.mean([math.exp(0.4 * (red[5] * z) @ blue[j]) for z in reference.astype(float)])) for j in range(8)
    ]
    assert one.share[5, 2] == np.mean([score[j] > score[5] for j in range(8) if j != 5])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_collapsed_model_suspects_nobody_more_than_others(objective: str) -> None:
    encoded = vectors(9, 4)
    for one in encoded.embeddings.values():
        one[:] = one[0]
    collapsed = found(encoded, objective=objective)
    assert (collapsed.share == 0.5).all()
    np.testing.assert_allclose(collapsed.evidence, 0, atol=1e-12)
    np.testing.assert_allclose(collapsed.suspicion, 1 / 3)


def test_a_swapped_pair_worked_by_hand() -> None:
    """Orthogonal vectors: samples 0 and 1 have each other's blue, so the one other that fits is the other's."""
    eye = np.eye(4, dtype=np.float32)
    encoded = Embedded(
        {"red": eye, "green": eye, "blue": eye[[1, 0, 2, 3]]}, {name: np.ones(4, dtype=np.bool_) for name in NAMES}
    )
    one = found(encoded, scale=2.0)
    # in its own place: one other scores 1, two are level at 0
    np.testing.assert_allclose(one.share[0], [0.5, 0.5, (1 + 2 / 2) / 3])
    np.testing.assert_allclose(one.evidence[0, 2], math.log((math.exp(2) + 2) / 3))
    np.testing.assert_allclose(one.share[2], 0)
    np.testing.assert_allclose(one.evidence[2], -2)
    assert one.suspicion[0].argmax() == 2


@pytest.mark.parametrize("swapped", NAMES)
def test_planted_swaps_are_found_first_though_no_pair_tells(swapped: str) -> None:
    encoded = together(200, noise=0.3)
    rows = np.arange(0, 60, 6)
    encoded.embeddings[swapped][rows] = encoded.embeddings[swapped][np.roll(rows, 1)]
    one = found(encoded, scale=0.5)
    assert set(np.argsort(-one.mean_share)[: len(rows)]) == set(rows)
    assert set(np.argsort(-one.mean_evidence)[: len(rows)]) == set(rows)
    pairs = found(encoded, objective="clip")
    assert not set(np.argsort(-pairs.mean_share)[: len(rows)]) >= set(rows), "the swap must not be visible in pairs"


def test_in_noise_swaps_are_found_better_than_nine_times_in_ten() -> None:
    encoded = together(400, noise=0.9, seed=2)
    rows = np.random.default_rng(0).permutation(400)[:40]
    encoded.embeddings["green"][rows] = encoded.embeddings["green"][np.roll(rows, 1)]
    share = found(encoded).mean_share
    planted = np.isin(np.arange(400), rows)
    above = np.mean([[a > b for b in share[~planted]] for a in share[planted]])
    assert 0.9 < above < 1.0


def test_the_swapped_modality_is_named_where_pairs_tell() -> None:
    """All three show one thing: what is left without the swapped one still agrees."""
    rng = np.random.default_rng(3)
    shown = rng.normal(size=(300, 32))
    encoded = Embedded(
        {name: (shown + 0.2 * rng.normal(size=shown.shape)).astype(np.float32) for name in NAMES},
        {name: np.ones(300, dtype=np.bool_) for name in NAMES},
    )
    rows = np.arange(0, 300, 20)
    encoded.embeddings["green"][rows] = encoded.embeddings["green"][np.roll(rows, 1)]
    one = found(encoded, objective="clip")
    assert set(np.argsort(-one.mean_share)[: len(rows)]) == set(rows)
    assert (one.suspicion[rows].argmax(axis=1) == 1).all()
    assert (one.suspicion[rows, 1] > 0.5).all()


def test_samples_of_one_patient_are_refused() -> None:
    with pytest.raises(CohortError, match="of one patient"):
        found(vectors(5, 3), np.zeros(5, dtype=np.int64))
