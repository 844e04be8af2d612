"""The order of a run: every sample once an epoch, even batches, and any step found again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from symile_clin.data.order import Draw, TrainingOrder
from symile_clin.ranks import Ranks

ROWS = np.arange(100, 153)


def _order(*, seed: int = 0, epochs: int = 3, batch_size: int = 8, skip: int = 0) -> TrainingOrder:
    return TrainingOrder(rows=ROWS, batch_size=batch_size, seed=seed, epochs=epochs, skip=skip)


def _plain(draws: list[Draw]) -> list[tuple[list[int], int, int]]:
    return [(draw.rows.tolist(), draw.seed, draw.epoch) for draw in draws]


@pytest.mark.parametrize("batch_size", [3, 7, 8, 52, 53, 100])
def test_every_sample_comes_once_an_epoch_in_even_batches(batch_size: int) -> None:
    order = _order(batch_size=batch_size)
    draws = list(order)
    assert len(draws) == len(order) == 3 * order.steps
    for epoch in range(3):
        batches = [draw.rows for draw in draws[epoch * order.steps : (epoch + 1) * order.steps]]
        assert sorted(np.concatenate(batches).tolist()) == ROWS.tolist()
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 2


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        [row for draw in list(_order(seed=seed))[epoch * 7 : epoch * 7 + 7] for row in draw.rows.tolist()]
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert all(one != other for one, other in pairwise([*orders, orders[0]]))
    assert _plain(list(_order())) == _plain(list(_order()))


def test_a_draw_knows_its_epoch() -> None:
    assert [draw.epoch for draw in _order()] == [0] * 7 + [1] * 7 + [2] * 7


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_every_batch_out(processes: int) -> None:
    whole = list(_order())
    parts = [list(TrainingOrder(ROWS, 8, 0, 3, ranks=Ranks(rank, processes))) for rank in range(processes)]
    for step, (draw, shares) in enumerate(zip(whole, zip(*parts, strict=True), strict=True)):
        assert np.concatenate([share.rows for share in shares]).tolist() == draw.rows.tolist()
        assert [len(share.rows) for share in shares] == Ranks(0, processes).sizes(len(draw.rows))
        assert _order().size(step) == len(draw.rows)


@pytest.mark.parametrize("skip", [0, 1, 6, 7, 8, 20, 21])
def test_a_run_that_skips_goes_on_as_the_whole_would(skip: int) -> None:
    assert _plain(list(_order(skip=skip))) == _plain(list(_order())[skip:])
    assert len(_order(skip=skip)) == 21 - skip


def test_iterating_twice_gives_the_same() -> None:
    order = _order(skip=4)
    assert _plain(list(order)) == _plain(list(order))
