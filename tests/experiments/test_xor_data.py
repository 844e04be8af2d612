"""The variables are what the paper says they are, and what is drawn for one purpose moves nothing else."""

import numpy as np
import pytest
import torch

from symile_clin.experiments.xor_data import BITS, XorSamples, all_vectors, draw_samples, index_of, inputs

N = 20_000


def _draw(n: int = N, **changed: float | str) -> XorSamples:
    settings = {"variables": 3, "bits": 4, "p": 0.3, "missing": 0.0, "seed": 0, "split": "train"} | changed
    return draw_samples(n, **settings)  # type: ignore[arg-type]  # of one type each, whatever the mapping's


@pytest.mark.parametrize("variables", [3, 4, 8])
def test_the_last_is_the_xor_of_a_whole_sample_or_the_first(variables: int) -> None:
    samples = list(_draw(variables=variables, bits=4).values.values())
    xor = np.bitwise_xor.reduce(samples[:-1])
    is_xor, is_first = (samples[-1] == xor).all(axis=1), (samples[-1] == samples[0]).all(axis=1)
    assert (is_xor | is_first).all(), "one draw for all coordinates"
    told_apart = ~(is_xor & is_first)
    assert is_xor[told_apart].mean() == pytest.approx(0.3, abs=0.015)


def test_the_others_are_fair_independent_coins() -> None:
    free = np.concatenate([_draw(variables=4).values[name] for name in "abc"], axis=1).astype(float)
    np.testing.assert_allclose(free.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(free.T), np.eye(12), atol=0.03)


def test_at_the_ends_every_sample_is_of_one_kind() -> None:
    pair, xor = _draw(p=0.0).values, _draw(p=1.0).values
    assert (pair["c"] == pair["a"]).all()
    assert (xor["c"] == (xor["a"] ^ xor["b"])).all()


def test_p_and_absence_leave_the_first_vectors_as_they_are() -> None:
    one, other = _draw(), _draw(p=0.9, missing=0.5)
    for name in "ab":
        np.testing.assert_array_equal(one.values[name], other.values[name])
    assert not np.array_equal(one.values["a"], _draw(split="val").values["a"])
    assert not np.array_equal(one.values["a"], _draw(seed=1).values["a"])
    assert not np.array_equal(one.values["a"], one.values["b"])


def test_variables_are_absent_independently_and_as_often_as_asked() -> None:
    present = np.stack(list(_draw(missing=0.2).present.values()))
    np.testing.assert_allclose(present.mean(axis=1), 0.8, atol=0.015)
    np.testing.assert_allclose(np.corrcoef(present), np.eye(3), atol=0.03)
    assert np.stack(list(_draw().present.values())).all()


def test_a_batch_holds_what_is_present_in_the_order_asked_for() -> None:
    samples = _draw(50, missing=0.4)
    rows = np.array([30, 2, 17, 2, 41])
    batch = samples.batch(rows)
    assert batch.row.tolist() == rows.tolist()
    for name, tensor in inputs(batch).items():
        expected = [samples.values[name][row] for row in rows if samples.present[name][row]]
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), np.array(expected).reshape(-1, 4))
        assert batch.present[name].tolist() == [bool(samples.present[name][row]) for row in rows]
        assert len(batch.arrays[name][BITS]) == int(batch.present[name].sum())


@pytest.mark.parametrize("bits", [1, 3, 5])
def test_all_vectors_are_all_there_is_and_know_their_place(bits: int) -> None:
    vectors = all_vectors(bits)
    assert len({tuple(vector) for vector in vectors.tolist()}) == len(vectors) == 2**bits
    np.testing.assert_array_equal(index_of(vectors), np.arange(2**bits))
