"""Labs to input: percentiles, then indicators; the paper's perceptron."""

from __future__ import annotations

import torch
from torch import nn

from symile_clin.modalities.labs.encoder import build, to_input
from symile_clin.modalities.labs.encoder_options import Options
from symile_clin.strict import problems


def test_percentiles_come_before_indicators() -> None:
    percentile = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    observed = torch.tensor([[True, False, True], [False, False, True]])
    tensor = to_input(percentile, observed)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.tensor([[0.1, 0.2, 0.3, 1, 0, 1], [0.4, 0.5, 0.6, 0, 0, 1]]))


def test_the_default_is_the_papers_perceptron() -> None:
    encoder = build(64, Options(), items=50)
    assert isinstance(encoder, nn.Sequential)
    assert [type(layer) for layer in encoder] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    shapes = [(layer.in_features, layer.out_features) for layer in encoder if isinstance(layer, nn.Linear)]
    assert shapes == [(100, 256), (256, 1024), (1024, 64)]
    assert encoder(torch.rand(3, 100)).shape == (3, 64)


def test_standardised_inputs_have_zero_mean_and_unit_spread() -> None:
    encoder = build(8, Options(standardize=True), items=2)
    assert isinstance(encoder, nn.Sequential)
    percentile = torch.linspace(0, 1, 10001).repeat(2, 1).T
    observed = torch.tensor([1.0, 0.0]).expand(10001, 2)
    values = encoder[0](torch.cat([percentile, observed], dim=1))
    torch.testing.assert_close(values[:, :2].mean(dim=0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(values[:, :2].std(dim=0), torch.ones(2), rtol=1e-3, atol=0)
    assert values[0, 2:].tolist() == [1.0, -1.0]
    assert encoder(torch.rand(3, 4)).shape == (3, 8)


def test_dropout_leaves_inputs_out_in_training_only() -> None:
    encoder = build(8, Options(hidden=(32,), dropout=0.5), items=4)
    values = torch.rand(3, 8)
    assert not torch.equal(encoder(values), encoder(values))
    encoder.eval()
    assert torch.equal(encoder(values), encoder(values))


def test_impossible_sizes_are_refused() -> None:
    assert problems(Options, {"hidden": []})
    assert problems(Options, {"hidden": [0]})
    assert problems(Options, {"dropout": 1.0})
    assert problems(Options, {"hidden": [64, 64], "dropout": 0.2}) == []
