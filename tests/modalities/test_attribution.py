"""What rooms must offer so that a score can be traced back, and their pictures of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin.modalities.attribution import ByLayer, ByOcclusion
from symile_clin.modalities.base import Modality
from symile_clin.modalities.drawing import share_of_largest
from symile_clin.modalities.registry import ROOMS, modalities_of
from symile_clin.rng import stream

ARCHITECTURES = [
    (name, arch)
    for name, room in ROOMS.items()
    for arch in room.Encoder.model_json_schema()["properties"]["arch"].get("enum", ["mlp"])
]
SPECS: dict[str, dict[str, Any]] = {
    "cxr": {"room": "cxr", "short_side": 64, "long_side": 80},
    "ecg": {"room": "ecg"},
    "labs": {"room": "labs", "items": [50912, 50931, 50971, 51006]},
    "features": {
        "room": "features", "path": "vectors.npy", "key": "index_row", "width": 4, "dtype": "float32",
    },
}  # fmt: skip
RELEASED: dict[str, dict[str, Any]] = {
    "cxr": {"room": "cxr", "short_side": 64, "long_side": 64, "stored": "released"},
    "ecg": {"room": "ecg", "stored": "released"},
}


def modality(name: str, specs: dict[str, dict[str, Any]] = SPECS) -> Modality:
    return modalities_of({"modalities": {name: specs[name]}})[name]


@pytest.mark.parametrize(("name", "arch"), ARCHITECTURES)
def test_every_encoder_of_every_room_can_be_explained_or_its_room_says_that_it_cannot(name: str, arch: str) -> None:
    room = modality(name)
    way = room.attribution
    assert (way is None) == (name == "features")
    if not isinstance(way, ByLayer):
        return
    encoder = room.encoder(4, room.Encoder.model_validate({"arch": arch})).eval()
    maps: list[Tensor] = []
    with way.layer(encoder).register_forward_hook(lambda _m, _i, output: maps.append(output)), torch.no_grad():
        encoder(torch.zeros(1, *room.input_shape))
    (found,) = maps
    assert found.shape[0] == 1
    assert found.dim() >= 3, "without places there is no map"
    if name == "ecg":
        assert found.shape[2] >= 100, "steps of more than 100 ms hide which wave is meant"
    else:
        assert min(found.shape[2:]) >= 64 // 32


def test_a_lab_that_is_taken_away_is_one_that_was_never_measured() -> None:
    room = modality("labs")
    rng = stream(0, "labs")
    columns = [column for column in room.columns if "percentile" not in column]
    train = pd.DataFrame(rng.normal(10, 3, (40, 4)), columns=columns)
    train.iloc[3, 2] = np.nan
    state = room.fit(train)
    sample = train.iloc[[3]]
    _, arrays = room.transform(sample, state)
    way = room.attribution
    assert isinstance(way, ByOcclusion)
    own = {key: one[0] for key, one in arrays.items()}
    variants = way.without(own, state)
    assert list(variants) == ["Creatinine", "Glucose", "Urea Nitrogen"], "only what was observed, by its name"
    for name, column in zip(variants, ["lab_50912", "lab_50931", "lab_51006"], strict=True):
        _, expected = room.transform(sample.assign(**{column: np.nan}), state)
        for key in ("percentile", "observed"):
            np.testing.assert_array_equal(variants[name][key], expected[key][0])
            assert variants[name][key].dtype == own[key].dtype
    assert own["observed"].sum() == 3, "the sample itself is not touched"
    assert way.without({"percentile": own["percentile"], "observed": np.zeros(4, dtype=np.bool_)}, state) == {}


def xray(*, height: int = 80, width: int = 64) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    image = np.zeros((1, 80, 80), dtype=np.uint8)
    image[0, :height, :width] = 120
    return {"image": image}, {"cxr_height": height, "cxr_width": width}


def halves(picture: NDArray[np.uint8], across: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return picture[:, : across - 8].astype(np.int64), picture[:, across + 8 : 2 * across].astype(np.int64)


@pytest.mark.parametrize(("corner", "rows", "columns"), [((0, 3), slice(30, 120), slice(-100, None)),
                                                         ((3, 0), slice(-120, -30), slice(0, 100))])  # fmt: skip
def test_the_map_lies_over_the_square_that_the_encoder_sees(
    corner: tuple[int, int], rows: slice, columns: slice
) -> None:
    room = modality("cxr")
    arrays, row = xray()
    relevance = np.full((4, 4), -1.0)
    relevance[corner] = 2.0
    assert room.attribution is not None
    picture = room.attribution.draw(arrays, row, relevance)
    assert picture.dtype == np.uint8
    across = round(320 * 64 / 80)
    plain, under = halves(picture, across)
    assert (np.ptp(plain, axis=2) == 0).all(), "the picture itself stays grey"
    redness = (under[..., 0] - under[..., 2]).clip(min=0)
    inside = redness[rows, columns].sum()
    assert inside > 0.8 * redness.sum() > 0
    # 8 of 80 rows above and below are outside the square
    assert redness[:26].sum() + redness[-26:].sum() < 0.02 * redness.sum()


def test_where_nothing_raises_the_score_the_picture_stays_grey() -> None:
    room = modality("cxr")
    arrays, row = xray()
    assert room.attribution is not None
    _, under = halves(room.attribution.draw(arrays, row, np.full((4, 4), -1.0)), 256)
    assert (np.ptp(under, axis=2) == 0).all()


def test_the_band_stands_at_its_time_and_traces_stay_black() -> None:
    room = modality("ecg")
    signal = (200 * np.sin(np.linspace(0, 60, 5000))[:, None] * np.ones(12)).astype(np.int16)
    arrays, row = {"signal": signal}, {"ecg_gain": 200.0, "ecg_baseline": 0}
    way = room.attribution
    assert way is not None
    relevance = np.zeros((50, 1))
    relevance[30] = 1.0  # 6.0 to 6.2 s
    plain = room.render(arrays, row)
    drawn = way.draw(arrays, row, relevance)
    sheet = drawn[: plain.shape[0], : plain.shape[1]].astype(np.int64)
    changed = np.abs(sheet - plain).sum(axis=(0, 2))
    places = (np.flatnonzero(changed > 0.2 * changed.max()) + 0.5) / plain.shape[1] * 10
    assert places.min() == pytest.approx(5.92, abs=0.05)
    assert places.max() == pytest.approx(6.28, abs=0.05)
    black = (plain < 20).all(axis=2)
    assert (sheet[black] < 20).all()
    assert drawn.shape[0] > plain.shape[0]
    assert (drawn[plain.shape[0] :, :, :] < 255).any(), "the curve below"


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_a_release_is_drawn_from_its_own_arrays(name: str) -> None:
    room = modality(name, RELEASED)
    rng = stream(0, "released")
    (key,) = room.arrays
    arrays = {key: rng.uniform(-1, 1, room.arrays[key].shape).astype(np.float32)}
    row = dict.fromkeys(room.columns)
    assert room.attribution is not None
    picture = room.attribution.draw(arrays, row, rng.standard_normal((10, 10) if name == "cxr" else (157, 1)))
    assert picture.ndim == 3
    assert picture.shape[2] == 3


@pytest.mark.parametrize("observed", [[True, False, False, False], [True] * 4])
def test_bars_of_labs_need_no_more_than_the_observed_ones(observed: list[bool]) -> None:
    room = modality("labs")
    arrays = {"percentile": np.full(4, 0.3, dtype=np.float32), "observed": np.array(observed)}
    row = {f"lab_{item}": 1.5 if here else np.nan for item, here in zip(room.items, observed, strict=True)}  # type: ignore[attr-defined]
    assert room.attribution is not None
    picture = room.attribution.draw(arrays, row, np.linspace(-2, 1, sum(observed)))
    assert picture.shape == (360, 640, 3)
    assert (picture < 255).any()


def test_shares_are_of_what_raises_the_score() -> None:
    np.testing.assert_array_equal(share_of_largest(np.array([-8.0, 0.0, 2.0, 4.0])), [0, 0, 0.5, 1])
    np.testing.assert_array_equal(share_of_largest(np.array([-8.0, -1.0])), [0, 0])
