"""Vectors from files: every kind that is read, each that is refused, and what is stored of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from symile_clin.cohort.choose import records
from symile_clin.errors import CohortError, ConfigError, SourceError, SymileClinError
from symile_clin.modalities.base import EncoderOptions
from symile_clin.modalities.features import Features, vectors
from symile_clin.modalities.features.options import EncoderSettings, FeatureOptions
from symile_clin.modalities.linked import as_text
from symile_clin.rng import stream
from symile_clin.strict import validate

COUNT, WIDTH = 37, 5
VALUES = stream(0, "vectors").standard_normal((COUNT, WIDTH)) * [1, 10, 0.1, 1, 1] + [0, 3, 100, 0, 0]
VALUES[:, 3] = 7  # constant
KEYS = [f"k{number}" for number in range(COUNT)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and chunks so small that every file has several."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vectors, "CHUNK_BYTES", 7 * WIDTH * 4)
    return tmp_path


def features(**options: Any) -> Features:
    given = validate(FeatureOptions, options, source="test")
    completed = Features.completed("notes", given)
    assert isinstance(completed, FeatureOptions)
    return Features("notes", completed)


def samples(*keys: str | None) -> pd.DataFrame:
    return pd.DataFrame({"notes_key": pd.array(keys, dtype="string")})


def stored(modality: Features, of: pd.DataFrame, train: pd.DataFrame | None = None) -> NDArray[Any]:
    modality.write_arrays(of, modality.fit(of if train is None else train), Path())
    found: NDArray[Any] = np.load("vector.npy", allow_pickle=False)
    return found


def parquet(path: str = "v.parquet", **columns: Any) -> None:
    pq.write_table(pa.table(columns), path, row_group_size=10)


def lists(kind: pa.DataType) -> pa.Array:
    return pa.array([row.tolist() for row in VALUES.astype(kind.value_type.to_pandas_dtype())], type=kind)


def as_npy(dtype: str, *, order: str = "C") -> Features:
    np.save("v.npy", np.array(VALUES.astype(dtype), order="F" if order == "F" else "C"))
    np.save("keys.npy", np.array(KEYS))
    return features(path="v.npy", ids="keys.npy", standardize=False)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_npy_of_any_kind_of_fraction(dtype: str, order: str) -> None:
    modality = as_npy(dtype, order=order)
    kept = np.float16 if dtype == "float16" else np.float32
    assert modality.arrays["vector"].dtype == np.dtype(kept).name
    found = stored(modality, samples("k30", None, "k2", "k30", "absent"))
    expected = VALUES.astype(dtype).astype(kept)
    np.testing.assert_array_equal(found, [expected[30], np.zeros(WIDTH), expected[2], expected[30], np.zeros(WIDTH)])
    assert found.dtype == kept


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), WIDTH), pa.list_(pa.float16())],
    ids=str,
)
def test_a_parquet_of_lists(kind: pa.DataType) -> None:
    parquet(key=KEYS, other=pa.array(range(COUNT)), embedding=lists(kind))
    modality = features(path="v.parquet", key="hadm_id", id="key", standardize=False)
    kept = modality.arrays["vector"].dtype
    expected = VALUES.astype(kind.value_type.to_pandas_dtype()).astype(kept)
    np.testing.assert_array_equal(stored(modality, samples("k36", "k0")), expected[[36, 0]])
    assert modality.arrays["vector"].shape == (WIDTH,)


def test_a_null_in_a_list_of_fixed_size_is_named_as_what_it_is() -> None:
    values = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"key": ["a", "b", "c"], "embedding": values}), "v.parquet")
    with pytest.raises(SourceError, match="a null in 'embedding', a list of fixed size"):
        list(vectors.open_vectors(Path("v.parquet"), key="key", column=None).chunks())


def test_a_parquet_with_a_column_for_each_number() -> None:
    numbers: dict[str, Any] = {f"d{i}": VALUES[:, i] for i in range(WIDTH)}
    parquet(sample_id=KEYS, **numbers, note=["text"] * COUNT)
    modality = features(path="v.parquet", standardize=False)
    np.testing.assert_array_equal(stored(modality, samples("k9")), VALUES[[9]].astype(np.float32))


def test_standardised_vectors_against_loops_over_train() -> None:
    modality = as_npy("float32")
    modality = Features("notes", modality.options.model_copy(update={"standardize": True}))
    train = [KEYS[number] for number in (0, 5, 5, 11, 36, 20)]  # a vector of two samples counts twice
    of = [*train, KEYS[1], None]
    found = stored(modality, samples(*of), samples(*train))
    values = VALUES.astype(np.float32).astype(np.float64)
    for number in range(WIDTH):
        own = [values[KEYS.index(key), number] for key in train]
        mean = math.fsum(own) / len(own)
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in own) / len(own)) or 1.0
        for row, key in enumerate(of):
            expected = 0.0 if key is None else (values[KEYS.index(key), number] - mean) / spread
            assert found[row, number] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert (found[:, 3] == 0).all()  # constant


def test_standardising_needs_a_train_sample() -> None:
    as_npy("float32")
    modality = features(path="v.npy", ids="keys.npy")
    with pytest.raises(
        CohortError, match=r"no train sample has a vector of 'notes'.*Check its key, and its file for vectors with NaN"
    ):
        modality.fit(samples(None, None))


def test_vectors_that_cannot_be_stored_have_a_fault() -> None:
    values = VALUES.copy()
    values[3, 1], values[4, 0], values[5, 2] = np.nan, -np.inf, 1e300
    np.save("v.npy", values)
    np.save("keys.npy", np.array(KEYS))
    rows = features(path="v.npy", ids="keys.npy").rows()
    assert rows.loc[rows["fault"] != "", "event_id"].tolist() == ["k3", "k4", "k5"]
    modality = features(path="v.npy", ids="keys.npy")
    refusals = [modality.is_valid(row, None) for row in records(rows)]
    assert [number for number, refusal in enumerate(refusals) if refusal is not None] == [3, 4, 5]


def test_a_null_in_a_list_and_a_row_without_one() -> None:
    rows: list[Any] = [[1.0, None], None, [1.0, 2.0]]
    parquet(sample_id=["a", "b", "c"], v=pa.array(rows, type=pa.list_(pa.float32())))
    assert features(path="v.parquet").rows()["fault"].tolist() == ["missing values", "missing values", ""]


def test_keys_are_compared_as_text_whatever_their_type() -> None:
    numbers = as_text(pd.Series([7, 20_000_001]), what="keys")
    assert numbers.tolist() == ["7", "20000001"]
    assert as_text(pd.Series([7.0, np.nan]), what="keys").tolist() == ["7", None]
    assert as_text(pd.Series([7, None], dtype="Int64"), what="keys").tolist() == ["7", None]
    assert as_text(pd.Series(["007", "", None]), what="keys").tolist() == ["007", None, None]
    for odd in ([7.5], [True], [pd.Timestamp(0)], [1e300], [b"7"]):
        with pytest.raises(SourceError, match="whole numbers"):
            as_text(pd.Series(odd), what="keys")


def test_keys_of_a_csv_keep_their_zeros_and_empty_ones_are_none() -> None:
    np.save("v.npy", VALUES[:3])
    Path("keys.csv").write_text("name,hadm_id\nx,007\ny,\nz,NA\n")
    rows = features(path="v.npy", ids="keys.csv", key="hadm_id").rows()
    assert rows["event_id"].fillna("-").tolist() == ["007", "-", "NA"]


def refused(kind: type[SymileClinError], match: str, **options: Any) -> None:
    with pytest.raises(kind, match=match):
        features(**options).rows()


def test_a_file_that_is_no_whole_npy_of_vectors() -> None:
    np.save("keys.npy", np.arange(COUNT))
    own: dict[str, Any] = {"path": "v.npy", "ids": "keys.npy"}
    refused(ConfigError, r"no file v\.npy", **own)
    for bad, match in (
        (VALUES[:, 0], r"float64 of shape \(37,\).*of shape \(rows, width\)"),
        (VALUES[None], r"shape \(1, 37, 5\)"),
        (VALUES.astype(int), r"int64 of shape"),
        (VALUES.astype(complex), r"complex128"),
        (VALUES[:0], "holds no vectors"),
        (VALUES[:, :0], "holds no vectors"),
        (VALUES[:7], "37 keys for 7 vectors"),
    ):
        np.save("v.npy", bad)
        refused(SourceError, match, **own)
    np.save("v.npy", np.array([{"a": 1}]), allow_pickle=True)
    refused(SourceError, "no whole .npy of numbers", **own)
    np.save("v.npy", VALUES)
    whole = Path("v.npy").read_bytes()
    for end in (0, 5, 60, -9):
        Path("v.npy").write_bytes(whole[:end])
        refused(SourceError, "no whole .npy of numbers", **own)
    Path("v.npy").write_bytes(b"PK\x03\x04" + whole)
    refused(SourceError, "no whole .npy of numbers", **own)


def test_a_parquet_without_one_vector_a_row() -> None:
    own: dict[str, Any] = {"path": "v.parquet"}
    Path("v.parquet").write_bytes(b"PAR1 and nothing else")
    refused(SourceError, "no whole Parquet file", **own)
    parquet(sample_id=["a", "b"], v=[[1.0, 2.0], [1.0]])
    refused(SourceError, r"row 1 of v has 1 numbers.*2, as in its first row", **own)
    parquet(sample_id=["a"], v=[["text"]])
    refused(SourceError, "has no column of vectors", **own)
    parquet(sample_id=["a"], v=[[1.0]], w=[[1.0]])
    refused(ConfigError, "vectors in v, w.*'column'", **own)
    refused(ConfigError, r"no column 'vv'.*[Dd]id you mean 'v'", column="vv", **own)
    refused(ConfigError, "column 'sample_id' is string", column="sample_id", **own)
    parquet(name=["a"], v=[[1.0]])
    refused(ConfigError, r"no column 'sample_id'.*Name it with 'id'", **own)
    parquet(sample_id=["a", "b"], d0=[1.0, 2.0], d1=np.array([1, 2], dtype=np.float32))
    refused(SourceError, "several types", **own)
    parquet(sample_id=["a"], v=pa.array([[]], type=pa.list_(pa.float32())))
    refused(SourceError, "holds no vectors", **own)


def test_a_key_that_is_there_twice() -> None:
    parquet(sample_id=["a", "b", "a", None, None], v=[[1.0]] * 5)
    refused(SourceError, r"1 rows more than .* values of sample_id.*Keep one row, or their mean", path="v.parquet")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"path": "v.npz"}, r"ends in neither of \.npy, \.parquet"),
        ({"path": "v.npy"}, "'key: index_row' if row i belongs to row i"),
        ({"path": "v.npy", "ids": "k.pkl"}, r"'ids' ends in none"),
        ({"path": "v.parquet", "ids": "k.npy"}, "'ids' goes with a .npy"),
        ({"path": "v.npy", "ids": "k.npy", "column": "v"}, "'column' goes with a .parquet"),
        ({"path": "v.npy", "ids": "k.npy", "key": "index_row"}, "leave out 'ids' and 'id'"),
        ({"path": "v.npy", "key": "index_row", "widht": 3}, "unknown key 'widht'"),
    ],
)
def test_options_that_do_not_fit_together(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        validate(FeatureOptions, options, source="test")


def test_a_width_that_is_not_the_files() -> None:
    np.save("v.npy", VALUES)
    with pytest.raises(ConfigError, match=r"'modalities\.notes\.width' is 4, and the vectors of v\.npy have 5"):
        features(path="v.npy", key="index_row", width=4)


@pytest.mark.parametrize("arch", ["linear", "mlp"])
def test_encoders(arch: str) -> None:
    np.save("v.npy", VALUES.astype(np.float16))
    modality = features(path="v.npy", key="index_row", standardize=False)
    options: EncoderOptions = EncoderSettings.model_validate({"arch": arch, "hidden": [7], "dropout": 0.5})
    encoder = modality.encoder(4, options)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert parameters == (4 * (WIDTH + 1) if arch == "linear" else 7 * (WIDTH + 1) + 4 * 8)
    inputs = modality.to_input({"vector": torch.from_numpy(VALUES.astype(np.float16))}, None)
    assert inputs.dtype == torch.float32
    assert encoder.eval()(inputs).shape == (COUNT, 4)


@pytest.mark.parametrize("width", [1, 511, 512, 2000])
def test_a_picture_of_any_width(width: int) -> None:
    np.save("v.npy", np.ones((2, width)))
    modality = features(path="v.npy", key="index_row")
    for vector in (np.zeros(width), np.linspace(-1, 1, width)):
        picture = modality.render({"vector": vector}, {})
        assert picture.shape == (64, 512, 3)
    assert picture[30, 5, 2] > picture[30, 5, 0] or width == 1  # blue below zero
    assert picture[30, -5, 0] > picture[30, -5, 2] or width == 1  # red above
