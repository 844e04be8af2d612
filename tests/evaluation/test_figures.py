"""Figures of an evaluation: nothing of them is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from symile_clin.evaluation import style
from symile_clin.evaluation.bootstrap import Interval
from symile_clin.evaluation.figures import bootstrap_distribution, contribution_bars
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


@pytest.mark.parametrize(("recall", "lines"), [(0.4, 1), (0.05, 0)])
def test_what_is_above_chance_is_marked_only_where_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recall: float, lines: int
) -> None:
    drawn: list[float] = []
    monkeypatch.setattr(style, "label_line", lambda _axes, x, *_rest, **_style: drawn.append(x))
    lost = {"red": {"shuffled": Interval(0.1, 0.0, 0.2)}}
    contribution_bars(tmp_path / "bars.png", contributions=lost, target="blue", recall=recall, chance=0.1)
    assert len(drawn) == lines
