"""The lab panel: labels that fit, any number of items."""

from __future__ import annotations

import numpy as np
import pytest

from symile_clin.modalities.labs.items import SYMILE_ITEMS
from symile_clin.modalities.labs.panel import LONGEST_LABEL, draw_panel, short


def test_labels_are_short_and_tell_items_apart() -> None:
    shortened = [short(item.label) for item in SYMILE_ITEMS]
    assert max(map(len, shortened)) <= LONGEST_LABEL
    assert len(set(shortened)) == len({item.label for item in SYMILE_ITEMS})
    assert short("Alanine Aminotransferase (ALT)") == "ALT"
    assert short("INR(PT)") == "INR(PT)"
    assert short("Absolute Lymphocyte Count") == "Abs. Lymphocyte"


@pytest.mark.parametrize("items", [0, 1, 10, 11, 34, 50])
def test_any_number_of_items_is_drawn(items: int) -> None:
    picture = draw_panel([f"item {i}" for i in range(items)], np.linspace(0, 1, items, dtype=np.float32))
    assert picture.shape == (320, 640, 3)
    assert (picture < 255).any() == (items > 0)
