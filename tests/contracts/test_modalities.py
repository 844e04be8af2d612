"""What every registered modality must hold to, whatever its room."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from symile_clin.cohort.build import Assembled
from symile_clin.cohort.choose import records
from symile_clin.errors import SourceError
from symile_clin.modalities.base import Modality, RoomOptions
from symile_clin.modalities.linked import Linked
from symile_clin.modalities.registry import ROOMS
from symile_clin.modalities.synthetic_patient import SyntheticOptions
from symile_clin.rng import stream
from symile_clin.schema import EVENT_ID, EVENT_TIME, KEY, SAMPLE_COLUMNS, SUBJECT_ID, present_column
from symile_clin.strict import Strict
from tests.cohort import tree as trees
from tests.cohort.tree import ADMITTED, HOUR, Tree, build, open_catalog, tiny_spec

NAMES = sorted(ROOMS)
#: The tiny spec has the rooms of MIMIC; this one's file is beside the tests.
OWN = "{room: features, path: features.npy, ids: ids.npy, key: hadm_id, width: 3, dtype: float32}"
FEATURES = f"modalities.features={OWN}"
Small = tuple[Tree, Assembled]


def modality_called(name: str) -> Modality:
    return tiny_spec(FEATURES).make_modalities(ROOMS)[name]


@pytest.fixture(scope="module", autouse=True)
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A vector for each sample, of which one row is of no sample."""
    folder = tmp_path_factory.mktemp("vectors")
    np.save(folder / "features.npy", stream(0, "vectors").standard_normal((7, 3)).astype(np.float32))
    np.save(folder / "ids.npy", np.arange(20_000_001, 20_000_008))
    with contextlib.chdir(folder):
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Six samples and the tree they come from."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(6):
        tree.complete(10_000_001 + number, 20_000_001 + number, ADMITTED + number * HOUR)
    return tree, build(tree, FEATURES)


def stored(name: str, small: Small) -> tuple[pd.DataFrame, dict[str, np.ndarray[Any, Any]]]:
    """Samples and arrays of a modality, in row order."""
    _, built = small
    modality = modality_called(name)
    state = modality.fit(built.samples)
    samples, fitted = modality.transform(built.samples, state)
    if isinstance(modality, Linked):
        with tempfile.TemporaryDirectory() as folder:
            modality.write_arrays(samples, state, Path(folder))
            return samples, {array: np.load(Path(folder) / f"{array}.npy") for array in modality.arrays}
    read = {array: trees.stored(built, name, array) for array, spec in modality.arrays.items() if not spec.fitted}
    return samples, {**read, **fitted}


def batch(name: str, small: Small) -> Mapping[str, torch.Tensor]:
    samples, arrays = stored(name, small)
    columns = {column: samples[column].to_numpy() for column in modality_called(name).input_columns}
    return {key: torch.tensor(values) for key, values in {**arrays, **columns}.items()}


def query_file(name: str, small: Small, sample: pd.Series[Any], folder: Path) -> Path:
    """The file that a sample's modality was read from; of values in tables, one with the same values."""
    tree, _ = small
    modality = modality_called(name)
    if modality.reads_from is not None:
        return tree.roots[modality.reads_from] / str(sample[f"{name}_path"])
    if isinstance(modality, Linked):
        row = np.flatnonzero(np.load("ids.npy") == int(sample[f"{name}_key"]))[0]
        np.save(folder / "vector.npy", np.load("features.npy")[row])
        return folder / "vector.npy"
    # tables of events have one column of values for each item
    items = {column.removeprefix("lab_"): sample[column] for column in modality.columns if column[-1].isdigit()}
    lines = ["itemid,valuenum", *(f"{item},{float(value)!r}" for item, value in items.items() if value == value)]
    (folder / "values.csv").write_text("\n".join(lines))
    return folder / "values.csv"


@pytest.mark.parametrize("name", NAMES)
class TestRoom:
    """Contracts of one room."""

    def test_it_is_registered_under_its_own_name_with_strict_options(self, name: str) -> None:
        room = ROOMS[name]
        assert room.room == name
        assert issubclass(room.Options, RoomOptions)
        assert issubclass(room.Encoder, Strict)
        assert room.tables or issubclass(room, Linked)
        assert all(set(spec.key) | spec.unused | spec.optional <= set(spec.columns) for spec in room.tables)
        assert not any(set(spec.key) & spec.unused for spec in room.tables)

    def test_its_columns_are_its_own(self, name: str) -> None:
        modality = modality_called(name)
        assert not set(modality.columns) & {*SAMPLE_COLUMNS, present_column(name)}
        others = [column for other in NAMES if other != name for column in modality_called(other).columns]
        assert not set(modality.columns) & set(others)
        assert set(modality.input_columns) <= set(modality.columns)
        renamed = ROOMS[name]("other", modality.options)
        assert not set(modality.columns) & set(renamed.columns)

    def test_it_crosses_process_borders(self, name: str) -> None:
        modality = modality_called(name)
        again = pickle.loads(pickle.dumps(modality))  # noqa: S301  our own bytes
        assert (again.name, again.options, again.columns) == (name, modality.options, modality.columns)

    def test_its_events_have_the_agreed_columns_and_one_row_per_row_of_its_table(
        self, name: str, small: Small, tmp_path: Path
    ) -> None:
        tree, _ = small
        modality = modality_called(name)
        with open_catalog(tree.roots, tmp_path) as catalog:
            events = catalog.frame(modality.events(catalog))
        assert {SUBJECT_ID, EVENT_TIME, EVENT_ID, KEY, "eligible", "ineligible_reason"} <= set(events.columns)
        assert len(events) == (len(tree.rows[modality.tables[0].name]) if modality.tables else 7)
        assert events["eligible"].all()
        assert events["ineligible_reason"].isna().all()
        assert not events.duplicated([EVENT_ID, KEY]).any()
        assert modality.keyed or events[KEY].nunique() == 1
        assert ("path" in events.columns) == (modality.reads_from is not None)

    def test_its_columns_and_arrays_have_the_types_it_declares(self, name: str, small: Small) -> None:
        modality = modality_called(name)
        samples, arrays = stored(name, small)
        for column, dtype in modality.columns.items():
            assert samples[column].dtype == pd.Series([], dtype=dtype).dtype, column
        assert set(arrays) == set(modality.arrays)
        for array, spec in modality.arrays.items():
            assert arrays[array].shape == (len(samples), *spec.shape)
            assert arrays[array].dtype == spec.dtype

    def test_its_state_is_json_and_enough_to_transform_again(self, name: str, small: Small) -> None:
        _, built = small
        modality = modality_called(name)
        state = modality.fit(built.samples)
        again = json.loads(json.dumps(state, allow_nan=False))
        first, second = modality.transform(built.samples, state), modality.transform(built.samples, again)
        pd.testing.assert_frame_equal(first[0], second[0])
        for array, values in first[1].items():
            np.testing.assert_array_equal(values, second[1][array])

    def test_its_placeholder_is_a_row_of_zeros(self, name: str) -> None:
        modality = modality_called(name)
        placeholder = modality.placeholder()
        assert set(placeholder) == set(modality.arrays)
        for array, spec in modality.arrays.items():
            assert placeholder[array].shape == spec.shape
            assert placeholder[array].dtype == spec.dtype
            assert not placeholder[array].any()

    def test_its_input_is_finite_float_and_the_same_without_augmentation(self, name: str, small: Small) -> None:
        modality = modality_called(name)
        first, second = modality.to_input(batch(name, small), None), modality.to_input(batch(name, small), None)
        assert first.dtype == torch.float32
        assert first.shape == (6, *modality.input_shape)
        assert bool(torch.isfinite(first).all())
        assert torch.equal(first, second)

    def test_its_augmentation_is_a_function_of_the_draws_sample_by_sample(self, name: str, small: Small) -> None:
        modality = modality_called(name)
        draws = torch.from_numpy(stream(0, "augment").random((6, modality.augmentation_draws)))
        drawn = modality.to_input(batch(name, small), draws)
        assert drawn.shape == modality.to_input(batch(name, small), None).shape
        order = [4, 0, 5]
        some = modality.to_input({key: tensor[order] for key, tensor in batch(name, small).items()}, draws[order])
        assert torch.equal(drawn[order], some)

    def test_the_file_of_a_sample_gives_its_arrays_and_input_to_the_bit(
        self, name: str, small: Small, tmp_path: Path
    ) -> None:
        modality = modality_called(name)
        samples, arrays = stored(name, small)
        state = modality.fit(small[1].samples)
        for row in (0, 3):
            read = modality.read_query(query_file(name, small, samples.iloc[row], tmp_path), state)
            assert set(read) <= {*modality.arrays, *modality.columns}
            for array, values in arrays.items():
                assert read[array].dtype == values.dtype
                np.testing.assert_array_equal(read[array], values[row])
            for column in set(read) & set(modality.columns):
                np.testing.assert_array_equal(read[column].astype(float), np.float64(samples[column].iloc[row]))
            needed = (*modality.arrays, *modality.input_columns)
            one = {key: torch.tensor(read[key])[None] for key in needed}
            own = {key: values[row : row + 1] for key, values in batch(name, small).items()}
            assert torch.equal(modality.to_input(one, None), modality.to_input(own, None))
            picture = modality.render({key: read[key] for key in modality.arrays}, read)
            assert picture.dtype == np.uint8

    def test_a_file_that_is_not_there_or_something_else_is_one_clear_error(self, name: str, tmp_path: Path) -> None:
        modality = modality_called(name)
        state = {"50912": {"values": [1.0], "counts": [1]}, "50931": {"values": [1.0], "counts": [1]}}
        with pytest.raises(SourceError, match="absent: file missing"):
            modality.read_query(tmp_path / "absent", state)
        junk = tmp_path / "junk"
        for suffix in ("", ".hea", ".dat"):
            junk.with_name(f"junk{suffix}").write_bytes(bytes(range(256)))
        with pytest.raises(SourceError, match="junk"):
            modality.read_query(junk, state)

    def test_its_encoder_fits_its_input(self, name: str, small: Small) -> None:
        modality = modality_called(name)
        arch = {"arch": "small"} if "small" in str(modality.Encoder.model_fields["arch"].annotation) else {}
        encoder = modality.encoder(16, modality.Encoder.model_validate(arch)).eval()
        with torch.inference_mode():
            embedding = encoder(modality.to_input(batch(name, small), None))
        assert embedding.shape == (6, 16)
        assert bool(torch.isfinite(embedding).all())

    def test_its_picture_is_rgb(self, name: str, small: Small) -> None:
        modality = modality_called(name)
        samples, arrays = stored(name, small)
        picture = modality.render({array: values[2] for array, values in arrays.items()}, records(samples)[2])
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert picture.min() < picture.max()

    def test_its_summaries_are_finite_numbers(self, name: str, small: Small) -> None:
        samples, _ = stored(name, small)
        summaries = modality_called(name).summaries(samples)
        assert summaries
        assert all(np.isfinite(value) for one in summaries for value in one.values.values())
        assert len({one.title for one in summaries}) == len(summaries)

    def test_its_synthetic_writer_fills_its_tables(self, name: str) -> None:
        modality = modality_called(name)
        assert modality.synthetic_factors >= 1 or not modality.tables
        assert set(modality.synthetic_tables()) <= {spec.name for spec in (*modality.tables, *modality.synthetic_only)}
        assert SyntheticOptions().dirt < 1


def test_importing_the_registry_loads_no_heavy_library() -> None:
    program = (
        "import sys, symile_clin.modalities.registry\n"
        "print([name for name in ('torch', 'ibis', 'duckdb', 'matplotlib', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
