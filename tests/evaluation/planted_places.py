"""Pictures in which a bright square is where a coin says, and a model that learns to read the coin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin import files
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.encoders.conv import SmallImageEncoder
from symile_clin.modalities.attribution import ByLayer, ByOcclusion
from symile_clin.modalities.base import Arrays, ArraySpec, Modality, Row
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.rng import stream
from symile_clin.schema import ARRAYS_DIR, ROW, SAMPLE_ID, SAMPLES, SPLIT, STATE_DIR, SUBJECT_ID, present_column

NAMES = ("picture", "list", "vector")
SIDE, SQUARE, ITEMS = 32, 8, 6
#: Top left corners of the squares that show a coin's two sides, and of one that shows nothing.
CORNERS = ((4, 4), (4, 20))
DISTRACTOR = (20, 12)


class OverPicture(ByLayer):
    """Maps of a small image encoder."""

    reading: ClassVar[str] = "Dark is much."

    def layer(self, encoder: nn.Module) -> nn.Module:
        return cast(SmallImageEncoder, encoder).maps

    def draw(self, arrays: Arrays, row: Row, relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
        assert row[SPLIT] == "test"
        assert relevance.any()
        return np.repeat(arrays["pixels"][0][:, :, None], 3, axis=2).clip(0, 1).astype(np.uint8)


class OverList(ByOcclusion):
    """Bits that are taken away by what the state says stands for them."""

    reading: ClassVar[str] = "Right is up."

    def without(self, arrays: Arrays, state: Mapping[str, Any]) -> Mapping[str, Arrays]:
        bits = arrays["bits"]
        variants = {}
        for place in np.flatnonzero(bits >= 0):
            changed = bits.copy()
            changed[place] = state["absent"]
            variants[f"bit {place}"] = {"bits": changed}
        return variants

    def draw(self, arrays: Arrays, row: Row, relevance: NDArray[np.float64]) -> NDArray[np.uint8]:
        assert row[SPLIT] == "test"
        assert len(arrays["bits"]) == len(relevance)
        return np.full((4, len(relevance), 3), 7, dtype=np.uint8)


class Planted:
    """The part of a modality that attribution uses."""

    input_columns: ClassVar[tuple[str, ...]] = ()
    augmentation_draws = 0

    def __init__(self, name: str) -> None:
        self.name = name
        shape = {"picture": (1, SIDE, SIDE), "list": (ITEMS,), "vector": (ITEMS,)}[name]
        self.arrays = {"pixels" if name == "picture" else "bits": ArraySpec("float32", shape)}
        self.attribution = {"picture": OverPicture(), "list": OverList(), "vector": None}[name]

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:
        assert draws is None
        (only,) = arrays.values()
        return only

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        return samples[["coin"]].astype("float64") if self.name == "picture" else samples.iloc[:, :0]


def modalities() -> dict[str, Modality]:
    """The three modalities by name."""
    return {name: cast(Modality, Planted(name)) for name in NAMES}


def planted_cohort(path: Path, *, count: int = 96, lacking: Mapping[str, list[int]] | None = None) -> Cohort:
    """Write and open a cohort of test samples; list and vector hold the picture's coin and noise.

    Every other picture shows a square that tells nothing, too.

    Args:
        lacking: by modality, rows that lack it.
    """
    rng = stream(0, "planted places")
    coins = rng.integers(0, 2, count)
    pictures = 0.2 * rng.standard_normal((count, 1, SIDE, SIDE))
    for number, (picture, coin) in enumerate(zip(pictures[:, 0], coins, strict=True)):
        for top, left in [CORNERS[coin], *([DISTRACTOR] if number % 2 else [])]:
            picture[top : top + SQUARE, left : left + SQUARE] += 2
    arrays = {"picture": pictures.astype(np.float32)}
    for name in ("list", "vector"):
        bits = rng.integers(0, 2, (count, ITEMS)).astype(np.float32)
        bits[:, 0] = coins
        arrays[name] = bits
    rows = np.arange(count)
    samples = pd.DataFrame({ROW: rows, SAMPLE_ID: rows, SUBJECT_ID: rows, SPLIT: ["test"] * count, "coin": coins})
    entries = {}
    for name, modality in modalities().items():
        samples[present_column(name)] = ~np.isin(rows, (lacking or {}).get(name, []))
        (key,) = modality.arrays
        (path / ARRAYS_DIR / name).mkdir(parents=True)
        np.save(path / ARRAYS_DIR / name / f"{key}.npy", arrays[name])
        part = {"file": f"{key}.npy", "rows": count}
        entries[name] = {key: {"shape": [*arrays[name].shape[1:]], "dtype": "float32", "parts": [part]}}
        files.write_json(path / STATE_DIR / f"{name}.json", {"absent": 0.5})
    samples.to_parquet(path / SAMPLES)
    content = {"name": "planted", "hash": "0", "spec": {}, "synthetic": False, "arrays": entries}
    files.write_manifest(path, stage="cohort", content=content)
    return open_cohort(path)


def fresh_model(objective: Objective, *, seed: int = 0, placeholders: tuple[str, ...] = ()) -> MultimodalEncoder:
    """Encoders with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders: dict[str, nn.Module] = {
            "picture": SmallImageEncoder(dim=8, channels=1),
            "list": nn.Sequential(nn.Linear(ITEMS, 16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, 8)),
            "vector": nn.Sequential(nn.BatchNorm1d(ITEMS), nn.Linear(ITEMS, 8)),
        }
        return MultimodalEncoder(
            encoders,
            dim=8,
            normalization=objective.normalization,
            logit_scale_init=objective.initial_logit_scale(8, 3),
            placeholders=placeholders,
        )


def train(model: MultimodalEncoder, objective: Objective, cohort: Cohort, *, steps: int = 40) -> None:
    """Full batches of the whole cohort, enough to read the coin."""
    inputs = {}
    for name, modality in modalities().items():
        (key,) = modality.arrays
        inputs[name] = torch.from_numpy(cohort.array(name, key).take(np.arange(len(cohort.samples))))
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=3e-3, weight_decay=0.01)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = objective.loss(model(inputs), model.scale)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    optimizer.zero_grad()
    model.eval()
