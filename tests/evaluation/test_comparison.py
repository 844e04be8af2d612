"""Comparisons against a loop over resamples; which runs pair, which are seeds, and what swapping changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scripts import simulate_comparison
from symile_clin.errors import ConfigError, MismatchError
from symile_clin.evaluation.comparison import Comparison, compare_groups
from symile_clin.evaluation.measures import patient_stream
from symile_clin.evaluation.paired_tests import holm
from symile_clin.evaluation.scored_runs import Group, Scored, doubts, group_runs, settings_that_differ
from tests.evaluation.asked_runs import QUERIES, drawn, ranked, scored

RESAMPLES = 200


def several(**hits: float) -> list[Scored]:
    """Runs of different configs that put so many truths first."""
    rng = np.random.default_rng(5)
    return [scored(name, drawn(rng, hit=hit), config={"dim": i}) for i, (name, hit) in enumerate(hits.items())]


def compared(runs: list[Scored], **options: Any) -> Comparison:
    return compare_groups(group_runs(runs), **{"metric": "recall_at_1", "resamples": RESAMPLES, **options})


def loop(first: list[Scored], second: list[Scored], resamples: int) -> list[float]:
    """The definition: draw patients, take their queries, average each side over its runs and these queries."""
    draws, patient = patient_stream(0), first[0].ranked.patient
    patients, found = sorted(set(patient.tolist())), []

    def mean(runs: list[Scored], queries: list[int]) -> float:
        values = []
        for run in runs:
            for query in queries:
                above, tied = run.ranked.ranks.n_greater[query], run.ranked.ranks.n_tied[query]
                values.append(1 / (tied + 1) if above == 0 else 0.0)
        return sum(values) / len(values)

    for _ in range(resamples):
        chosen = [patients[i] for i in draws.integers(len(patients), size=len(patients))]
        queries = [query for one in chosen for query in np.flatnonzero(patient == one).tolist()]
        found.append(mean(first, queries) - mean(second, queries))
    return found


def test_a_difference_is_the_paired_bootstrap_of_means_over_seeds() -> None:
    rng = np.random.default_rng(1)
    uneven = np.sort(rng.integers(0, 20, size=QUERIES))
    b = [scored(f"b-{i}", replace(drawn(rng, hit=0.6), patient=uneven), config={"seed": i, "dim": 4}) for i in range(3)]
    a = [scored(f"a-{i}", replace(drawn(rng, hit=0.4), patient=uneven), config={"seed": i}) for i in range(2)]
    found = compared([a[0], b[0], b[1], a[1], b[2]])
    (one,) = found.differences
    means = np.array(loop(b, a, RESAMPLES))
    assert (one.percentile.low, one.percentile.high) == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())
    count = min((means <= 1e-12).sum(), (means >= -1e-12).sum())
    assert one.p == pytest.approx(min(1, 2 * (1 + count) / (1 + RESAMPLES)))
    of_runs = {run.run: run.values("recall_at_1").mean() for run in (*a, *b)}
    assert one.percentile.estimate == pytest.approx(
        np.mean([of_runs[run.run] for run in b]) - np.mean([of_runs[run.run] for run in a])
    )
    assert [value.group.label for value in found.values] == ["a", "b"]
    assert found.values[1].by_run == pytest.approx({run.run: of_runs[run.run] for run in b})
    sd_a, sd_b = (np.std([of_runs[run.run] for run in runs], ddof=1) for runs in (a, b))
    assert (found.values[0].seed_sd, found.values[1].seed_sd) == pytest.approx((sd_a, sd_b))
    assert one.seed_se == pytest.approx(np.sqrt(sd_a**2 / 2 + sd_b**2 / 3))
    assert one.mcnemar is None
    assert one.mcnemar_holm is None
    assert one.settings == {"dim": (4, 8)}
    assert (found.queries, found.patients) == (QUERIES, len(set(uneven.tolist())))
    assert found.chance == pytest.approx(0.1)


@pytest.mark.parametrize("metric", ["recall_at_1", "recall_at_5", "mrr", "mean_rank"])
def test_identical_runs_differ_by_nothing(metric: str) -> None:
    one = drawn(np.random.default_rng(0), hit=0.5)
    found = compared([scored("a", one), scored("copy", one, config={"dim": 9})], metric=metric)
    (difference,) = found.differences
    assert (difference.percentile.estimate, difference.percentile.low, difference.percentile.high) == (0, 0, 0)
    assert (difference.bca.low, difference.bca.high) == (0, 0)
    assert (difference.p, difference.p_holm) == (1, 1)
    assert difference.mcnemar is not None
    assert (difference.mcnemar.p, difference.mcnemar.only_first, difference.mcnemar.only_second) == (1, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_swapping_two_runs_turns_signs_and_keeps_p(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = scored("a", drawn(rng, hit=0.4))
    b = scored("b", drawn(rng, hit=0.4 + 0.1 * seed), config={"dim": 1})
    (there,), (back,) = compared([a, b]).differences, compared([b, a]).differences
    assert there.percentile.estimate == -back.percentile.estimate
    for method in ("percentile", "bca"):
        forth, turned = getattr(there, method), getattr(back, method)
        assert (forth.low, forth.high) == pytest.approx((-turned.high, -turned.low), abs=1e-12)
    assert there.p == back.p
    assert there.mcnemar is not None
    assert back.mcnemar is not None
    assert there.mcnemar.p == back.mcnemar.p
    assert (there.mcnemar.only_first, there.mcnemar.only_second) == (back.mcnemar.only_second, back.mcnemar.only_first)


def test_a_worse_run_is_found_worse_and_an_equal_one_is_not() -> None:
    reference, worse, equal = compared(several(reference=0.7, worse=0.2, equal=0.7)).values
    assert reference.percentile.estimate > worse.percentile.high
    bad, same = compared(several(reference=0.7, worse=0.2, equal=0.7)).differences
    assert bad.percentile.high < 0
    assert bad.p_holm < 0.05
    assert same.percentile.low < 0 < same.percentile.high
    assert same.p > 0.05
    assert equal.seed_sd is None
    assert same.seed_se is None


def test_p_values_are_adjusted_over_the_comparisons_made() -> None:
    runs = several(a=0.5, b=0.6, c=0.8, d=0.4)
    found = compared(runs)
    assert [(one.first, one.second) for one in found.differences] == [(1, 0), (2, 0), (3, 0)]
    assert [one.p_holm for one in found.differences] == holm([one.p for one in found.differences])
    tests = [one.mcnemar.p for one in found.differences if one.mcnemar]
    assert [one.mcnemar_holm for one in found.differences] == holm(tests)
    pairs = compared(runs, all_pairs=True).differences
    assert [(one.first, one.second) for one in pairs] == [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]
    assert [one.p for one in pairs[:3]] == [one.p for one in found.differences]
    assert [one.p_holm for one in pairs] == holm([one.p for one in pairs])


def test_only_single_runs_have_a_mcnemar_test_and_only_those_are_adjusted_for() -> None:
    rng = np.random.default_rng(0)
    a, *b = (scored(name, drawn(rng, hit=0.5), config={"dim": 1 + (name[0] == "b"), "seed": i}) for i, name in
             enumerate(("a", "b-1", "b-2")))  # fmt: skip
    c = scored("c", drawn(rng, hit=0.1), config={"dim": 3})
    to_b, to_c = compared([a, *b, c]).differences
    assert to_b.mcnemar is None
    assert to_b.mcnemar_holm is None
    assert to_c.mcnemar is not None
    assert to_c.mcnemar_holm == to_c.mcnemar.p
    assert to_c.p_holm >= to_c.p


OTHER: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "cohort": ({"cohort": ("small", "1" * 64)}, r"cohort small \(00000000\) and small \(11111111\)"),
    "split": ({"split": "val"}, "split test and val"),
    "target": ({"ranked": {"target": "red"}}, "target blue and red"),
    "lists": ({"ranked": {"protocol": "matched"}}, "lists candidates and matched"),
    "query": ({"ranked": {"query": ("green",)}}, r"query green\+red and green"),
    "rows": ({"ranked": {"query_row": 101 + np.arange(4)}}, "query rows .4 and 4; 1 and 1 without the other."),
    "lengths": ({"ranked": {"n_candidates": np.array([10, 10, 9, 10])}}, "list lengths .of 1 of 4 queries."),
    "patients": ({"ranked": {"patient": np.array([0, 1, 1, 0])}}, "which queries are of one patient"),
}


@pytest.mark.parametrize("what", OTHER)
def test_runs_on_different_queries_are_refused(what: str) -> None:
    changes, message = OTHER[what]
    one = ranked([0, 1, 2, 0])
    other = scored("b", replace(one, **changes.get("ranked", {})), config={"dim": 9})
    other = replace(other, **{key: value for key, value in changes.items() if key != "ranked"})
    with pytest.raises(MismatchError, match=f"'a' and 'b' were scored on different queries: {message}\\. Evaluate"):
        compared([scored("a", one), other])


def test_everything_that_differs_is_named() -> None:
    other = scored("b", ranked([0, 0], target="red"), config={"dim": 9}, split="val")
    with pytest.raises(MismatchError, match=r"split test and val; target blue and red; query rows \(4 and 2; 2 and 0"):
        compared([scored("a", ranked([0, 1, 2, 0])), other])


def test_other_numbers_of_the_same_patients_pair() -> None:
    one = drawn(np.random.default_rng(0), hit=0.5)
    other = replace(one, patient=1000 - one.patient)
    assert compared([scored("a", one), scored("b", other, config={"dim": 9})]).differences[0].p == 1


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    rng = np.random.default_rng(0)
    settings = {"x-10": (8, 1), "y": (9, 0), "x-2": (8, 2), "z_seed0": (7, 0), "z_seed1": (7, 1)}
    runs = [
        scored(name, drawn(rng, hit=0.5), config={"dim": dim, "seed": seed}) for name, (dim, seed) in settings.items()
    ]
    groups = group_runs(runs)
    assert [(group.label, [run.run for run in group.runs]) for group in groups] == [
        ("x", ["x-10", "x-2"]),
        ("y", ["y"]),
        ("z_seed", ["z_seed0", "z_seed1"]),
    ]
    assert doubts(groups) == []


def test_groups_that_would_be_called_alike_are_called_by_their_runs() -> None:
    rng = np.random.default_rng(0)
    runs = [
        scored(name, drawn(rng, hit=0.5), config={"dim": dim, "seed": seed})
        for name, dim, seed in (("r-1", 8, 0), ("r-2", 8, 1), ("r-3", 9, 0), ("r-4", 9, 1), ("r", 10, 0))
    ]
    assert [group.label for group in group_runs(runs)] == ["r-1 + r-2", "r-3 + r-4", "r"]


def test_the_same_config_on_another_cohort_is_no_other_seed() -> None:
    rng = np.random.default_rng(0)
    a, b = (scored(name, drawn(rng, hit=0.5), trained_on=(name, name * 64)) for name in "ab")
    groups = group_runs([a, b])
    assert [group.label for group in groups] == ["a", "b"]
    (doubt,) = doubts(groups)
    assert "trained on different cohorts" in doubt
    assert "a on a (aaaaaaaa); b on b (bbbbbbbb)" in doubt


def test_seeds_of_one_config_alone_are_compared_with_each_other() -> None:
    rng = np.random.default_rng(0)
    groups = group_runs([scored(f"x-{i}", drawn(rng, hit=0.5), config={"seed": i}) for i in range(3)])
    assert [group.label for group in groups] == ["x-0", "x-1", "x-2"]
    assert any("seeds of one config" in doubt for doubt in doubts(groups))


def test_one_training_does_not_count_as_two_seeds() -> None:
    rng = np.random.default_rng(0)
    one, other = drawn(rng, hit=0.5), drawn(rng, hit=0.5)
    rest = scored("b", other, config={"dim": 9})
    with pytest.raises(ConfigError, match="'a-1' and 'a-2' have the same settings, seed and ranks"):
        group_runs([scored("a-1", one), scored("a-2", one), rest])
    groups = group_runs([scored("a-1", one), scored("a-2", other), rest])  # trained anew with other rounding
    assert doubts(groups) == ["Some runs of a have the same seed: their spread is not only what other seeds change."]


def test_a_comparison_needs_two_runs_each_named_once() -> None:
    a = scored("a", ranked([0, 1]))
    with pytest.raises(ConfigError, match="at least two runs"):
        group_runs([a])
    with pytest.raises(ConfigError, match="'a' is named twice"):
        group_runs([a, a])


def test_the_label_of_a_group_leaves_out_its_number() -> None:
    rng = np.random.default_rng(0)
    for names, label in (
        (("demo-symile-1", "demo-symile-12"), "demo-symile"),
        (("one", "two"), "one + two"),
        (("1", "2"), "1 + 2"),
    ):
        runs = [scored(name, drawn(rng, hit=0.5), config={"seed": i}) for i, name in enumerate(names)]
        assert group_runs([*runs, scored("z", runs[0].ranked, config={"dim": 1})])[0].label == label


def test_settings_that_differ_leave_out_what_makes_no_other_config() -> None:
    first = {"seed": 0, "preset": "a", "objective.name": "x", "objective.option": "-", "dim": 8}
    second = {"seed": 1, "preset": "b", "objective.name": "y", "dim": 8, "extra": True}
    assert settings_that_differ(first, second) == {"objective.name": ("x", "y"), "extra": ("-", True)}


def test_a_groups_value_is_the_mean_over_its_runs_query_by_query() -> None:
    group = Group("g", tuple(scored(f"g-{i}", ranked(above)) for i, above in enumerate(([0, 0, 5], [0, 3, 4]))))
    assert group.values("recall_at_1").tolist() == [1.0, 0.5, 0.0]
    assert group.values("mean_rank").tolist() == [1.0, 2.5, 5.5]


def test_more_seeds_do_not_narrow_what_is_known_of_patients() -> None:
    one = drawn(np.random.default_rng(0), hit=0.5, ties=0.0)
    other = drawn(np.random.default_rng(1), hit=0.5, ties=0.0)
    widths = []
    for count in (1, 2, 4):  # seeds that agree on every query but the first
        seeds = []
        for seed in range(count):
            above = other.ranks.n_greater.copy()
            above[0] = seed
            seeds.append(scored(f"b-{seed}", ranked(above, other.ranks.n_tied), config={"dim": 1, "seed": seed}))
        (difference,) = compared([scored("a", one), *seeds]).differences
        widths.append(difference.percentile.high - difference.percentile.low)
    assert all(abs(a - b) < 0.05 * a for a, b in pairwise(widths))


def test_the_simulation_of_comparisons_is_of_runs_that_do_not_differ() -> None:
    rng = np.random.default_rng(0)
    made = simulate_comparison.hits(40, own_by_patient=0.67, seed_sd=0.0, rng=rng)
    assert made.mean() == pytest.approx(simulate_comparison.HITS, abs=0.05)
    assert np.ptp(made.mean(axis=1)) < 0.2
    moved = simulate_comparison.hits(40, own_by_patient=0.67, seed_sd=0.5, rng=rng)
    assert moved.mean(axis=1).std() > 3 * made.mean(axis=1).std()
    shares = simulate_comparison.covered(3, seeds=2, seed_sd=0.0, seed=0)
    assert set(shares) == {"patients alone", "patients and seeds", "SD between seeds"}
    assert all(0 <= share <= 1 for share in simulate_comparison.false_findings(3, own_by_patient=0.0, seed=0).values())
