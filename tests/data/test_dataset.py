"""Batches from a cohort on disk: the right rows, the right stream, the same with and without workers."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from symile_clin.data.dataset import Batch, CohortDataset, training_loader
from symile_clin.data.order import TrainingOrder
from tests.data.vectors import NAMES, modalities, vector_cohort


def _dataset(path: Path, *, parts: int = 1) -> CohortDataset:
    cohort = vector_cohort(path, parts=parts)
    return CohortDataset(cohort, modalities(), cohort.rows("train"))


@pytest.mark.parametrize("parts", [1, 3])
def test_fetch_gives_the_rows_asked_for_in_their_order(tmp_path: Path, parts: int) -> None:
    dataset = _dataset(tmp_path, parts=parts)
    rows = np.array([90, 3, 41, 40, 3])
    batch = dataset.fetch(rows)
    inputs = dataset.inputs(batch)
    assert len(batch) == 5
    assert batch.row.tolist() == rows.tolist()
    assert list(inputs) == list(NAMES)
    for name in NAMES:
        expected = [dataset.cohort.array(name, "vector").take(np.array([row]))[0] for row in (90, 41, 40)]
        np.testing.assert_array_equal(inputs[name].numpy(), np.stack(expected))
        assert batch.present[name].tolist() == [True, False, True, True, False]


def test_an_absent_modality_has_no_row_whatever_its_columns_lack(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    gain = pd.array([None if row == 3 else 2 for row in range(len(dataset.cohort.samples))], dtype="Int64")
    dataset.cohort.samples["red_gain"] = gain
    some, none = (dataset.fetch(np.array(rows), augment=(0, 1)) for rows in ([2, 3, 4], [3, 3]))
    assert some.present["red"].tolist() == [True, False, True]
    assert torch.equal(
        dataset.inputs(some)["red"], dataset.inputs(dataset.fetch(np.array([2, 4]), augment=(0, 1)))["red"]
    )
    assert dataset.inputs(none)["red"].shape == (0, 6)


def test_the_columns_a_modality_asks_for_reach_it(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    dataset.cohort.samples["red_gain"] = np.arange(len(dataset.cohort.samples), dtype=np.float64)
    one, ten = (dataset.inputs(dataset.fetch(np.array([row])))["red"] for row in (1, 10))
    stored = dataset.cohort.array("red", "vector").take(np.array([1, 10]))
    np.testing.assert_allclose(one[0].numpy(), stored[0], rtol=1e-6)
    np.testing.assert_allclose(ten[0].numpy(), 10 * stored[1], rtol=1e-6)


def test_batches_cover_every_sample_once_in_order_without_augmentation(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    batches = list(dataset.batches(40))
    assert [len(batch) for batch in batches] == [40, 40, 16]
    assert torch.cat([batch.row for batch in batches]).tolist() == dataset.rows.tolist()
    plain = dataset.fetch(dataset.rows[40:80])
    assert torch.equal(dataset.inputs(batches[1])["red"], dataset.inputs(plain)["red"])


def test_augmentation_follows_from_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)

    def added(*, seed: int, epoch: int, batch_size: int) -> dict[int, float]:
        """By row, what augmentation added to its green vector."""
        found: dict[int, float] = {}
        for draw in TrainingOrder(rows=dataset.rows, batch_size=batch_size, seed=seed, epochs=2):
            if draw.epoch == epoch:
                batch = dataset[draw]
                plain = dataset.fetch(draw.rows)
                change = (dataset.inputs(batch)["green"] - dataset.inputs(plain)["green"])[:, 0]
                rows = batch.row[batch.present["green"]].tolist()
                found |= {row: round(value, 5) for row, value in zip(rows, change.tolist(), strict=True)}
        return found

    first = added(seed=5, epoch=1, batch_size=32)
    assert len(first) == len(dataset.rows) - 1
    assert len(set(first.values())) > 80
    assert first == added(seed=5, epoch=1, batch_size=7)
    assert first != added(seed=5, epoch=0, batch_size=32)
    assert first != added(seed=6, epoch=1, batch_size=32)


def test_workers_change_nothing(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    order = TrainingOrder(rows=dataset.rows, batch_size=20, seed=5, epochs=2, skip=3)

    def all_batches(workers: int) -> list[Batch]:
        return list(training_loader(dataset, order, workers=workers, pin_memory=False))

    alone, helped = all_batches(0), all_batches(2)
    assert len(alone) == len(helped) == 7
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.row, other.row)
        for name in NAMES:
            assert torch.equal(dataset.inputs(one)[name], dataset.inputs(other)[name])


def test_more_workers_than_cores_are_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset(tmp_path)
    order = TrainingOrder(rows=dataset.rows, batch_size=20, seed=5, epochs=1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    assert training_loader(dataset, order, workers=8, pin_memory=False).num_workers == 3
    assert training_loader(dataset, order, workers=2, pin_memory=False).num_workers == 2
    for processes, share in {"2": 1, "8": 1, "1": 3}.items():  # that torchrun started here: each has its share of cores
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert training_loader(dataset, order, workers=8, pin_memory=False).num_workers == share
        assert training_loader(dataset, order, workers=0, pin_memory=False).num_workers == 0


def test_a_worker_is_sent_no_array_data(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    before = dataset.fetch(dataset.rows[:4], augment=(0, 0))  # now the arrays are open
    data = pickle.dumps(dataset)
    vectors = dataset.cohort.array("red", "vector").take(dataset.rows)
    assert vectors.tobytes()[:200] not in data
    again: CohortDataset = pickle.loads(data)  # noqa: S301  our own bytes
    after = again.fetch(dataset.rows[:4], augment=(0, 0))
    assert torch.equal(again.inputs(after)["red"], dataset.inputs(before)["red"])


def test_a_batch_moves_as_a_whole(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    batch = dataset.fetch(np.array([1, 2]), augment=(0, 0)).to("meta")
    arrays = [tensor for arrays in batch.arrays.values() for tensor in arrays.values()]
    assert len(batch.draws) == 3
    moved = [*arrays, *batch.draws.values(), *batch.present.values(), batch.row, *dataset.inputs(batch).values()]
    assert {tensor.device.type for tensor in moved} == {"meta"}
