"""The numbers of a report, each from its definition, and the figure of ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from symile_clin.evaluation.absence import StandIns
from symile_clin.evaluation.bootstrap import Method, bootstrap_interval, resample_queries
from symile_clin.evaluation.figures import rank_shares
from symile_clin.evaluation.measures import (
    as_published,
    counted,
    drops,
    flat,
    marginalised_over,
    means_of,
    measured,
    patient_stream,
    query_stream,
    tracked,
)
from symile_clin.evaluation.ranked import Ranked
from symile_clin.evaluation.retrieval import Ranks

RANKS = Ranks(n_greater=np.array([0, 0, 1, 4, 2, 0]), n_tied=np.array([0, 1, 2, 5, 0, 9]))
PATIENTS = np.array([7, 7, 8, 9, 9, 9])
FULL = {"red": ["green", "blue"]}
ASKED = Ranked("red", "candidates", ("blue", "green"), np.arange(6), PATIENTS, RANKS, np.full(6, 10))


def report(ranked: Ranked = ASKED) -> dict[str, float]:
    return flat(measured(means_of(ranked), seed=3) + counted(ranked), split="val", full=FULL)


def test_by_hand() -> None:
    found = report()
    assert found["val/red/recall_at_1"] == pytest.approx((1 + 1 / 2 + 0 + 0 + 0 + 1 / 10) / 6)
    assert found["val/red/recall_at_5"] == pytest.approx((1 + 1 + 1 + 1 / 6 + 1 + 1 / 2) / 6)
    assert found["val/red/recall_at_10"] == found["val/red/recall_at_10_chance"] == 1
    harmonic = [sum(1 / r for r in range(1, n + 1)) for n in range(11)]
    reciprocal = [1, 3 / 4, (harmonic[4] - harmonic[1]) / 3, (harmonic[10] - harmonic[4]) / 6, 1 / 3, harmonic[10] / 10]
    assert found["val/red/mrr"] == pytest.approx(sum(reciprocal) / 6)
    mid = [1, 1.5, 3, 7.5, 3, 5.5]
    assert found["val/red/mean_rank"] == pytest.approx(sum(mid) / 6)
    assert found["val/red/median_rank"] == 3
    assert found["val/red/n_tied_queries"] == 4
    assert found["val/red/recall_at_1_n"] == 6
    assert found["val/red/recall_at_1_n_subjects"] == 3
    assert found["val/red/recall_at_1_chance"] == pytest.approx(0.1)
    assert found["val/red/recall_at_5_chance"] == pytest.approx(0.5)
    assert found["val/red/mrr_chance"] == pytest.approx(harmonic[10] / 10)
    assert found["val/red/mean_rank_chance"] == found["val/red/median_rank_chance"] == 5.5


def test_every_interval_is_over_the_same_resamples() -> None:
    found = report()
    methods: tuple[tuple[str, Method], ...] = (("ci", "percentile"), ("bca", "bca"))
    for name, values in (("recall_at_1", RANKS.recall_at(1)), ("mean_rank", RANKS.mid())):
        for kind, method in methods:
            interval = bootstrap_interval(values, PATIENTS, method=method, rng=patient_stream(3))
            low, high = found[f"val/red/{name}_{kind}_low"], found[f"val/red/{name}_{kind}_high"]
            assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_order_and_company_change_no_number() -> None:
    """Ways with other queries between them, as in an evaluation, against each alone."""
    fewer = replace(
        ASKED, protocol="matched", query_row=np.arange(4), patient=PATIENTS[:4], n_candidates=np.full(4, 10),
        ranks=Ranks(RANKS.n_greater[:4], RANKS.n_tied[:4]),
    )  # fmt: skip
    other = replace(ASKED, query=("blue",))
    together = flat(
        measured([mean for one in (ASKED, fewer, other) for mean in means_of(one)], seed=3), split="val", full=FULL
    )
    for one in (ASKED, fewer, other):
        alone = flat(measured(means_of(one), seed=3), split="val", full=FULL)
        assert {name: together[name] for name in alone} == pytest.approx(alone, abs=1e-12)


def test_the_papers_figures() -> None:
    accuracies = resample_queries(RANKS.recall_at(1), 10, query_stream(3))
    assert as_published(ASKED, split="val", bootstrap=10, seed=3) == {
        "val/red/recall_at_1_bootstrap_mean": accuracies.mean(),
        "val/red/recall_at_1_bootstrap_se": accuracies.std(ddof=1),
    }


def test_every_other_way_has_its_own_name() -> None:
    default = report()
    for way, where in (
        (replace(ASKED, protocol="candidates_other_subjects"), "candidates_other_subjects/blue+green"),
        (replace(ASKED, query=("blue",)), "candidates/blue"),
        (replace(ASKED, query=("demographics",), protocol="gallery"), "gallery/demographics"),
    ):
        found = report(way)
        assert set(found) == {name.replace("val/red/", f"val/red/{where}/") for name in default}
        assert found[f"val/red/{where}/recall_at_1"] == default["val/red/recall_at_1"]


def test_chance_over_lists_of_different_length_is_the_mean_of_their_reciprocals() -> None:
    found = report(replace(ASKED, n_candidates=np.array([10, 10, 5, 10, 8, 10])))
    assert found["val/red/recall_at_1_chance"] == pytest.approx((4 / 10 + 1 / 5 + 1 / 8) / 6)


def test_queries_of_one_patient_have_numbers_and_no_intervals() -> None:
    found = report(replace(ASKED, patient=np.zeros(6, dtype=np.int64)))
    assert found["val/red/recall_at_1"] == report()["val/red/recall_at_1"]
    assert not [name for name in found if "_ci_" in name or "_bca_" in name]


def test_drops_are_of_the_same_query_and_only_among_fixed_lists() -> None:
    worse = Ranks(n_greater=RANKS.n_greater + 1, n_tied=RANKS.n_tied)
    ways = [
        ASKED,
        replace(ASKED, protocol="gallery"),
        replace(ASKED, query=("blue",), ranks=worse),
        replace(ASKED, query=("blue",), protocol="gallery", ranks=worse),
        replace(ASKED, query=("demographics",), ranks=worse),
    ]
    [drop] = drops(ways)
    assert (drop.query, drop.protocol, drop.metric) == (("blue",), "candidates", "recall_at_1_drop")
    assert drop.values.tolist() == [1, 1 / 2, 0, 0, 0, 1 / 10]


def test_what_stands_for_the_absent_is_counted() -> None:
    ways = [ASKED, replace(ASKED, query=("blue",)), replace(ASKED, query=("green",), protocol="gallery")]
    ways.append(replace(ASKED, query=("demographics",)))
    of = StandIns({"blue": np.ones(2, np.float32)}, {"green": np.ones((7, 2), np.float32)}, 1.0)
    assert marginalised_over(ways, split="val", full=FULL, stand_ins={"red": of}) == {
        "val/red/candidates/blue/recall_at_1_marginalised_over": 7,
        "val/red/gallery/green/recall_at_1_marginalised_over": 0,
    }


def test_a_tracker_gets_the_targets_own_and_of_queries_only_recall_at_1() -> None:
    kept = ["val/red/mrr_bca_low", "val/red/recall_at_10", "val/red/gallery/blue/recall_at_1_ci_low"]
    kept += ["val/red/candidates/blue/recall_at_1", "val/red/candidates/blue/recall_at_1_drop"]
    left = ["val/blue/recall_at_1", "val/red/gallery/blue/mrr", "val/red/gallery/blue/recall_at_10"]
    left += ["val/red/gallery/blue/recall_at_1_bca_low", "val/red/gallery/blue/recall_at_10_chance"]
    assert list(tracked(dict.fromkeys(kept + left, 0.0), split="val", target="red")) == kept


def test_tied_queries_are_spread_over_their_ranks() -> None:
    expected = np.zeros(10)
    for above, tied in zip(RANKS.n_greater, RANKS.n_tied, strict=True):
        for position in range(above, above + tied + 1):
            expected[position] += 1 / (tied + 1) / 6
    found = rank_shares(RANKS, 10)
    np.testing.assert_allclose(found, expected)
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(RANKS.recall_at(1).mean())
