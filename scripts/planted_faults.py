"""Faults to plant in samples of an opened cohort, in memory: what `scripts/bench_audit.py` looks for.

A wrong body part cannot be planted: synthetic patients have chests only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from symile_clin.data.dataset import Batch, CohortDataset
from symile_clin.data.store import Cohort, Rows
from symile_clin.modalities.base import Modality
from symile_clin.modalities.ecg.preprocess import LEADS, RATE_HZ
from symile_clin.modalities.labs.preprocess import Ecdf
from symile_clin.rng import stream
from symile_clin.schema import ROW

Arrays = dict[str, NDArray[Any]]
#: Changes one sample's arrays (and input columns, and other columns it needs); what it draws comes from the generator.
Fault = Callable[[Arrays, np.random.Generator], Arrays]


Change = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]


class Faulty(CohortDataset):
    """Samples of a cohort, all of which have the same fault in one modality.

    Args:
        fault: name in `FAULTS`.
        seed: of what the fault draws for each sample.
    """

    def __init__(
        self, cohort: Cohort, modalities: Mapping[str, Modality], rows: Rows, *, fault: str, seed: int
    ) -> None:
        self.modality, make = FAULTS[fault]
        super().__init__(cohort, {self.modality: modalities[self.modality]}, rows)
        self.fault, self.name, self.seed = make(cohort), fault, seed

    def fetch(self, rows: Rows, *, augment: tuple[int, int] | None = None) -> Batch:
        """As `CohortDataset.fetch`; every sample has the modality."""
        batch = super().fetch(rows, augment=augment)
        own = {key: tensor.numpy() for key, tensor in batch.arrays[self.modality].items()}
        changed = [
            self.fault(
                {ROW: row, **{key: array[place] for key, array in own.items()}}, stream(self.seed, self.name, int(row))
            )
            for place, row in enumerate(rows)
        ]
        arrays = {key: torch.from_numpy(np.stack([one[key] for one in changed])) for key in own}
        return replace(batch, arrays={self.modality: arrays})


def _image(change: Change) -> Fault:
    """Of the picture itself, not of the padding below and beside it."""

    def fault(arrays: Arrays, rng: np.random.Generator) -> Arrays:
        height, width = int(arrays["cxr_height"]), int(arrays["cxr_width"])
        image = arrays["image"].copy()
        valid = change(image[0, :height, :width].astype(np.float64), rng)
        image[0, :height, :width] = np.clip(np.rint(valid), 0, 255)
        return {**arrays, "image": image}

    return fault


def _quarter_turn(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """By 90 degrees, to either side, within the largest central square; the rest stays."""
    side = min(image.shape)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = slice(top, top + side), slice(left, left + side)
    turned = image.copy()
    turned[square] = np.rot90(image[square], k=int(rng.choice([1, 3])))
    return turned


def _black_half(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    black, middle = image.copy(), image.shape[1] // 2
    black[:, slice(0, middle) if rng.random() < 0.5 else slice(middle, None)] = 0
    return black


def _noise(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return image + rng.normal(scale=40.0, size=image.shape)


def _signal(change: Change) -> Fault:
    """Of the record in its raw units, (samples, leads), around each lead's median."""

    def fault(arrays: Arrays, rng: np.random.Generator) -> Arrays:
        middle = np.median(arrays["signal"], axis=0)
        raw = change(arrays["signal"] - middle, rng) + middle
        limits = np.iinfo(np.int16)
        return {**arrays, "signal": np.clip(np.rint(raw), limits.min + 1, limits.max).astype(np.int16)}

    return fault


def _swapped_arms(signal: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG001
    """Right and left arm electrodes exchanged: I turns over, II and III, aVR and aVL change places; aVF and V stay."""
    at = {lead: place for place, lead in enumerate(LEADS)}
    swapped = signal.copy()
    swapped[:, at["I"]] = -signal[:, at["I"]]
    for one, other in (("II", "III"), ("aVR", "aVL")):
        swapped[:, at[one]], swapped[:, at[other]] = signal[:, at[other]], signal[:, at[one]]
    return swapped


def _flat_lead(signal: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    flat = signal.copy()
    flat[:, rng.integers(signal.shape[1])] = 0
    return flat


def _saturated(signal: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG001
    """An amplifier that ends at a quarter of the record's largest deflection."""
    limit = np.abs(signal).max() / 4
    return np.clip(signal, -limit, limit)


def _mains(signal: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """60 Hz on all leads, as strong as the record's own spread."""
    time = np.arange(len(signal)) / RATE_HZ
    wave = np.sin(2 * np.pi * (60 * time + rng.random()))
    noisy: NDArray[np.float64] = signal + np.sqrt(2) * signal.std() * wave[:, None]
    return noisy


def _time_shuffled(signal: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Pieces of 100 ms in random order, the same for all leads."""
    pieces = signal.reshape(-1, RATE_HZ // 10, signal.shape[1])
    shuffled: NDArray[np.float64] = pieces[rng.permutation(len(pieces))].reshape(signal.shape)
    return shuffled


def _columns_shifted(arrays: Arrays, rng: np.random.Generator) -> Arrays:  # noqa: ARG001
    """Every percentile in its neighbour's column, and whether it was observed."""
    return {**arrays, **{key: np.roll(arrays[key], 1) for key in ("percentile", "observed")}}


def _units(count: int) -> Callable[[Cohort], Fault]:
    """So many of the observed labs ten times as large."""

    def of_cohort(cohort: Cohort) -> Fault:
        columns = [
            name for name in map(str, cohort.samples) if name.startswith("lab_") and not name.endswith("_percentile")
        ]
        items = sorted((name.removeprefix("lab_") for name in columns), key=lambda item: f"{item}_percentile")
        state = cohort.state("labs")
        distributions = [Ecdf.from_plain(state[item]) for item in items]
        raw = cohort.samples[[f"lab_{item}" for item in items]].to_numpy(dtype=np.float64, na_value=np.nan)

        def fault(arrays: Arrays, rng: np.random.Generator) -> Arrays:
            percentile, values = arrays["percentile"].copy(), raw[int(arrays[ROW])]
            observed = np.flatnonzero(arrays["observed"])
            for place in rng.choice(observed, size=min(count, len(observed)), replace=False):
                percentile[place] = distributions[place](10 * values[[place]])[0]
            return {**arrays, "percentile": percentile}

        return fault

    return of_cohort


#: What is planted: words -> modality, and what makes the fault for a cohort.
FAULTS: Final[Mapping[str, tuple[str, Callable[[Cohort], Fault]]]] = {
    "X-ray: inverted": ("cxr", lambda _: _image(lambda image, _: 255 - image)),
    "X-ray: turned by 90 degrees": ("cxr", lambda _: _image(_quarter_turn)),
    "X-ray: one half black": ("cxr", lambda _: _image(_black_half)),
    "X-ray: heavy noise": ("cxr", lambda _: _image(_noise)),
    "ECG: arms swapped": ("ecg", lambda _: _signal(_swapped_arms)),
    "ECG: one lead flat": ("ecg", lambda _: _signal(_flat_lead)),
    "ECG: saturated": ("ecg", lambda _: _signal(_saturated)),
    "ECG: mains noise": ("ecg", lambda _: _signal(_mains)),
    "ECG: pieces of 100 ms shuffled": ("ecg", lambda _: _signal(_time_shuffled)),
    "labs: one value x 10": ("labs", _units(1)),
    "labs: five values x 10": ("labs", _units(5)),
    "labs: columns shifted by one": ("labs", lambda _: _columns_shifted),
}
