"""Training end to end on a tiny cohort on disk: it learns, repeats itself, keeps the best, and records what it did."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import ConfigError, TrainingError
from symile_clin.evaluation.embed import embed
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.progress import Quiet
from symile_clin.ranks import ALONE
from symile_clin.tracking import NullTracker
from symile_clin.training.checkpoint import load_weights, read_training_state
from symile_clin.training.fit import FitResult, fit
from tests.data.vectors import NAMES, WIDTH, candidate_lists, modalities, vector_cohort

CPU = torch.device("cpu")


class Recorder(NullTracker):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int | None, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        self.sent.append((step, dict(values)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return vector_cohort(tmp_path_factory.mktemp("cohort"))


def _model(*, dropout: float = 0.0) -> MultimodalEncoder:
    torch.manual_seed(0)
    encoders = {
        name: nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 16)) for name in NAMES
    }
    return MultimodalEncoder(
        encoders, dim=16, normalization="layernorm", logit_scale_init=-2.0, placeholders=NAMES
    )  # row 3 lacks all


def _fit(
    cohort: Cohort,
    directory: Path,
    *,
    model: MultimodalEncoder | None = None,
    objective: Objective | None = None,
    tracker: NullTracker | None = None,
    **settings: Any,
) -> FitResult:
    directory.mkdir(parents=True, exist_ok=True)
    val = cohort.rows("val")
    defaults: dict[str, Any] = {
        "seed": 0, "epochs": 3, "batch_size": 32, "lr": 1e-2, "weight_decay": 0.01, "decay_all": False,
        "warmup_epochs": 1, "schedule": "cosine", "clip_norm": 1.0, "precision": "auto", "patience": None,
        "select_by": "retrieval", "workers": 0, "embed_chunk": None, "sync_batchnorm": False, "memory_format": "auto",
        "compile": False, "checkpoint_minutes": None,
    }  # fmt: skip
    return fit(
        model=model or _model(),
        objective=objective or Symile(),
        train=CohortDataset(cohort, modalities(), cohort.rows("train")),
        val=CohortDataset(cohort, modalities(), val),
        candidates=candidate_lists(val),
        target="blue",
        directory=directory,
        device=CPU,
        ranks=ALONE,
        tracker=tracker or NullTracker(),
        progress=Quiet(),
        **{**defaults, **settings},
    )


def _recall(cohort: Cohort, model: MultimodalEncoder, objective: Objective) -> float:
    val = cohort.rows("val")
    dataset = CohortDataset(cohort, modalities(), val)
    encoded = embed(model=model, dataset=dataset, batch_size=16, device="cpu")
    return float(
        rank(score_lists(objective, encoded.embeddings, val, candidate_lists(val), "blue")).recall_at(1).mean()
    )


def test_symile_learns_synergy_and_clip_does_not(cohort: Cohort, tmp_path: Path) -> None:
    symile = _fit(cohort, tmp_path / "symile", epochs=25)
    clip = _fit(cohort, tmp_path / "clip", epochs=25, objective=PairwiseClip(normalization="layernorm"))
    assert symile.best["val/blue/recall_at_1"] > 0.5
    assert clip.history[-1]["val/blue/recall_at_1"] < 0.3  # chance is 0.1


def test_the_best_checkpoint_is_the_one_that_was_recorded(cohort: Cohort, tmp_path: Path) -> None:
    result = _fit(cohort, tmp_path, epochs=6)
    found = [(epoch["val/blue/recall_at_1"], -epoch["val/loss"]) for epoch in result.history]
    assert found.index(max(found)) + 1 == result.best_epoch
    assert result.best == result.history[result.best_epoch - 1]
    model = _model()
    load_weights(tmp_path / "checkpoints" / "best", model=model, objective=Symile())
    assert _recall(cohort, model, Symile()) == result.best["val/blue/recall_at_1"]
    assert read_training_state(tmp_path / "checkpoints" / "best").epoch == result.best_epoch
    last = read_training_state(tmp_path / "checkpoints" / "last")
    assert (last.epoch, last.step) == (6, 18)


def test_selection_by_loss_takes_the_lowest(cohort: Cohort, tmp_path: Path) -> None:
    result = _fit(cohort, tmp_path, epochs=6, select_by="loss")
    losses = [epoch["val/loss"] for epoch in result.history]
    assert losses.index(min(losses)) + 1 == result.best_epoch


@pytest.mark.parametrize("negatives", ["exhaustive", "permuted"])
def test_the_same_seed_gives_the_same_bits(cohort: Cohort, tmp_path: Path, negatives: str) -> None:
    def run(name: str, *, seed: int = 0) -> tuple[FitResult, dict[str, torch.Tensor]]:
        model = _model(dropout=0.3)
        objective = Symile("permuted" if negatives == "permuted" else "exhaustive")
        return _fit(cohort, tmp_path / name, model=model, objective=objective, seed=seed), model.state_dict()

    first, first_weights = run("first")
    torch.rand(10)  # whatever else has drawn in between
    second, second_weights = run("second")
    other, _ = run("other", seed=1)

    def numbers(result: FitResult) -> list[dict[str, float]]:
        return [{name: value for name, value in epoch.items() if name != "train/data_wait"} for epoch in result.history]

    assert numbers(first) == numbers(second)
    assert numbers(first) != numbers(other)
    assert all(torch.equal(value, second_weights[name]) for name, value in first_weights.items())


def test_training_leaves_the_callers_random_state_alone(cohort: Cohort, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = _model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _fit(cohort, tmp_path, model=model, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_every_epoch_is_recorded_in_the_log_and_by_the_tracker(cohort: Cohort, tmp_path: Path) -> None:
    tracker = Recorder()
    result = _fit(cohort, tmp_path, tracker=tracker, lr=0.01)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6), (3, 9)]
    names = {"train/loss", "train/lr", "train/scale", "train/data_wait", "val/loss", "val/blue/recall_at_1"}
    for line, (step, sent), epoch in zip(lines, tracker.sent, result.history, strict=False):
        assert step == line["epoch"]
        assert set(sent) == names
        assert sent == epoch == {name: line[name] for name in names}
    step, final = tracker.sent[-1]
    assert step is None
    assert final["best/epoch"] == result.best_epoch
    assert final["best/val/blue/recall_at_1"] == result.best["val/blue/recall_at_1"]
    assert lines[0]["train/lr"] == 0.01  # the last of three steps of warm-up
    assert lines[0]["train/loss"] == pytest.approx(math.log(32**2), rel=0.2)


def test_training_stops_when_nothing_gets_better(cohort: Cohort, tmp_path: Path) -> None:
    model = _model()
    model.requires_grad_(False)
    model.logit_scale.requires_grad_(True)  # all embeddings stay as they are
    result = _fit(cohort, tmp_path, model=model, epochs=20, patience=2, lr=1e-9, schedule="constant", select_by="loss")
    assert len(result.history) < 20
    assert len(result.history) - result.best_epoch == 2


def test_validation_uses_the_same_negatives_in_every_epoch(cohort: Cohort, tmp_path: Path) -> None:
    model = _model()
    model.requires_grad_(False)
    model.logit_scale.requires_grad_(True)
    result = _fit(cohort, tmp_path, model=model, objective=Symile("permuted"), lr=1e-12, weight_decay=0.0)
    losses = [epoch["val/loss"] for epoch in result.history]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    assert len({epoch["train/loss"] for epoch in result.history}) == 3


def test_bf16_on_the_cpu_is_there_for_the_asking(cohort: Cohort, tmp_path: Path) -> None:
    auto, fp32, bf16 = (
        _fit(cohort, tmp_path / precision, precision=precision, epochs=1) for precision in ("auto", "fp32", "bf16")
    )
    assert auto.history[0]["train/loss"] == fp32.history[0]["train/loss"]
    assert bf16.history[0]["train/loss"] != fp32.history[0]["train/loss"]
    assert bf16.history[0]["train/loss"] == pytest.approx(fp32.history[0]["train/loss"], rel=0.05)


def test_a_bad_sample_stops_training_with_its_rows_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    cohort = vector_cohort(tmp_path / "cohort")
    _fit(cohort, tmp_path / "run", epochs=1)
    part = tmp_path / "cohort" / "arrays" / "red" / "vector-0.npy"
    vectors = np.load(part)
    vectors[11] = np.nan
    np.save(part, vectors)
    with pytest.raises(TrainingError, match=r"the loss is nan at epoch 1, step \d+ \(rows "):
        _fit(cohort, tmp_path / "run", epochs=1)
    load_weights(tmp_path / "run" / "checkpoints" / "last", model=_model(), objective=Symile())


def test_batches_without_negatives_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to contrast"):
        _fit(cohort, tmp_path, batch_size=2)
