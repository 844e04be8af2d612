"""Planted structure: scores and ceilings against a full enumeration, synergy that no pair sees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from symile_clin.errors import ConfigError
from symile_clin.synthetic.truth import Planting, draw_factors, expected_recall, read_planting, scores

Bits = tuple[int, ...]


def _planted(**changes: Any) -> dict[str, Any]:
    return Planting(**{"target": "t", "queries": ("a", "b"), **changes}).model_dump(mode="json")


SMALL = _planted(synergy_factors=1, shared_flip=0.2, synergy_flip=0.1)
CASES = [SMALL, _planted(synergy_factors=0), _planted(), _planted(queries=("a", "b", "c"), synergy_factors=1)]


def _bits(count: int) -> Iterator[Bits]:
    return itertools.product((0, 1), repeat=count)


def _joint(planted: dict[str, Any]) -> dict[tuple[tuple[Bits, ...], Bits], float]:
    """Probability of every combination of query factors and target factors, straight from the definition."""
    joint_bits, names = planted["synergy_factors"], planted["queries"]
    table = {}
    for queries in itertools.product(*[list(_bits(1 + joint_bits)) for _ in names]):
        for target in _bits(len(names) + joint_bits):
            p = 0.5 ** (len(names) * (1 + joint_bits))
            for i in range(len(names)):
                p *= planted["shared_flip"] if target[i] != queries[i][0] else 1 - planted["shared_flip"]
            for j in range(joint_bits):
                parity = sum(query[1 + j] for query in queries) % 2
                differs = target[len(names) + j] != parity
                p *= planted["synergy_flip"] if differs else 1 - planted["synergy_flip"]
            table[queries, target] = p
    return table


def _log_ratios(planted: dict[str, Any], *, synergy: bool) -> dict[tuple[tuple[Bits, ...], Bits], float]:
    """Evidence of every combination by conditioning the enumerated table."""
    joint = _joint(planted)
    target_p: dict[Bits, float] = {}
    for (_, target), p in joint.items():
        target_p[target] = target_p.get(target, 0) + p

    def conditional(target: Bits, chosen: tuple[tuple[int, Bits], ...]) -> float:
        agreeing = {key: p for key, p in joint.items() if all(key[0][i] == bits for i, bits in chosen)}
        return sum(p for key, p in agreeing.items() if key[1] == target) / sum(agreeing.values())

    ratios = {}
    for queries, target in joint:
        everything = tuple(enumerate(queries))
        parts = [everything] if synergy else [(one,) for one in everything]
        ratios[queries, target] = sum(math.log(conditional(target, part) / target_p[target]) for part in parts)
    return ratios


@pytest.mark.parametrize("planted", [SMALL, CASES[1]])
@pytest.mark.parametrize("synergy", [True, False])
def test_scores_are_the_log_ratios_of_the_enumerated_table(planted: dict[str, Any], synergy: bool) -> None:
    ratios = _log_ratios(planted, synergy=synergy)
    targets = np.array(sorted({target for _, target in ratios}))
    queries = sorted({queries for queries, _ in ratios})
    given = {name: np.array([query[i] for query in queries]) for i, name in enumerate(planted["queries"])}
    found = scores(given, targets, planted, synergy=synergy)
    expected = [[ratios[query, tuple(int(b) for b in target)] for target in targets] for query in queries]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("synergy", "key"), [(True, "full"), (False, "pairs")])
def test_expected_recall_is_that_of_every_possible_candidate_list(synergy: bool, key: str) -> None:
    joint, ratios = _joint(SMALL), _log_ratios(SMALL, synergy=synergy)
    targets = sorted({target for _, target in joint})
    total = 0.0
    for (queries, match), p in joint.items():
        for others in itertools.product(targets, repeat=2):  # three candidates
            own = ratios[queries, match]
            rivals = [ratios[queries, other] for other in others]
            if all(rival < own + 1e-9 for rival in rivals):
                ties = sum(abs(rival - own) < 1e-9 for rival in rivals)
                total += p / len(targets) ** 2 / (1 + ties)
    assert expected_recall(SMALL, n=3)[key] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("planted", CASES[2:])
def test_expected_recall_is_what_drawn_candidate_lists_give(planted: dict[str, Any]) -> None:
    rng, n, lists = np.random.default_rng(0), 10, 4000
    planting = read_planting(planted)
    drawn = [draw_factors(planting, rng) for _ in range(lists)]
    factors = {name: np.array([one[name] for one in drawn]) for name in planting.factors}
    for synergy, key in ((True, "full"), (False, "pairs")):
        hits = []
        for i in range(lists):
            candidates = np.concatenate([[i], rng.choice(np.delete(np.arange(lists), i), n - 1, replace=False)])
            query = {name: factors[name][[i]] for name in planting.queries}
            row = scores(query, factors["t"][candidates], planted, synergy=synergy)[0]
            hits.append(0.0 if (row > row[0]).any() else 1 / (row == row[0]).sum())
        error = np.std(hits) / math.sqrt(lists)
        assert abs(np.mean(hits) - expected_recall(planted, n)[key]) < 4 * error


@pytest.mark.parametrize("planted", CASES[2:])
def test_no_query_alone_tells_anything_about_a_synergy_bit(planted: dict[str, Any]) -> None:
    joint, own = _joint(planted), len(planted["queries"])
    for i in range(own):
        table: dict[tuple[Bits, Bits], float] = {}
        for (queries, target), p in joint.items():
            key = queries[i], target[own:]
            table[key] = table.get(key, 0) + p
        assert np.ptp(list(table.values())) < 1e-12


def test_drawn_factors_hide_the_synergy_from_every_pair_and_show_it_to_all() -> None:
    planting, rng, n = Planting(target="t", queries=("a", "b")), np.random.default_rng(1), 8000
    drawn = [draw_factors(planting, rng) for _ in range(n)]
    bits = {name: np.array([one[name] for one in drawn]) for name in planting.factors}
    assert {name: array.shape[1] for name, array in bits.items()} == {"t": 4, "a": 3, "b": 3}

    def chi_square(left: np.ndarray, right: np.ndarray) -> tuple[float, int]:
        codes = [array @ (1 << np.arange(array.shape[1])) for array in (left, right)]
        counts = np.zeros([1 << array.shape[1] for array in (left, right)])
        np.add.at(counts, tuple(codes), 1)
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / n
        return float(((counts - expected) ** 2 / expected).sum()), math.prod(side - 1 for side in counts.shape)

    independent = [
        (bits["a"], bits["t"][:, 2:]),
        (bits["b"], bits["t"][:, 2:]),
        (bits["a"], bits["b"]),
        (bits["a"][:, 1:], bits["t"]),
        (bits["b"][:, 1:], bits["t"]),
    ]
    for left, right in independent:
        statistic, freedom = chi_square(left, right)
        assert statistic < freedom + 4.5 * math.sqrt(2 * freedom)
    for left, right in [(bits["a"][:, 1:] ^ bits["b"][:, 1:], bits["t"][:, 2:]), (bits["a"][:, :1], bits["t"][:, :1])]:
        statistic, freedom = chi_square(left, right)
        assert statistic > n / 2
    assert (bits["a"][:, 0] != bits["t"][:, 0]).mean() == pytest.approx(planting.shared_flip, abs=0.015)


def test_the_default_planting_keeps_its_promise() -> None:
    ceilings = expected_recall(_planted())
    assert ceilings["pairs"] <= 0.35
    assert ceilings["full"] >= 0.65
    assert expected_recall(_planted(), n=1) == {"pairs": pytest.approx(1), "full": pytest.approx(1)}


def test_equal_evidence_is_equal_to_the_bit() -> None:
    planted = _planted(queries=("a", "b", "c"), synergy_factors=2)
    every = np.array(list(_bits(5)))
    queries = {name: np.zeros((1, 3), dtype=np.int64) for name in "abc"}
    found = scores(queries, every, planted, synergy=True)[0]
    groups: dict[tuple[int, int], set[float]] = {}
    for bits, score in zip(every, found, strict=True):
        groups.setdefault((int(bits[:3].sum()), int(bits[3:].sum())), set()).add(float(score))
    assert all(len(group) == 1 for group in groups.values())
    assert len(set.union(*groups.values())) == len(groups)


@pytest.mark.parametrize(
    "wrong", [{"queries": ["a"]}, {"shared_flip": 0.0}, {"synergy_flip": 0.5}, {"synergy_factors": -1}, {"more": 1}]
)
def test_a_planting_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"planted.*{next(iter(wrong))}"):
        read_planting({**_planted(), **wrong})
