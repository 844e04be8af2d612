"""Figures of an evaluation: nothing of them is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.figures import bootstrap_distribution
from symile_clin.evaluation.retrieval_figures import REFERENCES


def test_the_legend_of_resamples_fits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bootstrap_distribution(
        tmp_path / "figure.png",
        means=rng.normal(0.64, 0.03, 1_000),
        accuracy=Interval(0.638, 0.584, 0.690),
        references={name: 0.2 * place for place, name in enumerate(REFERENCES.values())},
        paper=rng.normal(0.64, 0.03, 10_000),
    )
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("L"))
    edges = np.concatenate([pixels[:, :2].ravel(), pixels[:, -2:].ravel(), pixels[:2].ravel(), pixels[-2:].ravel()])
    assert (edges == 255).all()
