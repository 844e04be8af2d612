"""The rooms' released forms: arrays of a release pass through, pictures of them look like the originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from symile_clin.errors import ConfigError, SourceError
from symile_clin.modalities.labs.items import SYMILE_ITEMS
from symile_clin.modalities.labs.released import TABLE_ORDER
from symile_clin.modalities.registry import ROOMS, modalities_of, released_forms
from symile_clin.modalities.released import ReleasedForm
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import SPEC, Tree

OWN = {"modalities": {"cxr": {"room": "cxr", "short_side": 32, "long_side": 40}, "ecg": {"room": "ecg"}}}
RELEASED = {
    "modalities": {
        "cxr": {"room": "cxr", "short_side": 32, "long_side": 32, "stored": "released"},
        "ecg": {"room": "ecg", "stored": "released"},
    }
}


def test_a_picture_of_a_released_x_ray_is_the_one_it_was_made_of() -> None:
    own, released = modalities_of(OWN)["cxr"], modalities_of(RELEASED)["cxr"]
    grey = np.random.default_rng(0).integers(0, 256, (1, 1, 40, 40)).astype(np.uint8)
    size = torch.tensor([32])
    columns = {"cxr_height": size, "cxr_width": size}
    tensor = own.to_input({"image": torch.from_numpy(grey), **columns}, None)
    assert torch.equal(released.to_input({"image": tensor, **columns}, None), tensor)
    assert (own.augmentation_draws, released.augmentation_draws) == (2, 0)
    stored = tensor.numpy()
    picture = released.render({"image": stored[0]}, {})
    np.testing.assert_array_equal(picture, np.repeat(grey[0, 0, :32, :32, None], 3, axis=2))


def test_a_released_ecg_passes_through_and_is_drawn_without_its_gain() -> None:
    own, released = modalities_of(OWN)["ecg"], modalities_of(RELEASED)["ecg"]
    raw = np.random.default_rng(0).integers(-300, 300, (2, 5000, 12)).astype(np.int16)
    tensor = own.to_input({"signal": torch.from_numpy(raw)}, None)
    assert tensor.shape[1:] == released.arrays["signal"].shape
    assert torch.equal(released.to_input({"signal": tensor}, None), tensor)
    stored = tensor.numpy()
    picture = released.render({"signal": stored[0]}, {"ecg_gain": np.nan, "ecg_baseline": None})
    assert picture.shape == (640, 1280, 3)
    assert picture.min() < picture.max()


@pytest.mark.parametrize("room", ["cxr", "ecg"])
def test_a_build_cannot_say_that_its_arrays_are_a_releases(room: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    tree.complete(10_000_000, 20_000_000)
    spec = tmp_path / "spec.yaml"
    spec.write_text(dump_yaml(apply_overrides(SPEC, [f"modalities.{room}.stored=released"])))
    with pytest.raises(ConfigError, match=f"modalities.{room}.stored: released"):
        build_cohort(spec=str(spec), out=tmp_path / "c", workers=1, tracking_uri=None, progress=Quiet(), **tree.write())  # type: ignore[arg-type]  # sources by option


def test_forms_are_of_registered_rooms_in_the_order_of_the_releases_columns() -> None:
    forms = released_forms()
    assert list(forms) == ["cxr", "ecg", "labs"]
    assert set(forms) <= set(ROOMS)
    assert all(issubclass(form, ReleasedForm) for form in forms.values())


def test_the_published_order_of_lab_columns_holds_every_item_once() -> None:
    """As the published constants and labs_means.json have them: by how common they are."""
    assert sorted(TABLE_ORDER) == sorted(item.itemid for item in SYMILE_ITEMS)
    assert len(TABLE_ORDER) == 50
    assert (TABLE_ORDER[0], TABLE_ORDER[-1]) == (51221, 52135)


def test_the_whole_table_has_94_columns() -> None:
    modalities = modalities_of({"modalities": {name: {"room": name} for name in ("cxr", "ecg", "labs")}})
    columns = 16
    for name, form in released_forms().items():
        modality = modalities[name]
        empty = {column: [None] for column in modality.columns}
        frame = pd.DataFrame(empty).astype(dict(modality.columns))
        columns += form(modality).table(frame).shape[1]
    assert columns == 94


@pytest.mark.parametrize(
    ("shapes", "documents", "room"),
    [
        ({"cxr": (3, 32, 40)}, {}, "cxr"),
        ({"labs_percentiles": (3,), "labs_missingness": (1,)}, {"labs_means.json": {"1_percentile": 0.5}}, "labs"),
        ({"labs_percentiles": (1,), "labs_missingness": (1,)}, {"labs_means.json": {"albumin": 0.5}}, "labs"),
        ({"labs_percentiles": (1,), "labs_missingness": (1,)}, {"labs_means.json": [0.5]}, "labs"),
    ],
)  # fmt: skip
def test_shapes_and_documents_of_something_else_are_refused(
    shapes: dict[str, tuple[int, ...]], documents: dict[str, object], room: str
) -> None:
    with pytest.raises(SourceError):
        released_forms()[room].options(shapes=shapes, documents=documents)
