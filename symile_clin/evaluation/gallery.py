"""Retrieved candidates beside the truth for a few queries. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from numpy.typing import NDArray

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.store import Cohort
from symile_clin.evaluation import style
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.evaluation.scoring import Scores
from symile_clin.modalities.base import Modality
from symile_clin.schema import present_column

Picture = NDArray[np.uint8]

TOP = 5
ROW_INCHES = 1.75
HEADER_INCHES = 0.75


@dataclass(frozen=True)
class Retrieved:
    """One candidate of a query.

    Attributes:
        score: the objective's.
        is_true: whether it is the query's own.
    """

    picture: Picture
    score: float
    is_true: bool


@dataclass(frozen=True)
class Example:
    """One query with what it retrieved.

    Attributes:
        query: pictures of the query modalities, None where one is absent.
        truth: picture of the query's own target.
        place: where the truth stands, in words.
        top: the best candidates, best first.
    """

    query: Mapping[str, Picture | None]
    truth: Picture
    place: str
    top: Sequence[Retrieved]


def choose_examples(
    *,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    lists: CandidateLists,
    scores: Scores,
    ranks: Ranks,
    target: str,
    count: int,
    rng: np.random.Generator,
) -> list[Example]:
    """Queries drawn at random, not picked, so that a reader sees what is usual."""

    def picture(name: str, row: int) -> Picture:
        modality = modalities[name]
        arrays = {key: cohort.array(name, key).take(np.array([row]))[0] for key in modality.arrays}
        columns = {str(column): value for column, value in cohort.samples.loc[row].items()}
        return modality.render(arrays, columns)

    def asked(name: str, row: int) -> Picture | None:
        return picture(name, row) if cohort.samples.loc[row, present_column(name)] else None

    examples = []
    for query in rng.permutation(len(scores))[:count]:
        shuffled = rng.permutation(scores.shape[1])  # level candidates in random order, not the true one first
        best = shuffled[np.argsort(-scores[query, shuffled], kind="stable")]
        best = best[lists.listed[query, best]][:TOP]
        row, candidates = int(lists.query_row[query]), lists.candidate_rows[query]
        examples.append(
            Example(
                query={name: asked(name, row) for name in modalities if name != target},
                truth=picture(target, int(candidates[0])),
                place=_place(int(ranks.n_greater[query]), int(ranks.n_tied[query]), int(lists.listed[query].sum())),
                top=[
                    Retrieved(picture(target, int(candidates[i])), float(scores[query, i]), is_true=bool(i == 0))
                    for i in best
                ],
            )
        )
    return examples


def _place(n_greater: int, n_tied: int, candidates_n: int) -> str:
    tied = f", level with {n_tied}" if n_tied else ""
    return f"ranked {n_greater + 1} of {candidates_n}{tied}"


def gallery(path: Path, *, examples: Sequence[Example], target: str) -> None:
    """One line per query: what was asked with, the truth, the best candidates with scores, the true one framed."""
    names = list(examples[0].query)
    top = max(len(example.top) for example in examples)
    gap = 0.12
    aspects = [_aspect([example.query[name] for example in examples]) for name in names]
    shown = [picture for example in examples for picture in (example.truth, *(one.picture for one in example.top))]
    target_aspect = _aspect(shown)
    widths = [*aspects, gap, target_aspect, gap, *[target_aspect] * top]
    height = HEADER_INCHES + ROW_INCHES * len(examples)
    with style.figure(path, width=ROW_INCHES * 0.86 * sum(widths) + 0.3, height=height) as figure:
        title = f"The {top} best candidates ({target}) for {len(examples)} queries drawn at random, with their scores"
        figure.suptitle(title, x=0.004, ha="left", fontweight="bold", fontsize=13)
        grid = figure.add_gridspec(len(examples), len(widths), width_ratios=widths)

        def cell(line: int, column: int, picture: Picture | None) -> Axes:
            return _show(figure, grid[line, column], picture)

        for line, example in enumerate(examples):
            for column, name in enumerate(names):
                axes = cell(line, column, example.query[name])
                if line == 0:
                    axes.set_title(f"query: {name}")
            axes = cell(line, len(names) + 1, example.truth)
            axes.set_xlabel(example.place, color=style.GREEN)
            if line == 0:
                axes.set_title("truth")
            for place, found in enumerate(example.top):
                axes = cell(line, len(names) + 3 + place, found.picture)
                axes.set_xlabel(f"{found.score:.3g}" + ("  true" if found.is_true else ""))
                if found.is_true:
                    axes.xaxis.label.set(color=style.GREEN, fontweight="bold")
                    axes.spines[:].set(visible=True, color=style.GREEN, linewidth=3.5)
                if line == 0:
                    axes.set_title(f"#{place + 1}")


def _show(figure: Figure, place: SubplotSpec, picture: Picture | None) -> Axes:
    axes = figure.add_subplot(place)
    if picture is None:
        axes.text(0.5, 0.5, "absent", color=style.GREY, ha="center", va="center", transform=axes.transAxes)
    else:
        axes.imshow(picture, interpolation="antialiased")
    axes.set_anchor("N")  # pictures of one line hang from one height, whatever their shape
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _aspect(pictures: Sequence[Picture | None]) -> float:
    """Width over height that fits the widest of some pictures; a square where all are absent."""
    return max((float(one.shape[1] / one.shape[0]) for one in pictures if one is not None), default=1.0)
