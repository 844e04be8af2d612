"""A synthetic 12-lead ECG: one heart vector, a sum of Gaussians a beat, seen from twelve directions.

The vector has x to the patient's left, y to the feet, z to the back, in mV (the orthogonal leads of Frank); the matrix
of Dower (1980) turns it into the eight independent leads, and Einthoven's law gives the other four.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.ecg.preprocess import LEADS, RATE_HZ, SAMPLES

# How strongly each factor shows.
LEFT_AXIS: Final = (1.25, -0.60, 0.45)  #: main QRS vector of left axis deviation with a strong left ventricle, in mV
NORMAL_AXIS: Final = (0.95, 0.75, 0.25)
T_INVERTED: Final = (-0.36, -0.26, -0.05)
ST_DEPRESSION: Final = (-0.17, -0.14, 0.06)
T_UPRIGHT: Final = (0.30, 0.24, -0.16)
LATE_RIGHT: Final = (-1.05, -0.05, -0.95)  #: the late vector of right bundle branch block
NOISE_MV: Final = 0.012
WANDER_MV: Final = 0.06

_DOWER: Final = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)


def _projection() -> NDArray[np.float64]:
    """(12, 3): leads in MIMIC's order from the heart vector."""
    one, two, chest = _DOWER[0], _DOWER[1], _DOWER[2:]
    limb = [one, two, two - one, -(one + two) / 2, two - one / 2, one - two / 2]
    return np.vstack([*limb, chest])


_PROJECTION: Final = _projection()


def twelve_leads(
    rng: np.random.Generator, factors: Sequence[int], constitution: Sequence[float]
) -> NDArray[np.float64]:
    """Ten seconds of ECG in mV, (5000, 12).

    Args:
        rng: beats, baseline and noise of this record.
        factors: ST depression with inverted T, left axis deviation, right bundle branch block; each 0 or 1.
        constitution: standard normal draws that stay with the patient: heart rate, direction and size of the vector.
    """
    rate, turn, size = (float(np.clip(value, -2, 2)) for value in constitution)
    beat = (60 / (76 + 11 * rate + 3 * rng.standard_normal())) * RATE_HZ
    gaps = beat * (1 + 0.025 * rng.standard_normal(40))
    onsets = np.cumsum(gaps) - rng.uniform(1, 2) * beat
    template = _beat(factors, beat) @ _tilt(0.10 * turn).T * (1 + 0.10 * size + 0.03 * rng.standard_normal())

    vector = np.zeros((SAMPLES, 3))
    for onset in onsets:
        start = round(float(onset))
        first, last = max(start, 0), min(start + len(template), SAMPLES)
        if first < last:
            vector[first:last] += template[first - start : last - start]

    leads: NDArray[np.float64] = vector @ _PROJECTION.T
    seconds = np.arange(SAMPLES)[:, None] / RATE_HZ
    breath = np.sin(2 * np.pi * (rng.uniform(0.15, 0.35) * seconds + rng.random(len(LEADS))))
    leads += WANDER_MV * rng.uniform(0.3, 1, len(LEADS)) * breath
    leads += NOISE_MV * rng.uniform(0.6, 1.6) * rng.standard_normal(leads.shape)
    return leads


def _tilt(angle: float) -> NDArray[np.float64]:
    """Turn of the heart vector in the frontal plane, radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _beat(factors: Sequence[int], beat: float) -> NDArray[np.float64]:
    """The heart vector over one beat, (samples, 3); the R wave peaks 0.3 s after its start."""
    ischaemia, left_axis, block = factors
    stretch = float(np.sqrt(beat / RATE_HZ))  # repolarisation follows the square root of the beat's length
    main = LEFT_AXIS if left_axis else NORMAL_AXIS
    waves = [  # time from the R wave and width in seconds, vector in mV
        (-0.165, 0.022, (0.07, 0.11, -0.02)),  # P
        (-0.024, 0.008, (-0.14, -0.05, -0.22)),  # Q, the septum
        (0.0, 0.012, main),  # R
        (0.026, 0.010, (-0.10, -0.12, 0.42)),  # S, the base of the heart
        (0.27 * stretch, 0.045 * stretch, T_INVERTED if ischaemia else T_UPRIGHT),
    ]
    if ischaemia:
        waves.append((0.13 * stretch, 0.040 * stretch, ST_DEPRESSION))
    if block:
        waves.append((0.062, 0.019, LATE_RIGHT))
    time = np.arange(round(0.95 * RATE_HZ)) / RATE_HZ - 0.3
    shape = np.stack([np.exp(-0.5 * ((time - centre) / width) ** 2) for centre, width, _ in waves], axis=1)
    vectors: NDArray[np.float64] = shape @ np.array([vector for _, _, vector in waves])
    return vectors
