"""A chest phantom: the geometry of a frontal and a lateral X-ray, with four findings that can be shown or not.

Drawn on a canvas in body coordinates: x from the midline in half-widths of an upright film (positive to the image's
right, the patient's left), y from the film's top (0) to its bottom (1). A value is roughly the thickness of tissue:
0 is air, 1 is bone over soft tissue. `place` resamples the canvas onto a film.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Canvas = NDArray[Any]  # float32; numpy types lose track of it in arithmetic

# How strongly each finding shows.
HEART_REACH = (0.30, 0.56)  #: of the left heart border from the midline, without and with an enlarged heart
EFFUSION_HEIGHT = 0.13  #: of the fluid at the chest wall, in film heights
CONSOLIDATION = 0.90  #: share of the lobe's air that is filled
EDEMA = 0.80  #: share of the perihilar air that is filled

PIXELS_PER_UNIT = 112  #: of the canvas, a little less than half the resolution of a small film
FILM_ASPECT = 1.22  #: height to width of an upright film: one y is 2 * FILM_ASPECT x
CHEST_HALF_WIDTH = 0.84
HILUM = (0.17, 0.47)
_X_REACH, _Y_REACH = 1.40, 0.08


def _edge(distance: Canvas, softness: float) -> Canvas:
    """0 outside, 1 inside, a smooth step of the given half-width between; `distance` is positive inside."""
    step = np.clip(distance * np.float32(0.5 / softness) + np.float32(0.5), 0, 1)
    smooth: Canvas = step * step * (3 - 2 * step)
    return smooth


class _Grid:
    """Coordinates of the canvas and what follows from them alone; made once per process."""

    def __init__(self) -> None:
        columns = round(2 * _X_REACH * PIXELS_PER_UNIT)
        rows = round((1 + 2 * _Y_REACH) * 2 * FILM_ASPECT * PIXELS_PER_UNIT)
        self.x = np.linspace(-_X_REACH, _X_REACH, columns, dtype=np.float32)[None, :]
        self.y = np.linspace(-_Y_REACH, 1 + _Y_REACH, rows, dtype=np.float32)[:, None]
        self.side = np.abs(self.x)
        # The rib cage: narrow and round at the apex, full below the hilum.
        height = np.clip((0.70 - self.y) / 0.65, 0, 1)
        self.chest = (CHEST_HALF_WIDTH * np.sqrt(1 - height**3.0) + 1e-3).astype(np.float32)
        self.lateral = np.clip(self.side / self.chest, 0, 1)  #: 0 at the midline, 1 at the chest wall
        upper_mediastinum = 0.10 + 0.06 * np.clip((0.22 - self.y) / 0.22, 0, 1) ** 2
        self.thorax = _edge(self.chest - self.side, 0.016) * _edge(self.side - upper_mediastinum, 0.02)
        # Angle and distance as seen from the nearer hilum, from which the vessels branch.
        dx, dy = self.side - HILUM[0], (self.y - HILUM[1]) * 2 * FILM_ASPECT
        self.from_hilum = np.hypot(dx, dy)
        turn = np.arctan2(dy, dx) / (2 * math.pi) + np.where(self.x < 0, 0, 0.37) + 0.03 * np.sin(11 * self.from_hilum)
        self.angle = (np.mod(turn, 1) * _ANGLES).astype(np.int32) % _ANGLES
        self.branching = (0.24 * np.exp(-self.from_hilum / 0.32) * _edge(self.from_hilum - 0.09, 0.05)).astype(
            np.float32
        )
        self.hila = self.blob(-0.19, 0.47, 0.07, 0.050) + self.blob(0.20, 0.455, 0.065, 0.045)
        self.wings = self.blob(-0.35, 0.50, 0.16, 0.095) + self.blob(0.37, 0.49, 0.16, 0.095)
        self.body, self.wall = self._soft_tissue()

    def blob(self, x: float, y: float, width: float, height: float) -> Canvas:
        """A Gaussian spot of height 1."""
        across = np.exp(-0.5 * ((self.x - x) / width) ** 2)
        spot: Canvas = np.exp(-0.5 * ((self.y - y) / height) ** 2) * across
        return spot

    def clouds(self, rng: np.random.Generator) -> Canvas:
        """Smooth noise of standard deviation about 0.8."""
        coarse = Image.fromarray(rng.standard_normal((30, 24), dtype=np.float32))
        return np.asarray(coarse.resize((self.x.size, self.y.size), Image.Resampling.BICUBIC))

    def _soft_tissue(self) -> tuple[Canvas, Canvas]:
        """Outline of neck, shoulders and flanks, and the thickness within it."""
        x, y, side = self.x, self.y, self.side
        shoulder = 0.02 + 0.13 * np.clip((side - 0.30) / 0.95, 0, 2) ** 1.2
        outline = np.maximum(_edge((y - shoulder) * 2, 0.04), _edge(0.34 - side - 0.5 * (0.05 - y), 0.04))
        armpit = np.exp(-0.5 * ((side - 1.14 + 0.05 * y) / 0.025) ** 2) * _edge(y - 0.42, 0.08)
        windpipe = np.exp(-0.5 * ((x - 0.012) / 0.038) ** 4) * _edge(0.37 - y, 0.03)
        spine = np.exp(-0.5 * (x / 0.095) ** 2) * (0.85 + 0.15 * np.cos(2 * math.pi * y / 0.052))
        wall = (
            0.50
            + 0.08 * np.clip(side, 0, 1.1) ** 2
            - 0.10 * np.clip((0.16 - y) / 0.2, 0, 1)
            + 0.07 * spine * (0.6 + 0.4 * y)
            - 0.10 * windpipe
            - 0.25 * armpit
        )
        return outline, wall.astype(np.float32)


_ANGLES = 1024


@functools.cache
def _grid() -> _Grid:
    return _Grid()


@functools.cache
def _rib_profile() -> Canvas:
    """Brightness across one rib and the space below it: two bright cortices with marrow between them."""
    across = np.abs(np.linspace(0, 1, 512, endpoint=False, dtype=np.float32) - 0.3)
    cortex = np.exp(-0.5 * ((across - 0.19) / 0.035) ** 2)
    profile: Canvas = (0.6 * _edge(0.22 - across, 0.05) + 0.5 * cortex).astype(np.float32)
    return profile


def _ribs(count: Canvas) -> Canvas:
    """Ribs: the whole part of `count` is the rib's number, its fraction the place across it."""
    profile = _rib_profile()
    ribs: Canvas = profile[(count * profile.size).astype(np.int32) & (profile.size - 1)]
    return ribs


@functools.cache
def _bones(build: int) -> tuple[Canvas, Canvas]:
    """Ribs, then collar bones and shoulder blades, of one of a few builds (-4 to 4: ribs closer or wider)."""
    grid = _grid()
    y, side, s = grid.y, grid.side, grid.lateral
    spacing = 0.066 + 0.0012 * build
    # Behind, ribs leave the spine nearly level and fall at the side; in front they fall towards the breastbone.
    behind = _ribs((y + 0.035 * s - 0.135 * s**3 + 0.30) / spacing) * _edge(side - 0.10, 0.03)
    front = _ribs((y - 0.20 * (1 - s) + 0.33) / (spacing * 1.12)) * _edge(s - 0.42, 0.12) * _edge(y - 0.18, 0.1)
    cage = _edge(grid.chest - 0.005 - side, 0.02) * _edge(y - 0.09, 0.03)
    ribs = cage * np.clip(1.15 - 0.75 * y, 0.25, 1) * (0.080 * behind + 0.042 * front)
    reach = np.clip((side - 0.06) / 0.80, 0, 1)
    from_axis = np.abs(y - (0.165 - 0.105 * reach + 0.018 * np.sin(2 * math.pi * reach)))
    collar = (0.6 * _edge(0.015 - from_axis, 0.003) + 0.4 * np.exp(-0.5 * ((from_axis - 0.012) / 0.003) ** 2)) * (
        _edge(side - 0.12, 0.04) * _edge(0.98 - side, 0.05)
    )
    blade = side - (0.68 + 0.22 * (y - 0.12)) - 0.05 * np.sin(9 * y)
    scapula = (
        (_edge(blade, 0.015) * 0.5 + np.exp(-0.5 * (blade / 0.012) ** 2))
        * _edge(0.48 - y, 0.05)
        * _edge(y - 0.10, 0.03)
    )
    return ribs.astype(np.float32), (0.085 * collar + 0.03 * scapula).astype(np.float32)


def _silhouette(enlarged: int, size: float) -> tuple[Canvas, Canvas]:
    """Right and left border of heart and great vessels at each height, as distances from the midline (rows, 1)."""
    y = _grid().y
    left_reach = HEART_REACH[enlarged] * (1 + 0.05 * size)
    right_reach = 0.10 + 0.36 * (left_reach - 0.30)
    descent = np.clip((y - 0.40) / 0.30, 0, 1)
    turn_in = np.sqrt(np.clip(1 - (np.clip(y - 0.72, 0, 1) / 0.075) ** 2, 0.15, 1))
    left = 0.105 + left_reach * np.sin(0.5 * math.pi * descent) ** 1.3 * turn_in
    left = left + 0.075 * np.exp(-0.5 * ((y - 0.335) / 0.028) ** 2) + 0.04 * np.exp(-0.5 * ((y - 0.425) / 0.03) ** 2)
    right = 0.10 + right_reach * np.exp(-0.5 * ((y - 0.645) / 0.085) ** 2)
    return right.astype(np.float32), left.astype(np.float32)


def frontal(rng: np.random.Generator, findings: Sequence[int], habitus: Sequence[float]) -> Canvas:
    """A frontal chest on the canvas.

    Args:
        rng: small differences between films of one patient.
        findings: enlarged heart, perihilar edema, pleural effusion, upper right consolidation; each 0 or 1.
        habitus: standard normal draws that stay with the patient: soft tissue, build, heart size, depth of breath.
    """
    grid = _grid()
    enlarged, edema, effusion, consolidation = findings
    stout, build, heart_size, breath = (float(np.clip(value, -2, 2)) for value in habitus)
    x, y, side = grid.x, grid.y, grid.side

    # The diaphragm's domes, the right one higher; fluid hides the angles and climbs the chest wall in a meniscus.
    dome = np.where(x < 0, 0.735, 0.755) + 0.012 * breath + 0.135 * ((side - 0.40) / 0.44) ** 2
    floor = dome.astype(np.float32) + 0 * y
    if effusion:
        levels = EFFUSION_HEIGHT * (1 + 0.12 * rng.standard_normal(2))  # seldom equal on both sides
        floor = np.minimum(floor, 0.82 - np.where(x < 0, levels[0], levels[1]) * (0.55 + grid.lateral**4))
    above = _edge((floor - y) * 2, 0.05 if effusion else 0.02)
    right, left = _silhouette(enlarged, heart_size)
    heart = _edge(left - x, 0.022) * _edge(x + right, 0.022) * _edge((0.80 - y) * 2, 0.1)
    lungs = grid.thorax * above

    clouds = grid.clouds(rng)
    vessels = np.clip(rng.standard_normal(_ANGLES // 8, dtype=np.float32), 0.2, 2)
    vessels = np.interp(np.arange(_ANGLES) / 8, np.arange(vessels.size), vessels).astype(np.float32)
    markings = grid.branching * vessels[grid.angle] * (1 + 0.5 * edema) + 0.35 * grid.hila + 0.03 * clouds
    filled = np.zeros_like(markings)
    if consolidation:
        # The right upper lobe, down to the sharp line of the minor fissure.
        dx, dy = rng.normal(0, 0.012, 2)
        lobe = grid.blob(-0.44 + float(dx), 0.31 + float(dy), 0.20, 0.10)
        fissure = _edge((0.415 - 0.03 * side - y) * 2, 0.025)
        filled = filled + CONSOLIDATION * np.clip(1.25 * lobe, 0, 1) * fissure * (1 + 0.16 * clouds)
    if edema:
        filled = filled + EDEMA * np.clip(grid.wings, 0, 1) * (1 + 0.22 * clouds)  # the bat's wing; periphery spared
    air = lungs * (1 - heart) * np.clip(1 - filled, 0, 1) * np.clip(1 - markings, 0, 1.1)

    ribs, girdle = _bones(round(2 * build))
    stomach = _edge(1 - ((x - 0.36) / 0.15) ** 2 - ((y - 0.86) / 0.04) ** 2, 0.5)
    tissue = (
        grid.wall
        + 0.04 * stout * grid.lateral
        + 0.08 * (1 - above) * _edge(0.87 - side, 0.04)
        + 0.05 * heart * above * _edge(y - 0.10, 0.06)
        - 0.44 * air
        - 0.08 * stomach * (1 - effusion)
        + ribs * (0.30 + 0.70 * air)
        + girdle
        + 0.006 * clouds
    )
    chest: Canvas = (grid.body * np.clip(tissue, 0.02, 1)).astype(np.float32)
    return chest


def lateral(rng: np.random.Generator, findings: Sequence[int], habitus: Sequence[float]) -> Canvas:
    """A lateral chest on the canvas, the breastbone to the left; arguments as for `frontal`."""
    grid = _grid()
    enlarged, edema, effusion, consolidation = findings
    stout, build, heart_size, breath = (float(np.clip(value, -2, 2)) for value in habitus)
    x, y = grid.x, grid.y
    clouds = grid.clouds(rng)

    spine = 0.45 + 0.15 * np.sin(math.pi * np.clip(y, 0, 1)) - 0.05 * y
    sternum = -0.28 - 0.34 * np.sin(0.5 * math.pi * np.clip((y + 0.05) / 0.75, 0, 1))
    floor = 0.74 + 0.012 * breath + 0.20 * np.clip(x + 0.25, 0, 2) ** 2 + 0.05 * np.clip(-x - 0.25, 0, 2)
    if effusion:
        floor = np.minimum(floor, 0.82 - EFFUSION_HEIGHT * (0.3 + np.clip(x + 0.3, 0, 1)))
    above = _edge((floor - y) * 2, 0.05 if effusion else 0.025)
    lungs = _edge(x - sternum - 0.06, 0.04) * _edge(spine + 0.17 - x, 0.05) * above
    lungs = lungs * _edge(y - 0.09 - 0.35 * (x - 0.08) ** 2, 0.03)
    half = HEART_REACH[enlarged] * (1 + 0.05 * heart_size) + 0.06
    dx, dy = x + 0.22, (y - 0.64) * 2 * FILM_ASPECT
    heart = _edge(1 - ((dx * 0.9 + dy * 0.44) / half) ** 2 - ((dy * 0.9 - dx * 0.44) / (half * 0.9)) ** 2, 0.3)
    to_arch = np.hypot(x - 0.08, (y - 0.40) * 2 * FILM_ASPECT)
    arch = np.exp(-0.5 * ((to_arch - 0.21) / 0.06) ** 2) * _edge(0.40 - y, 0.06)
    windpipe = _edge(0.055 - np.abs(x - 0.02 - 0.25 * y), 0.02) * _edge(0.42 - y, 0.03)
    filled = 0.25 * grid.blob(0.10, 0.46, 0.12, 0.05) + 0.05 * clouds + 0.45 * arch
    filled = (
        filled
        + 0.5 * consolidation * grid.blob(-0.05, 0.28, 0.22, 0.08)
        + 0.4 * edema * grid.blob(0.08, 0.47, 0.25, 0.1)
    )
    air = lungs * (1 - 0.9 * heart) * np.clip(1 - filled, 0, 1)

    body = _edge(x - sternum + 0.12, 0.05) * _edge(spine + 0.38 + 0.06 * stout - x, 0.05)
    vertebrae = _edge(0.11 - np.abs(x - spine), 0.04) * (0.8 + 0.2 * np.cos(2 * math.pi * y / 0.062))
    ribs = _ribs((y - 0.22 * (0.4 - x) + 0.4) / (0.070 + 0.002 * build)) * lungs
    shoulders = _edge(0.13 - y + 0.08 * np.abs(x - 0.1), 0.10)
    tissue = (
        0.50
        + 0.10 * (1 - above) * _edge(y - 0.5, 0.05)
        + 0.10 * shoulders
        - 0.38 * air
        - 0.10 * windpipe
        + 0.11 * vertebrae
        + 0.035 * ribs
        + 0.08 * np.exp(-0.5 * ((x - sternum) / 0.03) ** 2)
        + 0.006 * clouds
    )
    chest: Canvas = (body * np.clip(tissue, 0.02, 1)).astype(np.float32)
    return chest


def place(
    canvas: Canvas, *, rows: int, columns: int, tilt: float, zoom: tuple[float, float], shift: tuple[float, float]
) -> Canvas:
    """Resample the canvas onto a film of rows x columns pixels.

    Args:
        tilt: of the patient, in radians.
        zoom: size of the patient on the film, across and down.
        shift: of the patient, in half-widths of the film.
    """
    half_width = 1.0 if rows >= columns else 1.2  # a landscape film shows more of the flanks and less of the neck
    step = 2 * half_width / columns * PIXELS_PER_UNIT  # canvas pixels per film pixel
    cos, sin = step * math.cos(tilt), step * math.sin(tilt)
    a, b, d, e = cos / zoom[0], sin / zoom[0], -sin / zoom[1], cos / zoom[1]
    c = canvas.shape[1] / 2 - (a * columns + b * rows) / 2 - shift[0] * PIXELS_PER_UNIT
    f = canvas.shape[0] / 2 - (d * columns + e * rows) / 2 - shift[1] * PIXELS_PER_UNIT
    film = Image.fromarray(canvas).transform(
        (columns, rows), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    return np.asarray(film)
