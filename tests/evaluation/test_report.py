"""The numbers of a report, each from its definition, and the figure of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from symile_clin.evaluation.bootstrap import bootstrap_interval, resample_queries
from symile_clin.evaluation.figures import rank_shares
from symile_clin.evaluation.report import other_subjects_report, patient_stream, query_stream, retrieval_report
from symile_clin.evaluation.retrieval import Ranks

RANKS = Ranks(n_greater=np.array([0, 0, 1, 4, 2, 0]), n_tied=np.array([0, 1, 2, 5, 0, 9]))
PATIENTS = np.array([7, 7, 8, 9, 9, 9])


def report(bootstrap: int | None = None) -> dict[str, float]:
    return retrieval_report(
        ranks=RANKS, clusters=PATIENTS, candidates_n=10, bootstrap=bootstrap, seed=3, split="val", target="red"
    )


def test_by_hand() -> None:
    found = report()
    assert found["val/red/recall_at_1"] == pytest.approx((1 + 1 / 2 + 0 + 0 + 0 + 1 / 10) / 6)
    assert found["val/red/recall_at_5"] == pytest.approx((1 + 1 + 1 + 1 / 6 + 1 + 1 / 2) / 6)
    harmonic = [sum(1 / r for r in range(1, n + 1)) for n in range(11)]
    reciprocal = [1, 3 / 4, (harmonic[4] - harmonic[1]) / 3, (harmonic[10] - harmonic[4]) / 6, 1 / 3, harmonic[10] / 10]
    assert found["val/red/mrr"] == pytest.approx(sum(reciprocal) / 6)
    mid = [1, 1.5, 3, 7.5, 3, 5.5]
    assert found["val/red/mean_rank"] == pytest.approx(sum(mid) / 6)
    assert found["val/red/median_rank"] == 3
    assert found["val/red/recall_at_1_n"] == 6
    assert found["val/red/recall_at_1_n_subjects"] == 3
    assert found["val/red/recall_at_1_chance"] == pytest.approx(0.1)
    assert found["val/red/recall_at_5_chance"] == pytest.approx(0.5)
    assert found["val/red/mrr_chance"] == pytest.approx(harmonic[10] / 10)
    assert found["val/red/mean_rank_chance"] == found["val/red/median_rank_chance"] == 5.5


def test_every_interval_is_over_the_same_resamples() -> None:
    found = report()
    for name, values in (("recall_at_1", RANKS.recall_at(1)), ("mean_rank", RANKS.mid())):
        interval = bootstrap_interval(values, PATIENTS, rng=patient_stream(3))
        assert (found[f"val/red/{name}_ci_low"], found[f"val/red/{name}_ci_high"]) == (interval.low, interval.high)


def test_the_papers_figures_come_only_when_asked_for() -> None:
    accuracies = resample_queries(RANKS.recall_at(1), 10, query_stream(3))
    asked, plain = report(bootstrap=10), report()
    assert asked.pop("val/red/recall_at_1_bootstrap_mean") == accuracies.mean()
    assert asked.pop("val/red/recall_at_1_bootstrap_se") == accuracies.std(ddof=1)
    assert asked == plain


def test_lists_without_the_own_patient_have_their_own_name() -> None:
    found = other_subjects_report(
        ranks=RANKS, clusters=PATIENTS, candidates_n=np.full(6, 10), seed=3, split="val", target="red",
        query=("green", "blue"),
    )  # fmt: skip
    prefix = "val/red/candidates_other_subjects/blue+green/recall_at_1"
    assert set(found) == {prefix + suffix for suffix in ("", "_ci_low", "_ci_high", "_chance", "_n")}
    assert found[prefix] == report()["val/red/recall_at_1"]


def test_chance_over_lists_of_different_length_is_the_mean_of_their_reciprocals() -> None:
    found = other_subjects_report(
        ranks=RANKS, clusters=PATIENTS, candidates_n=np.array([10, 10, 5, 10, 8, 10]), seed=3, split="val",
        target="red", query=("blue",),
    )  # fmt: skip
    expected = (4 / 10 + 1 / 5 + 1 / 8) / 6
    assert found["val/red/candidates_other_subjects/blue/recall_at_1_chance"] == pytest.approx(expected)


def test_tied_queries_are_spread_over_their_ranks() -> None:
    expected = np.zeros(10)
    for above, tied in zip(RANKS.n_greater, RANKS.n_tied, strict=True):
        for position in range(above, above + tied + 1):
            expected[position] += 1 / (tied + 1) / 6
    found = rank_shares(RANKS, 10)
    np.testing.assert_allclose(found, expected)
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(RANKS.recall_at(1).mean())
