"""What modalities contribute: against loops, and where the answer is known by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.evaluation import figures
from symile_clin.evaluation.ablation import SHUFFLES, contribution_table, contributions, shuffled_means
from symile_clin.evaluation.absence import SEED, StandIns, without
from symile_clin.evaluation.bootstrap import Interval, bootstrap_interval
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.measures import drops, flat, marginalised_over, means_of, measured, patient_stream
from symile_clin.evaluation.ranked import Ranked
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.evaluation.ways import query_subsets
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.rng import stream
from tests.evaluation.test_retrieval import lists_of

N, LONG = 60, 6


def lists(seed: int = 0) -> CandidateLists:
    rng, rows = np.random.default_rng(seed), np.arange(N)
    return lists_of(rows, np.stack([np.r_[row, rng.permutation(np.delete(rows, row))[: LONG - 1]] for row in rows]))


def everything(names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    return {name: np.ones(N, dtype=np.bool_) for name in names}


def signs(seed: int, d: int = 16) -> dict[str, NDArray[np.float32]]:
    """Blue is the product of red and green, which alone tell nothing; grey is the same for all."""
    rng = np.random.default_rng(seed)
    red, green = (rng.choice([-1.0, 1.0], (N, d)).astype(np.float32) for _ in range(2))
    return {"red": red, "green": green, "blue": red * green, "grey": np.full((N, d), 0.5, np.float32)}


def report(
    embeddings: Mapping[str, NDArray[np.float32]],
    *,
    objective: Objective | None = None,
    present: Mapping[str, NDArray[np.bool_]] | None = None,
    absent: StandIns | None = None,
) -> dict[str, float]:
    query = [name for name in embeddings if name != "blue"]
    encoded = Embedded(embeddings, present or everything(list(embeddings)))
    rows, chosen = np.arange(N), objective or Symile()
    # samples that are no queries: who is marginalised over their own embedding still has it
    others = signs(100, embeddings["blue"].shape[1])
    reference = {name: embeddings[name][:20] if np.ptp(embeddings[name]) == 0 else others[name][:20] for name in query}
    stand_ins = absent or StandIns({}, reference, 1.0)

    def asked(subset: tuple[str, ...]) -> Ranked:
        changed = without(encoded, [name for name in query if name not in subset], stand_ins)
        scores = score_lists(
            chosen, changed.embeddings, rows, lists(), "blue", present=changed.present, stand_ins=stand_ins
        )
        return Ranked(
            "blue", "candidates", tuple(sorted(subset)), rows, rows // 2, rank(scores), np.full(N, LONG, np.int64)
        )

    ranked = [asked(subset) for subset in query_subsets(list(embeddings), "blue")]
    shuffles = shuffled_means(
        objective=chosen, encoded=encoded, rows=rows, lists=lists(), stand_ins=stand_ins, full=ranked[0]
    )
    means = [*(mean for one in ranked[1:] for mean in means_of(one)), *drops(ranked), *shuffles]
    metrics = flat(measured(means, seed=3), split="test", full={"blue": query})
    return metrics | marginalised_over(ranked, split="test", full={"blue": query}, stand_ins={"blue": stand_ins})


def drop(metrics: Mapping[str, float], query: str) -> tuple[float, float, float]:
    name = f"test/blue/candidates/{query}/recall_at_1_drop"
    return metrics[name], metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"]


def recall_of(vectors: Mapping[str, NDArray[np.float64]], query: int) -> float:
    """Product scores of one query's list, one by one; a share of 1 among those level with the best."""
    scores = [
        sum(
            math.prod(float(vector[query, t]) for vector in vectors.values()) * float(blue)
            for t, blue in enumerate(row)
        )
        for row in BLUE[lists().candidate_rows[query]]
    ]
    if any(score > scores[0] for score in scores[1:]):
        return 0.0
    return 1 / scores.count(scores[0])


BLUE = np.random.default_rng(9).normal(size=(N, 4)).round(2).astype(np.float32)


def test_shuffled_retrieval_equals_a_loop() -> None:
    rng = np.random.default_rng(1)
    red = (BLUE + rng.normal(size=(N, 4))).astype(np.float32)
    green = (1 + 0.3 * rng.normal(size=(N, 4))).astype(np.float32)
    present = everything(["red", "blue"]) | {"green": rng.random(N) < 0.7}
    learned = np.ones(4, np.float32)
    green[~present["green"]] = learned
    absent = StandIns({"red": learned, "green": learned}, {}, 1.0)
    metrics = report({"red": red, "green": green, "blue": BLUE}, present=present, absent=absent)
    own = {"red": red.astype(np.float64), "green": green.astype(np.float64)}
    full = [recall_of(own, query) for query in range(N)]
    for name in ("red", "green"):
        lost: list[list[float]] = []
        for number in range(SHUFFLES):
            having = [int(i) for i in stream(SEED, "shuffled", name, number).permutation(np.flatnonzero(present[name]))]
            changed = own[name].copy()
            for place, taker in enumerate(having):
                changed[taker] = own[name][having[place - 1]]
            lost.append([recall_of({**own, name: changed}, query) for query in range(N)])
        mean = np.mean(lost, axis=0)
        query = "green+red_shuffled" if name == "red" else "green_shuffled+red"
        prefix = f"test/blue/candidates/{query}/recall_at_1"
        assert metrics[prefix] == pytest.approx(float(mean.mean()), abs=1e-12)
        paired = bootstrap_interval(np.array(full) - mean, np.arange(N) // 2, rng=patient_stream(3))
        assert drop(metrics, query) == pytest.approx((paired.estimate, paired.low, paired.high), abs=1e-12)
        assert metrics[f"{prefix}_chance"] == pytest.approx(1 / LONG)
        assert metrics[f"{prefix}_ci_low"] <= metrics[prefix] <= metrics[f"{prefix}_ci_high"]


def test_a_modality_that_carries_nothing_contributes_exactly_nothing() -> None:
    metrics = report(signs(0))
    assert drop(metrics, "green+grey_shuffled+red") == (0.0, 0.0, 0.0)
    assert drop(metrics, "green+red") == (0.0, 0.0, 0.0)
    for other in ("green+grey", "grey+red", "green_shuffled+grey+red", "green+grey+red_shuffled"):
        assert drop(metrics, other)[0] > 0.6


def test_planted_synergy_needs_both() -> None:
    """The product finds the match whenever both are there, and does no better than chance without either."""
    for seed in range(3):
        embeddings = {name: array for name, array in signs(seed).items() if name != "grey"}
        metrics = report(embeddings)
        for query in ("red", "green", "green_shuffled+red", "green+red_shuffled"):
            estimate, low, high = drop(metrics, query)
            assert low > 0.6
            assert high < 1
            assert metrics[f"test/blue/candidates/{query}/recall_at_1"] == pytest.approx(1 / LONG, abs=0.12)
            assert estimate == pytest.approx(1 - metrics[f"test/blue/candidates/{query}/recall_at_1"], abs=1e-9)


def test_for_pairs_the_modality_that_tells_all_contributes_all() -> None:
    """Red equals blue; green is noise of another seed: by inner products only red matters."""
    rng = np.random.default_rng(5)
    blue = rng.choice([-1.0, 1.0], (N, 32)).astype(np.float32)
    noise = (0.05 * rng.choice([-1.0, 1.0], (N, 32))).astype(np.float32)
    metrics = report({"red": blue, "green": noise, "blue": blue}, objective=PairwiseClip())
    assert drop(metrics, "red")[0] == pytest.approx(0.0, abs=0.02)
    assert drop(metrics, "green")[1] > 0.6


def test_a_collapsed_model_is_at_chance_with_and_without() -> None:
    metrics = report({name: np.full((N, 5), 0.1, np.float32) for name in ("red", "green", "blue")})
    for query in ("red", "green", "green_shuffled+red", "green+red_shuffled"):
        prefix = f"test/blue/candidates/{query}/recall_at_1"
        assert metrics[prefix] == pytest.approx(1 / LONG, abs=1e-12)
        assert drop(metrics, query) == (0.0, 0.0, 0.0)


def test_who_lacks_it_anyway_loses_nothing() -> None:
    """With red for half of the queries, and its placeholder for the others, half as much is lost."""
    embeddings = {name: array for name, array in signs(2).items() if name != "grey"}
    present = everything(list(embeddings)) | {"red": np.arange(N) % 2 == 0}
    learned = np.zeros(16, np.float32)
    whole = report(embeddings, absent=StandIns({"red": learned, "green": learned}, {}, 1.0))
    embeddings["red"] = np.where(present["red"][:, None], embeddings["red"], learned)
    halved = report(embeddings, present=present, absent=StandIns({"red": learned, "green": learned}, {}, 1.0))
    assert drop(whole, "green")[0] == pytest.approx(1 - 1 / LONG)
    assert drop(halved, "green")[0] == pytest.approx((1 - 1 / LONG) / 2)


def test_the_table_and_the_figure_show_what_was_found(tmp_path: Path) -> None:
    metrics = report({name: array for name, array in signs(0).items() if name != "grey"})
    found = contributions(metrics, split="test", target="blue", query=["red", "green"])
    assert list(found) == ["red", "green"]
    estimate, low, high = drop(metrics, "green")
    assert found["red"]["taken away"] == Interval(estimate, low, high)  # without red there is green
    assert found["red"]["shuffled"].estimate == drop(metrics, "green+red_shuffled")[0]
    text = contribution_table(found)
    assert f"{estimate:.3f}  [{low:.3f}, {high:.3f}]" in text
    assert "mean of 10" in text
    figures.contribution_bars(tmp_path / "bars.png", contributions=found, target="blue", recall=1.0, chance=1 / LONG)
    assert imread(tmp_path / "bars.png")[:, :, :3].std() > 0.02


def test_with_a_single_query_modality_it_is_only_shuffled(tmp_path: Path) -> None:
    metrics = report({name: array for name, array in signs(0).items() if name in ("red", "blue")})
    assert {name.split("/")[3] for name in metrics} == {"red_shuffled"}
    found = contributions(metrics, split="test", target="blue", query=["red"])
    assert set(found["red"]) == {"shuffled"}
    assert "taken away" not in contribution_table(found)
    nothing: dict[str, Any] = {"red": {"shuffled": Interval(0.0, 0.0, 0.0)}}
    figures.contribution_bars(tmp_path / "bars.png", contributions=nothing, target="blue", recall=0.1, chance=0.1)
