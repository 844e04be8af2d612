"""How much information the planted factors of synthetic patients carry about each other, in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from symile_clin.synthetic.truth import read_planting


def planted_information(planted: Mapping[str, Any]) -> dict[str, float]:
    """Information of a planting, as the manifest records it, in nats.

    A fair bit and its copy that differs with chance f share log 2 − H(f). The queries are independent of each other,
    and a synergy bit of the target is independent of all but one of them. Files and embeddings hold no more than this.

    Returns:
        `total_correlation` of all modalities; `joint/<name>`, what all others together tell of one;
        `pair/<one>+<other>`, names in alphabetical order; `synergy/<name>`, the joint beyond the sum of the pairs.
    """
    planting = read_planting(planted)
    shared, synergy = _copy(planting.shared_flip), planting.synergy_factors * _copy(planting.synergy_flip)
    total = len(planting.queries) * shared + synergy
    names = sorted((planting.target, *planting.queries))
    return {
        "total_correlation": total,
        **{f"joint/{name}": total if name == planting.target else shared + synergy for name in names},
        **{f"pair/{'+'.join(pair)}": shared if planting.target in pair else 0.0 for pair in combinations(names, 2)},
        **{f"synergy/{name}": synergy for name in names},
    }


def _copy(flip: float) -> float:
    return math.log(2) + flip * math.log(flip) + (1 - flip) * math.log(1 - flip)
