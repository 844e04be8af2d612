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
from symile_clin.rng import stream
from tests.data.vectors import NAMES, modalities, vector_cohort


def _dataset(path: Path, *, parts: int = 1) -> CohortDataset:
    cohort = vector_cohort(path, parts=parts)
    return CohortDataset(cohort, modalities(), cohort.rows("train"))


@pytest.mark.parametrize("parts", [1, 3])
def test_fetch_gives_the_rows_asked_for_in_their_order(tmp_path: Path, parts: int) -> None:
    dataset = _dataset(tmp_path, parts=parts)
    rows = np.array([90, 3, 41, 40, 3])
    batch = dataset.fetch(rows, rng=None)
    assert len(batch) == 5
    assert batch.row.tolist() == rows.tolist()
    assert list(batch.inputs) == list(NAMES)
    for name in NAMES:
        stored = dataset.cohort.array(name, "vector")
        for position, row in enumerate(rows.tolist()):
            expected = np.zeros(6) if row == 3 else stored.take(np.array([row]))[0]
            np.testing.assert_array_equal(batch.inputs[name][position].numpy(), expected)
        assert batch.present[name].tolist() == [True, False, True, True, False]


def test_an_absent_modality_is_zeros_whatever_its_columns_lack(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    gain = pd.array([None if row == 3 else 2 for row in range(len(dataset.cohort.samples))], dtype="Int64")
    dataset.cohort.samples["red_gain"] = gain
    some, none = (dataset.fetch(np.array(rows), rng=stream(0, "test")) for rows in ([2, 3, 4], [3, 3]))
    assert some.present["red"].tolist() == [True, False, True]
    assert not some.inputs["red"][1].any()
    assert torch.equal(some.inputs["red"][[0, 2]], dataset.fetch(np.array([2, 4]), rng=stream(0, "test")).inputs["red"])
    assert none.inputs["red"].shape == (2, 6)
    assert not none.inputs["red"].any()


def test_the_columns_a_modality_asks_for_reach_it(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    dataset.cohort.samples["red_gain"] = np.arange(len(dataset.cohort.samples), dtype=np.float64)
    one, ten = (dataset.fetch(np.array([row]), rng=None).inputs["red"] for row in (1, 10))
    stored = dataset.cohort.array("red", "vector").take(np.array([1, 10]))
    np.testing.assert_allclose(one[0].numpy(), stored[0], rtol=1e-6)
    np.testing.assert_allclose(ten[0].numpy(), 10 * stored[1], rtol=1e-6)


def test_batches_cover_every_sample_once_in_order_without_augmentation(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    batches = list(dataset.batches(40))
    assert [len(batch) for batch in batches] == [40, 40, 16]
    assert torch.cat([batch.row for batch in batches]).tolist() == dataset.rows.tolist()
    plain = dataset.fetch(dataset.rows[40:80], rng=None)
    assert torch.equal(batches[1].inputs["red"], plain.inputs["red"])


def test_augmentation_is_drawn_from_the_steps_own_stream(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    order = TrainingOrder(rows=dataset.rows, batch_size=32, seed=5, epochs=2)
    for draw in order:
        expected = dataset.fetch(draw.rows, rng=stream(*draw.augmentation))
        assert torch.equal(dataset[draw].inputs["green"], expected.inputs["green"])
        assert not torch.equal(expected.inputs["green"], dataset.fetch(draw.rows, rng=None).inputs["green"])


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
            assert torch.equal(one.inputs[name], other.inputs[name])


def test_more_workers_than_cores_are_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset(tmp_path)
    order = TrainingOrder(rows=dataset.rows, batch_size=20, seed=5, epochs=1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    assert training_loader(dataset, order, workers=8, pin_memory=False).num_workers == 3
    assert training_loader(dataset, order, workers=2, pin_memory=False).num_workers == 2


def test_a_worker_is_sent_no_array_data(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    before = dataset.fetch(dataset.rows[:4], rng=None)  # now the arrays are open
    data = pickle.dumps(dataset)
    vectors = dataset.cohort.array("red", "vector").take(dataset.rows)
    assert vectors.tobytes()[:200] not in data
    again: CohortDataset = pickle.loads(data)  # noqa: S301  our own bytes
    assert torch.equal(again.fetch(dataset.rows[:4], rng=None).inputs["red"], before.inputs["red"])


def test_a_batch_moves_as_a_whole(tmp_path: Path) -> None:
    batch = _dataset(tmp_path).fetch(np.array([1, 2]), rng=None).to("meta")
    assert {tensor.device.type for tensor in [*batch.inputs.values(), *batch.present.values(), batch.row]} == {"meta"}
