"""On the demo's trained model: maps are faithful to its score and lie on what was planted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.bench_attribution import COVERED, Asked, deletions, draw, pointing
from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import open_trained
from symile_clin.schema import RUNS_ROOT


@pytest.fixture(scope="module")
def asked(newcomer: Path) -> Iterator[Asked]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(newcomer)
        run = open_run(Path(RUNS_ROOT), "demo-symile-1")
        yield Asked(open_trained(run, cohort_of(run, None), device="cpu"), 40)


def test_covering_what_is_relevant_lowers_the_score_more_than_covering_at_random(asked: Asked, tmp_path: Path) -> None:
    fallen = {name: deletions(asked, name) for name in ("cxr", "ecg")}
    tenth = COVERED.index(0.1)
    for name, by_order in fallen.items():
        mean = {kind: falls.mean(axis=1)[tenth] for kind, falls in by_order.items()}
        if name == "cxr":
            assert mean["most relevant first"] > 2 * max(mean["at random"], mean["map of random weights"], 0)
            assert mean["least relevant first"] < mean["at random"]
        else:  # whatever the weights, gradients are large where an ECG's signal is (docs/benchmarks.md)
            assert mean["most relevant first"] > 1.5 * mean["at random"]
            assert mean["most relevant first"] > mean["map of random weights"]
            assert mean["most relevant first"] > mean["least relevant first"]
    draw(tmp_path / "deletion.png", fallen, float(asked.whole.std()))
    assert (tmp_path / "deletion.png").stat().st_size > 10_000


def test_more_of_the_map_lies_on_planted_findings_than_their_share_of_the_picture(asked: Asked) -> None:
    trained, random = pointing(asked), pointing(asked, trained=False)
    share, _, chance = trained["cxr"].mean(axis=0)
    assert 0.1 < chance < 0.5
    assert share > 1.3 * chance
    assert random["cxr"].mean(axis=0)[0] < 1.1 * chance
    assert trained["labs"].mean(axis=0)[1] > trained["labs"].mean(axis=0)[2], "the largest bar is of a shifted item"


def test_maps_change_with_the_weights(asked: Asked) -> None:
    """Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: the cascade's end, all weights drawn anew."""
    for name in ("cxr", "ecg", "labs"):
        trained, random = asked.maps(name), asked.maps(name, trained=False)
        alike = [
            np.corrcoef(one.ravel().argsort().argsort(), other.ravel().argsort().argsort())[0, 1]
            for one, other in zip(trained, random, strict=True)
        ]
        assert abs(float(np.mean(alike))) < 0.3, name
