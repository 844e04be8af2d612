"""Symile finds what only all variables together tell and CLIP does not; accuracies are counted as by hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symile_clin.experiments.information import reachable
from symile_clin.experiments.xor_data import all_vectors, draw_samples
from symile_clin.experiments.xor_training import Trained, correct, train_xor
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile

SYMILE = {"name": "symile", "negatives": "permuted", "normalization": "l2"}
CLIP = {"name": "clip", "reduction": "sum", "normalization": "l2"}


def _train(objective: Mapping[str, Any], **changed: Any) -> Trained:
    settings: dict[str, Any] = {
        "variables": 3, "bits": 2, "p": 1.0, "missing": 0.0, "target": "b", "train": 1000, "val": 200, "test": 1000,
        "dim": 16, "logit_scale_init": -0.3, "epochs": 10, "batch_size": 100, "lr": 0.1, "weight_decay": 0.01,
        "decay_all": True, "seed": 0,
    }  # fmt: skip
    return train_xor(objective=objective, **(settings | changed))


def test_symile_predicts_what_clip_cannot() -> None:
    assert _train(SYMILE).correct.mean() == 1.0
    # Of 1000 test samples; four candidates, and b independent of a and of c.
    assert _train(CLIP).correct.mean() == pytest.approx(0.25, abs=0.06)


def test_between_the_ends_symile_comes_to_what_is_reachable() -> None:
    found = _train(SYMILE, p=0.5, train=2000).correct.mean()
    assert found == pytest.approx(float(reachable(0.5, 2, ends=False).all), abs=0.05)


def test_clip_predicts_what_a_pair_tells() -> None:
    found = _train(CLIP, target="c", p=0.2).correct.mean()
    assert found == pytest.approx(float(reachable(0.2, 2, ends=True).pairs), abs=0.05)


def test_absent_variables_do_not_hide_the_xor() -> None:
    missing = _train(SYMILE, missing=0.2, bits=1, target="a", epochs=10)
    assert missing.correct.mean() == 1.0


def test_equal_seeds_are_equal_to_the_bit_and_threads_do_not_matter() -> None:
    threads = torch.get_num_threads()
    one = _train(SYMILE, epochs=2)
    torch.set_num_threads(threads + 1)
    try:
        again = _train(SYMILE, epochs=2)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert (one.val_loss, one.scale) == (again.val_loss, again.scale)
    np.testing.assert_array_equal(one.correct, again.correct)
    assert _train(SYMILE, epochs=2, seed=1).val_loss != one.val_loss


class _Table(nn.Module):
    """Embeds all two-bit vectors by a table, as no linear encoder can."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, bits: Tensor) -> Tensor:
        return self.rows[(bits @ torch.tensor([1.0, 2.0])).long()]


def _model(tables: Mapping[str, Tensor]) -> MultimodalEncoder:
    encoders = {name: _Table(table) for name, table in tables.items()}
    return MultimodalEncoder(encoders, dim=4, normalization="l2", logit_scale_init=0.0)


@pytest.mark.parametrize("objective", [Symile("permuted", "l2"), PairwiseClip()])
@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_accuracy_is_what_a_loop_over_samples_and_candidates_counts(
    objective: Symile | PairwiseClip, target: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    model = _model({name: torch.randn(4, 4, generator=generator).round() + 0.25 for name in "abc"})
    samples = draw_samples(60, variables=3, bits=2, p=0.5, missing=0.0, seed=0, split="test")
    found = correct(model, objective, samples, bits=2, target=target)
    for row in range(60):
        queries = {
            name: model.encode(name, torch.tensor(samples.values[name][[row]]).float()).double()
            for name in "abc"
            if name != target
        }
        scores = {}
        for vector in all_vectors(2):
            candidate = model.encode(target, torch.tensor(vector[None]).float()).double()
            scores[tuple(vector)] = float(objective.score(queries, candidate, target=target))
        own = scores[tuple(samples.values[target][row])]
        best = max(scores.values())
        ties = sum(score == pytest.approx(best, rel=1e-12) for score in scores.values())
        assert found[row] == pytest.approx(1 / ties if own == pytest.approx(best, rel=1e-12) else 0.0)


def test_a_collapsed_model_scores_chance() -> None:
    model = _model({name: torch.ones(4, 4) for name in "abc"})
    samples = draw_samples(50, variables=3, bits=2, p=1.0, missing=0.0, seed=0, split="test")
    np.testing.assert_array_equal(correct(model, Symile("permuted", "l2"), samples, bits=2, target="b"), 0.25)
