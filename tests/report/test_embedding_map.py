"""The report's map of embeddings."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from symile_clin.errors import ConfigError
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.page import Missing, Picture, Section
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.objectives.gram import Gram
from symile_clin.report import embedding_map
from symile_clin.report.embedding_map import STATES, Method, embedding_map_section, flatten, frequent, query_vectors
from symile_clin.rng import stream
from tests.evaluation.planted_places import NAMES, modalities

N = 40


def embedded(*, absent: int = 0, dim: int = 6) -> Embedded:
    rng = stream(0, "embedded")
    vectors = {name: rng.standard_normal((N, dim)).astype(np.float32) for name in NAMES}
    present = {name: np.ones(N, dtype=np.bool_) for name in NAMES}
    vectors["list"][:absent] = np.nan
    present["list"][:absent] = False
    return Embedded(vectors, present)


def samples(states: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"coin": states or [0.0, 1.0] * (N // 2)})


def section(
    given: Embedded, objective: Objective | None = None, *, states: list[float] | None = None, method: Method = "pca"
) -> Section:
    return embedding_map_section(
        embedded=given, samples=samples(states), modalities=modalities(), objective=objective or Symile(),
        target="picture", seed=0, method=method,
    )  # fmt: skip


def picture_of(found: Section) -> Picture:
    (one,) = [block for block in found.blocks if isinstance(block, Picture)]
    return one


def test_the_pca_is_that_of_the_covariance() -> None:
    vectors = stream(1, "pca").standard_normal((30, 4)) * [5, 3, 1, 0.5]
    flat = flatten(vectors, method="pca", seed=0)
    values, directions = np.linalg.eigh(np.cov(vectors.T))
    share = values[::-1] / values.sum()
    assert flat.axes == tuple(f"component {i + 1}: {100 * share[i]:.0f} % of variance" for i in range(2))
    for axis in range(2):
        expected = (vectors - vectors.mean(axis=0)) @ directions[:, -1 - axis]
        np.testing.assert_allclose(np.abs(flat.points[:, axis]), np.abs(expected), atol=1e-9)


def test_equal_embeddings_make_one_point() -> None:
    flat = flatten(np.ones((10, 4)), method="pca", seed=0)
    np.testing.assert_array_equal(flat.points, np.zeros((10, 2)))
    assert flat.axes[0] == "component 1: 0 % of variance"


def test_query_vectors_are_what_the_objective_scores_with() -> None:
    given = embedded()
    by_hand = given.embeddings["list"].astype(float) * given.embeddings["vector"]
    found = query_vectors(given, Symile(), "picture")
    assert found is not None
    np.testing.assert_allclose(found, by_hand)
    assert query_vectors(given, Gram(), "picture") is None


def test_samples_without_a_query_vector_are_on_no_map() -> None:
    assert picture_of(section(embedded(absent=15))).caption.startswith("25 samples.")
    assert picture_of(section(embedded(absent=15), PairwiseClip())).caption.startswith("40 samples.")
    (only, *_) = section(embedded(absent=N - 2)).blocks
    assert isinstance(only, Missing)


def test_the_map_is_the_same_on_every_run_and_warns() -> None:
    one, other = section(embedded()), section(embedded())
    assert one == other
    picture = picture_of(one)
    assert picture.data.startswith(b"\x89PNG")
    assert "hides all other directions" in picture.caption
    assert "% of variance" in picture.alt
    assert "Marked by coin" in picture.alt


def test_an_objective_without_query_vector_says_so() -> None:
    found = section(embedded(), Gram())
    assert "no inner product" in str(found.blocks[0])
    assert "what the queries ask for" not in picture_of(found).alt


def test_without_findings_all_points_are_alike() -> None:
    found = section(embedded(), states=[np.nan] * N)
    assert "No finding is known" in picture_of(found).caption


def test_the_most_frequent_findings_are_shown() -> None:
    labels = pd.DataFrame({"rare": [1.0] * 9 + [0.0] * 31, "some": [1.0] * 12 + [np.nan] * 28, "all": [1.0] * 40,
                           "never": [0.0] * 40, "unsure": [-1.0] * 40})  # fmt: skip
    assert list(frequent(labels).columns) == ["all", "some"]
    many = pd.DataFrame({f"finding {i}": [1.0] * (20 + i) + [0.0] * (20 - i) for i in range(7)})
    assert list(frequent(many).columns) == ["finding 6", "finding 5", "finding 4", "finding 3"]


def test_states_differ_in_shape_and_in_colour() -> None:
    assert len({state.marker for state in STATES}) == len({state.color for state in STATES}) == len(STATES) == 4
    assert {state.words for state in STATES} == {"present", "absent", "uncertain", "not mentioned"}


def test_every_point_is_drawn_once_in_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, int]] = []
    from matplotlib.axes import Axes

    original = Axes.scatter

    def counted(self: Axes, x: NDArray[np.float64], y: NDArray[np.float64], **given: Any) -> Any:
        drawn.append((given["marker"], len(x)))
        return original(self, x, y, **given)

    monkeypatch.setattr(Axes, "scatter", counted)
    section(embedded(), Gram(), states=[1.0] * 20 + [0.0] * 8 + [-1.0] * 5 + [np.nan] * 7)
    assert sorted(drawn) == sorted([("o", 20), ("s", 8), ("^", 5), (".", 7)])


def test_many_samples_are_thinned_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_map, "POINTS", 10)
    assert picture_of(section(embedded())).caption.startswith("10 samples.")
    assert section(embedded()) == section(embedded())


def test_umap_is_asked_for_with_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Fake:
        def __init__(self, **given: Any) -> None:
            asked.append(given)

        def fit_transform(self, vectors: NDArray[np.float64]) -> NDArray[np.float32]:
            return vectors[:, :2].astype(np.float32)

    module = types.ModuleType("umap")
    module.UMAP = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    found = section(embedded(), method="umap")
    assert [one["n_components"] for one in asked] == [2, 2]
    assert len({one["random_state"] for one in asked}) == 1
    assert 0 <= asked[0]["random_state"] < 2**32
    assert "UMAP keeps neighbours and little else" in picture_of(found).caption
    assert "variance" not in picture_of(found).alt


def test_umap_that_is_not_installed_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match="not installed"):
        section(embedded(), method="umap")
