"""Gradient caching: a batch encoded in chunks, twice, has the gradient of the batch encoded at once."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symile_clin.data.dataset import Batch
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.ranks import ALONE
from symile_clin.rng import seed_of
from symile_clin.training.step import optimisation_step

N, WIDTH, DIM = 12, 5, 8
SEED, STEP = 3, 7


def _model(
    *, dropout: float = 0.0, norm: bool = False, hidden: int = 32, dtype: torch.dtype = torch.float64
) -> MultimodalEncoder:
    torch.manual_seed(0)
    encoders = {
        name: nn.Sequential(
            nn.Linear(WIDTH, hidden),
            nn.BatchNorm1d(hidden) if norm else nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden, DIM),
        )
        for name in "abc"
    }
    model = MultimodalEncoder(
        encoders, dim=DIM, normalization="layernorm", logit_scale_init=-1.0, placeholders=("a", "b", "c")
    )
    return model.to(dtype)


def _batch(*, absent: bool = False, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(1)
    present = {name: torch.ones(N, dtype=torch.bool) for name in "abc"}
    if absent:
        present["a"][:5] = False  # all of the first chunk of four, and more
        present["c"][[6, 11]] = False
    vectors = {name: torch.randn(N, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for name in "abc"}
    return Batch(
        arrays={name: {"vector": vectors[name][here]} for name, here in present.items()},
        draws={"a": vectors["a"][present["a"]]},
        present=present,
        row=torch.arange(N),
    )


def _inputs(batch: Batch) -> dict[str, Tensor]:
    return {name: arrays["vector"] for name, arrays in batch.arrays.items()}


def _gradients(
    model: MultimodalEncoder,
    batch: Batch,
    chunk: int | None,
    *,
    objective: Objective | None = None,
    autocast: torch.dtype | None = None,
) -> tuple[float, dict[str, Tensor]]:
    loss = optimisation_step(
        model=model,
        objective=objective or Symile(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        batch=batch,
        prepare=_inputs,
        ranks=ALONE,
        size=len(batch),
        embed_chunk=chunk,
        place="epoch 1",
        seed=SEED,
        step=STEP,
        autocast=autocast,
        clip_norm=None,
    )
    return loss, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def _assert_equal(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]], *, by: float) -> None:
    assert one[0] == pytest.approx(other[0], rel=by)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=by, atol=by, msg=name)


@pytest.mark.parametrize("chunk", [1, 4, 5, 11, 12, 100])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("objective", [Symile(), Symile("permuted"), PairwiseClip()])
def test_chunks_have_the_loss_and_the_gradient_of_the_batch(objective: Objective, absent: bool, chunk: int) -> None:
    batch = _batch(absent=absent)
    whole = _gradients(_model(), batch, None, objective=objective)
    assert max(float(gradient.abs().max()) for gradient in whole[1].values()) > 0.01
    _assert_equal(_gradients(_model(), batch, chunk, objective=objective), whole, by=1e-12)


def test_in_float32_they_agree_within_its_rounding() -> None:
    model, batch = _model(dtype=torch.float32), _batch(absent=True, dtype=torch.float32)
    _assert_equal(_gradients(model, batch, 5), _gradients(model, batch, None), by=2e-6)


def test_in_bf16_they_agree_within_its_rounding() -> None:
    """Of a sum of chunks' gradients, each rounded, where one gradient is rounded once."""
    model, batch = _model(dtype=torch.float32), _batch(dtype=torch.float32)
    halved = _gradients(model, batch, 4, autocast=torch.bfloat16)
    _assert_equal(halved, _gradients(model, batch, None, autocast=torch.bfloat16), by=2e-2)
    assert halved[0] != _gradients(model, batch, None)[0]


def test_chunks_are_even_so_that_none_is_a_single_sample() -> None:
    """Which batch statistics over vectors refuse."""
    assert N % (N - 1) == 1
    model = _model()
    for name in "abc":
        model.encoders[name] = nn.Sequential(model.encoders[name], nn.BatchNorm1d(DIM).double())
    loss, _ = _gradients(model, _batch(absent=False), N - 1)
    assert math.isfinite(loss)


def test_dropout_has_the_same_masks_in_both_passes() -> None:
    """Against a plain backward through all chunks at once, whose masks are drawn from the same streams."""
    batch, model = _batch(absent=True), _model(dropout=0.4)
    encoded = []
    for number, rows in enumerate(np.array_split(range(N), math.ceil(N / 5))):
        torch.manual_seed(seed_of(SEED, "dropout", STEP, *((0, number) if number else ())))
        part = batch.part(rows[0], rows[-1] + 1)
        encoded.append(model(_inputs(part), part.present))
    embeddings = {name: torch.cat([one[name] for one in encoded]) for name in "abc"}
    loss = Symile().loss(embeddings, model.scale, present=batch.present)
    torch.autograd.backward(loss)
    expected = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    found = _gradients(_model(dropout=0.4), batch, 5)
    _assert_equal(found, (float(loss.detach()), expected), by=1e-12)
    assert found[0] != pytest.approx(_gradients(_model(dropout=0.4), batch, None)[0], rel=1e-6), "other masks"


def test_running_statistics_are_updated_once_a_chunk() -> None:
    model, reference, batch = _model(norm=True), _model(norm=True), _batch(absent=True)
    _gradients(model, batch, 4)
    for start in (0, 4, 8):
        part = batch.part(start, start + 4)
        reference(_inputs(part), part.present)
    changed = dict(_model(norm=True).named_buffers())
    for (name, found), (_, expected) in zip(model.named_buffers(), reference.named_buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(found, changed[name])
        if name.endswith("num_batches_tracked"):
            assert int(found) == (2 if name.startswith("encoders.a.") else 3)  # the first chunk has none of it


def _most_kept(chunk: int | None) -> int:
    """Largest number of bytes that autograd keeps for a backward at one time, parameters aside."""
    model, batch = _model(hidden=512), _batch()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept = most = 0

    def forget(size: int) -> None:
        nonlocal kept
        kept -= size

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal kept, most
            self.tensor = tensor
            size = 0 if tensor.data_ptr() in own else tensor.nbytes
            kept += size
            most = max(most, kept)
            weakref.finalize(self, forget, size)

    def unpack(one: Any) -> Tensor:
        tensor: Tensor = one.tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(Kept, unpack):
        _gradients(model, batch, chunk, objective=PairwiseClip())
    assert kept == 0
    return most


def test_memory_goes_with_the_chunk_and_not_with_the_batch() -> None:
    whole, half, tiny = _most_kept(None), _most_kept(6), _most_kept(1)
    encoders = 3 * N * 512 * 8  # what each keeps at least: its hidden layer
    assert whole > encoders
    assert half < 0.55 * whole
    assert tiny < 0.15 * whole  # of which the loss on all embeddings is a good part


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (0, 4), (4, 6), (5, 12), (11, 12), (3, 100)])
def test_a_part_of_a_batch_is_those_samples(start: int, stop: int) -> None:
    batch = _batch(absent=True)
    part = batch.part(start, stop)
    assert part.row.tolist() == list(range(start, min(stop, N)))
    for name in "abc":
        own = [list(range(N))[place] for place in batch.present[name].nonzero().flatten().tolist()]
        wanted = [number for number, place in enumerate(own) if start <= place < stop]
        assert torch.equal(part.arrays[name]["vector"], batch.arrays[name]["vector"][wanted])
        assert torch.equal(part.present[name], batch.present[name][start:stop])
    assert part.draws["a"].shape == part.arrays["a"]["vector"].shape
    assert torch.equal(part.draws["a"], part.arrays["a"]["vector"])
