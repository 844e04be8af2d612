"""The order of a run: every sample once an epoch, even batches, and any step found again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from symile_clin.data.order import Draw, TrainingOrder

ROWS = np.arange(100, 153)


def _order(*, seed: int = 0, epochs: int = 3, batch_size: int = 8, skip: int = 0) -> TrainingOrder:
    return TrainingOrder(rows=ROWS, batch_size=batch_size, seed=seed, epochs=epochs, skip=skip)


def _plain(draws: list[Draw]) -> list[tuple[list[int], tuple[int, str, int, int]]]:
    return [(draw.rows.tolist(), draw.augmentation) for draw in draws]


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


def test_each_step_has_a_stream_of_its_own() -> None:
    streams = [draw.augmentation for draw in _order()]
    assert len(set(streams)) == len(streams)


@pytest.mark.parametrize("skip", [0, 1, 6, 7, 8, 20, 21])
def test_a_run_that_skips_goes_on_as_the_whole_would(skip: int) -> None:
    assert _plain(list(_order(skip=skip))) == _plain(list(_order())[skip:])
    assert len(_order(skip=skip)) == 21 - skip


def test_iterating_twice_gives_the_same() -> None:
    order = _order(skip=4)
    assert _plain(list(order)) == _plain(list(order))
