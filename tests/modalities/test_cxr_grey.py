"""The published way from stored values to grey, and the fast resize, against loops and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from symile_clin.modalities.cxr.grey import equalise, published_grey
from symile_clin.modalities.cxr.resize import ONE, shrink
from symile_clin.rng import stream


def opencv_equalise(grey: list[list[int]]) -> list[list[int]]:
    """`cv::equalizeHist` line by line: the darkest level that occurs becomes 0, and only what lies above it counts."""
    flat = [value for row in grey for value in row]
    histogram = [flat.count(level) for level in range(256)]
    level = next(index for index, count in enumerate(histogram) if count)
    if histogram[level] == len(flat):
        return grey
    scale = np.float32(255) / np.float32(len(flat) - histogram[level])
    table, total = [0] * 256, 0
    for above in range(level + 1, 256):
        total += histogram[above]
        table[above] = min(255, round(float(np.float32(total) * scale)))
    return [[table[value] for value in row] for row in grey]


@pytest.mark.parametrize(("low", "high"), [(0, 256), (0, 12), (90, 140), (250, 256), (7, 8)])
def test_equalising_is_opencvs(low: int, high: int) -> None:
    grey = stream(0, "test", "grey", low).integers(low, high, (23, 31)).astype(np.uint8)
    assert equalise(grey).tolist() == opencv_equalise(grey.tolist())


def test_halves_are_rounded_to_even_as_opencv_does() -> None:
    # 1 + 1 of 4 pixels above the darkest: 63.75, 127.5 -> 128, 191.25
    grey = np.array([[0, 1, 2, 3, 4]], dtype=np.uint8)
    assert equalise(grey).tolist() == [[0, 64, 128, 191, 255]]


@pytest.mark.parametrize("inverted", [False, True])
def test_the_published_recipe_step_by_step(inverted: bool) -> None:
    stored = stream(0, "test", "stored").integers(-700, 3000, (20, 30)).astype(np.int16)
    low, high = int(stored.min()), int(stored.max())
    grey = [[int((int(value) - low) / (high - low) * 255) for value in row] for row in stored]
    turned = [[255 - value for value in row] for row in grey] if inverted else grey
    assert published_grey(stored, inverted=inverted).tolist() == opencv_equalise(turned)


def test_signed_values_over_the_whole_range_do_not_wrap() -> None:
    stored = np.array([[-32768, -1], [0, 32767]], dtype=np.int16)
    assert published_grey(stored, inverted=False).tolist() == [[0, 170], [170, 255]]
    grey = stream(0, "test", "bytes").integers(-128, 128, (90, 20)).astype(np.int8)
    assert (
        published_grey(grey, inverted=False).tolist() == published_grey(grey.astype(np.int16), inverted=False).tolist()
    )


def test_inverting_turns_the_order_of_greys_round_once() -> None:
    stored = np.array([[0, 1000], [2000, 4000]], dtype=np.uint16)
    assert published_grey(stored, inverted=False).tolist() == [[0, 85], [170, 255]]
    assert published_grey(stored, inverted=True).tolist() == [[255, 170], [85, 0]]


def loop_resize(line: NDArray[np.uint8], target: int) -> list[float]:
    """One line by the definition: a triangle over the inputs around each output's centre."""
    scale = len(line) / target
    reach = max(1.0, scale)
    resized = []
    for output in range(target):
        centre, total, weights = (output + 0.5) * scale, 0.0, 0.0
        for place, value in enumerate(line):
            weight = max(0.0, 1 - abs(place + 0.5 - centre) / reach)
            total, weights = total + weight * int(value), weights + weight
        resized.append(total / weights)
    return resized


@pytest.mark.parametrize(("size", "target"), [(100, 13), (64, 64), (65, 32), (20, 47), (7, 1)])
def test_resizing_a_line_is_the_loops(size: int, target: int) -> None:
    line = stream(0, "test", "line", size).integers(0, 256, size).astype(np.uint8)
    found = shrink(np.repeat(line[None], 3, axis=0), target, 3)
    assert found.shape == (3, target)
    # the loop keeps the inputs that Pillow leaves out at the ends of a triangle, whose weights are almost nothing
    np.testing.assert_allclose(found[1], loop_resize(line, target), atol=1.01)


@pytest.mark.parametrize(
    ("height", "width", "small"),
    [
        (610, 500, (64, 78)),
        (500, 610, (78, 64)),
        (300, 200, (320, 480)),
        (321, 320, (320, 321)),
        (3050, 2500, (320, 390)),
    ],
)
def test_resizing_is_within_a_grey_level_of_pillow_on_the_hardest_edges(
    height: int, width: int, small: tuple[int, int]
) -> None:
    picture = stream(0, "test", "edges", height).integers(0, 2, (height, width)).astype(np.uint8) * 255
    expected = np.asarray(Image.fromarray(picture).resize(small, Image.Resampling.BILINEAR), dtype=int)
    assert np.abs(expected - shrink(picture, *small)).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_a_flat_picture_stays_flat(level: int) -> None:
    picture = np.full((611, 503), level, dtype=np.uint8)
    assert (shrink(picture, 64, 77) == level).all()


def test_every_sum_is_exact_in_float32() -> None:
    assert 255 * ONE + ONE // 2 < 1 << 24
