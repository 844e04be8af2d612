"""Learning rate by hand, and which parameters are decayed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from symile_clin.model import MultimodalEncoder
from symile_clin.training.schedule import learning_rate, parameter_groups


def test_warm_up_then_cosine_by_hand() -> None:
    rates = [learning_rate(step, lr=2.0, steps=12, warmup=4, schedule="cosine") for step in range(12)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[8] == pytest.approx(1.0)  # half-way down
    assert rates[6] == pytest.approx(1 + math.cos(math.pi / 4))
    assert 0 < rates[11] < 0.1
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_constant_after_warm_up() -> None:
    rates = [learning_rate(step, lr=2.0, steps=5, warmup=2, schedule="constant") for step in range(5)]
    assert rates == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_a_run_that_is_all_warm_up_ends_at_the_top() -> None:
    assert learning_rate(4, lr=2.0, steps=5, warmup=5, schedule="cosine") == 2.0
    assert learning_rate(0, lr=2.0, steps=1, warmup=0, schedule="cosine") == 2.0


def _model() -> MultimodalEncoder:
    encoder = nn.Sequential(nn.Conv1d(2, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 4))
    return MultimodalEncoder({"a": encoder}, dim=4, normalization="layernorm", logit_scale_init=0.0)


def test_norms_biases_and_the_scale_are_not_decayed() -> None:
    model = _model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = parameter_groups([model], weight_decay=0.3, decay_all=False)
    assert decayed["weight_decay"] == 0.3
    assert kept["weight_decay"] == 0.0
    assert {names[id(p)] for p in decayed["params"]} == {"encoders.a.0.weight", "encoders.a.3.weight"}
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert "logit_scale" in {names[id(p)] for p in kept["params"]}


def test_a_paper_preset_decays_everything() -> None:
    model, extra = _model(), nn.Linear(1, 1)
    (everything,) = parameter_groups([model, extra], weight_decay=0.3, decay_all=True)
    assert len(everything["params"]) == len([*model.parameters(), *extra.parameters()])
    assert everything["weight_decay"] == 0.3


def test_frozen_parameters_are_left_out() -> None:
    model = _model()
    model.logit_scale.requires_grad_(False)
    groups = parameter_groups([model], weight_decay=0.3, decay_all=True)
    assert all(parameter is not model.logit_scale for group in groups for parameter in group["params"])
    torch.optim.AdamW(groups)
