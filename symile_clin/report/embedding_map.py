"""A map of embeddings in two dimensions, coloured by what is known of the samples. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from symile_clin.errors import ConfigError
from symile_clin.evaluation import style
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.page import Missing, Picture, Section
from symile_clin.modalities.base import Modality
from symile_clin.objectives.base import Objective
from symile_clin.rng import seed_of

Method = Literal["pca", "umap"]
FINDINGS: Final = 4
#: Samples that have a finding, at least, for a map of it.
FEWEST: Final = 10
#: Of more samples so many are drawn, at random: beyond that, points hide each other.
POINTS: Final = 2_000
PANEL_INCHES: Final = 2.7


@dataclass(frozen=True)
class _State:
    """How points of one state of a finding look: they differ in shape as well as in colour."""

    value: float
    words: str
    marker: str
    color: str
    size: float
    filled: bool


#: In the order in which they are drawn: what is rare lies on top.
STATES: Final = (
    _State(np.nan, "not mentioned", ".", style.GREY, 14, True),
    _State(0.0, "absent", "s", style.BLUE, 14, False),
    _State(1.0, "present", "o", style.VERMILION, 16, True),
    _State(-1.0, "uncertain", "^", style.INK, 24, False),
)


@dataclass(frozen=True)
class Flat:
    """Points of one kind in two dimensions.

    Attributes:
        points: (n, 2).
        axes: words for both.
    """

    points: NDArray[np.float64]
    axes: tuple[str, str]


def embedding_map_section(
    *,
    embedded: Embedded,
    samples: pd.DataFrame,
    modalities: Mapping[str, Modality],
    objective: Objective,
    target: str,
    seed: int,
    method: Method = "pca",
) -> Section:
    """Embeddings of the target, and the vectors that queries ask with, flattened and coloured by findings.

    Args:
        embedded: of a split.
        samples: rows of samples.parquet in the order of `embedded`.
        objective: the one that the model was trained with; it may have no query vector.
        seed: of UMAP, and of the draw if there are many samples.
        method: "umap" needs the extra.

    Raises:
        ConfigError: "umap" is not installed.
    """
    title, anchor = "Embedding map", "embedding-map"
    labels = _labels(samples, modalities)
    kinds = {f"embeddings of {target}": embedded.embeddings[target].astype(np.float64)}
    asked = query_vectors(embedded, objective, target)
    if asked is not None:
        kinds["what the queries ask for"] = asked
    there = embedded.present[target] & np.all([np.isfinite(one).all(axis=1) for one in kinds.values()], axis=0)
    rows = np.flatnonzero(there)
    if len(rows) < 3:
        return Section(title, anchor, [Missing(f"{len(rows)} samples have a {target}; a map needs three.")])
    if len(rows) > POINTS:
        rows = np.sort(np.random.default_rng(seed_of(seed, "embedding map")).choice(rows, POINTS, replace=False))
    flat = {words: flatten(vectors[rows], method=method, seed=seed) for words, vectors in kinds.items()}
    shown = frequent(labels.iloc[rows])
    picture = draw_maps(flat, shown)
    caption = (
        f"{len(rows):,} samples. "
        + ("" if len(shown.columns) else "No finding is known, so all points are alike. ")
        + _warning(method)
    )
    return Section(title, anchor, [_introduction(kinds, shown), Picture(picture, _words(flat, shown), caption)])


def query_vectors(embedded: Embedded, objective: Objective, target: str) -> NDArray[np.float64] | None:
    """(n, d) what each sample's other modalities ask with; None if the score is no inner product.

    NaN for a sample that lacks what the model has no placeholder for.
    """
    queries = {
        name: torch.from_numpy(one.astype(np.float64)) for name, one in embedded.embeddings.items() if name != target
    }
    present = {name: torch.from_numpy(embedded.present[name]) for name in queries}
    with torch.no_grad():
        found = objective.query_vector(queries, target, present=present)
    return None if found is None else found.double().numpy()


def flatten(vectors: NDArray[np.float64], *, method: Method, seed: int) -> Flat:
    """Two dimensions of (n, d), the same on every run.

    Raises:
        ConfigError: "umap" is not installed.
    """
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise ConfigError(
                "UMAP is not installed", remedy="pip install 'symile-clin[umap]', or take the PCA"
            ) from None
        # one thread: more of them end in another map each time
        reduced = UMAP(n_components=2, random_state=seed_of(seed, "umap") % 2**31, n_jobs=1).fit_transform(vectors)
        return Flat(np.asarray(reduced, dtype=np.float64), ("UMAP 1, without unit", "UMAP 2, without unit"))
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, random_state=seed_of(seed, "embedding map") % 2**31)
    with np.errstate(invalid="ignore"):  # all vectors equal: nothing is to be explained
        points = pca.fit_transform(vectors)
    explained = np.nan_to_num(pca.explained_variance_ratio_)
    axes = [f"component {place}: {100 * share:.0f} % of variance" for place, share in enumerate(explained, start=1)]
    return Flat(points, (axes[0], axes[1]))


def frequent(labels: pd.DataFrame) -> pd.DataFrame:
    """The findings that most samples have, in that order."""
    present = (labels == 1).sum().sort_values(ascending=False, kind="stable")
    return labels[[name for name, n in present.items() if n >= FEWEST][:FINDINGS]]


def draw_maps(flat: Mapping[str, Flat], labels: pd.DataFrame) -> bytes:
    """Small maps as PNG: a line for each kind of vector, a column for each finding, or one for all."""
    columns: Sequence[str | None] = [str(name) for name in labels.columns] or [None]
    written = BytesIO()
    width, height = PANEL_INCHES * max(len(columns), 2) + 0.3, PANEL_INCHES * len(flat) + 0.75
    with style.figure(written, width=width, height=height) as figure:
        grid = figure.subplots(len(flat), len(columns), squeeze=False, sharex="row", sharey="row")
        for line, (words, one) in enumerate(flat.items()):
            for place, finding in enumerate(columns):
                axes: Axes = grid[line, place]
                states = None if finding is None else labels[finding].to_numpy()
                _scatter(axes, one.points, states)
                if line == 0:
                    axes.set_title(finding.replace("_", " ") if finding else "all samples", fontsize=10.5)
                if place == 0:
                    axes.set_ylabel(f"{words}\n{one.axes[1]}", fontsize=8.5)
                axes.set_xlabel(one.axes[0], fontsize=8.5)
        if labels.shape[1]:
            figure.legend(handles=[_handle(state) for state in STATES], loc="outside lower center", ncols=len(STATES))
    return written.getvalue()


def _scatter(axes: Axes, points: NDArray[np.float64], states: NDArray[np.float64] | None) -> None:
    for state in STATES:
        if states is None:
            mine = np.full(len(points), np.isnan(state.value))
        else:
            mine = np.isnan(states) if np.isnan(state.value) else states == state.value
        axes.scatter(
            points[mine, 0], points[mine, 1], s=state.size, marker=state.marker, linewidths=0.7,
            facecolors=state.color if state.filled else "none", edgecolors=state.color if not state.filled else "none",
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set(visible=True, linewidth=0.6)


def _handle(state: _State) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=state.marker, color=state.color, label=state.words,
        markersize=np.sqrt(state.size) + 1, markerfacecolor=state.color if state.filled else "none",
    )  # fmt: skip


def _labels(samples: pd.DataFrame, modalities: Mapping[str, Modality]) -> pd.DataFrame:
    found = [modality.labels(samples) for modality in modalities.values()]
    return pd.concat([one for one in found if one.shape[1]] or [samples.iloc[:, :0]], axis=1)


def _introduction(kinds: Mapping[str, object], labels: pd.DataFrame) -> str:
    text = "Where samples lie to each other, in the two directions that tell them apart most."
    if labels.shape[1]:
        text += " Where the points with a finding lie apart from those without, the embedding tells it."
    if len(kinds) > 1:
        text += (
            " Below, the vectors that queries ask with, on axes of their own: places of the two lines of maps cannot "
            "be compared, their order can."
        )
    else:
        text += " This objective's score is no inner product, so that queries have no place on a map."
    return text


def _warning(method: Method) -> str:
    if method == "umap":
        return (
            "UMAP keeps neighbours and little else: distances between groups, their sizes and their density mean "
            "nothing, and groups may appear where there are none."
        )
    return (
        "A flat map hides all other directions: points that overlap here may lie apart in the embedding, and distances "
        "are those of the shown share of the variance only. Nothing is to be concluded from it that a probe or the "
        "retrieval does not show."
    )


def _words(flat: Mapping[str, Flat], labels: pd.DataFrame) -> str:
    axes = "; ".join(f"{words}: {one.axes[0]}, {one.axes[1]}" for words, one in flat.items())
    by = ", ".join(str(name).replace("_", " ") for name in labels.columns)
    return f"Scatter plots of {axes}." + (f" Marked by {by}." if by else "")
