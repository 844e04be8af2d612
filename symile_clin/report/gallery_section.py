"""A few queries drawn at random: what was asked, what came back, where the truth stood. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from symile_clin.data.candidates import CandidateLists
from symile_clin.data.store import Cohort
from symile_clin.evaluation.absence import stand_ins
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.page import Block, Details, Missing, Part, Picture, Section, SideBySide, Stack, Strip, Table
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.modalities.base import Modality, Row
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.rng import stream
from symile_clin.schema import present_column

QUERIES: Final = 5
TOP: Final = 5
#: Lines of a table that are shown whole.
OPEN: Final = 12
#: Colours that a coloured picture keeps: no eye sees the difference, and the page is a third as large.
COLORS: Final = 128


@dataclass(frozen=True)
class Asked:
    """One query and its ranked candidates.

    Attributes:
        row: of its sample.
        rank: of the truth, from 1, before ties.
        tied: how many others score the same as the truth.
        candidates: how many there were, the truth included.
        best: rows of the best candidates, best first, and their scores; the truth is the one whose row is `row`.
        truth_score: of the truth.
    """

    row: int
    rank: int
    tied: int
    candidates: int
    best: Sequence[tuple[int, float]]
    truth_score: float


def gallery_section(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    embedded: Embedded,
    rows: NDArray[np.int64],
    lists: CandidateLists,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    target: str,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    progress: Progress,
) -> Section:
    """The queries of an evaluation's gallery again, large enough to be read.

    Args:
        embedded: of the split.
        rows: of its samples, in the same order.
        seed: of the draw, that of the evaluation.
    """
    count = min(QUERIES, len(lists.query_row))
    rng = stream(seed, "gallery")
    chosen = rng.permutation(len(lists.query_row))[:count]
    some = CandidateLists(lists.query_row[chosen], lists.candidate_rows[chosen], lists.same_subject[chosen])
    query = [name for name in modalities if name != target]
    there = cohort.samples.loc[some.query_row, [present_column(name) for name in query]]
    absent = stand_ins(
        model=model, names=() if there.all(axis=None) else query, cohort=cohort, modalities=modalities,
        batch_size=batch_size, device=device, progress=progress,
    )  # fmt: skip
    scores = score_lists(objective, embedded.embeddings, rows, some, target, present=embedded.present, stand_ins=absent)
    asked = ask(some, scores, rng)
    hits = sum(one.rank == 1 and not one.tied for one in asked)
    blocks: list[Block] = [
        f"{count} queries drawn at random, not picked, so that a reader sees what is usual: what was asked with, and "
        f"the {TOP} candidates that the model finds best. The truth has a green frame and says so. Here {hits} of "
        f"{count} have it first; the accuracy above is the number to quote."
    ]
    if count < QUERIES:
        blocks.append(Missing(f"more of them, for there are only {count} queries."))
    for place, one in enumerate(asked, start=1):
        title = f"Query {place} of {count}: the truth is ranked {one.rank} of {one.candidates}{_level(one.tied)}"
        blocks.append(Part(title, [_shown(one, cohort, modalities, target)]))
    return Section("Retrieval gallery", "gallery", blocks)


def ask(lists: CandidateLists, scores: NDArray[np.float64], rng: np.random.Generator) -> list[Asked]:
    """The best candidates of each query; level ones in random order, not the truth first."""
    ranks = rank(scores)
    listed = lists.listed
    found = []
    for place, row in enumerate(lists.query_row):
        shuffled = rng.permutation(scores.shape[1])
        order = shuffled[np.argsort(-scores[place, shuffled], kind="stable")]
        best = [int(column) for column in order if listed[place, column]][:TOP]
        found.append(
            Asked(
                row=int(row),
                rank=int(ranks.n_greater[place]) + 1,
                tied=int(ranks.n_tied[place]),
                candidates=int(listed[place].sum()),
                best=[(int(lists.candidate_rows[place, column]), float(scores[place, column])) for column in best],
                truth_score=float(scores[place, 0]),
            )
        )
    return found


def _shown(one: Asked, cohort: Cohort, modalities: Mapping[str, Modality], target: str) -> Block:
    """One query: pictures and candidates below each other, tables beside them."""
    columns = columns_of(cohort, one.row)
    pictures: list[Block] = []
    tables: list[Block] = []
    for name, modality in modalities.items():
        if name == target:
            continue
        if not columns[present_column(name)]:
            pictures.append(Missing(f"{name}: this sample has none."))
            continue
        table = modality.table(columns)
        if table is None:
            data = picture_of(cohort, modality, one.row)
            pictures.append(Picture(data, f"The query's {name}.", f"Asked with: {name}"))
            continue
        tables += values_of(table, name)
    strip = [
        _candidate(cohort, modalities[target], row, score, place=place, truth=row == one.row, name=target)
        for place, (row, score) in enumerate(one.best, start=1)
    ]
    if all(row != one.row for row, _ in one.best):
        place = one.rank
        strip.append(
            _candidate(cohort, modalities[target], one.row, one.truth_score, place=place, truth=True, name=target)
        )
    left = Stack([*pictures, Strip(strip)])
    return SideBySide([left, Stack(tables)], wide_first=True) if tables else left


def values_of(table: pd.DataFrame, name: str) -> list[Block]:
    """A room's table; of many lines only those with a flag, all others folded away."""
    numeric = tuple(str(column) for column in table.columns if column in ("value", "percentile"))
    flagged = (table["flag"] != "").to_numpy() if "flag" in table else np.zeros(len(table), dtype=np.bool_)
    folded = len(table) > OPEN and not flagged.all()
    lines = table[flagged] if folded else table
    marked = [] if folded else np.flatnonzero(flagged).tolist()
    words = f"Asked with: {name}."
    if flagged.any():
        words += f" {flagged.sum()} of {len(table)} lines have a flag; it says why."
    blocks: list[Block] = []
    if len(lines):
        blocks.append(Table(lines, words, marked=marked, small=True, numeric=numeric))
    if folded:
        rest = Table(table[~flagged], "Lines without a flag.", small=True, numeric=numeric)
        blocks.append(Details(f"{name}: the {len(rest.frame)} lines without a flag", [rest]))
    return blocks


def _candidate(
    cohort: Cohort, modality: Modality, row: int, score: float, *, place: int, truth: bool, name: str
) -> Picture:
    words = f"#{place}, the truth" if truth else f"#{place}"
    alt = f"{name} at place {place}, {'the truth' if truth else 'not the truth'}."
    data = picture_of(cohort, modality, row)
    shown = f"{score:.3g}".replace("-", "−")
    return Picture(data, alt, f"{words}: score {shown}", mark="true" if truth else "")


def columns_of(cohort: Cohort, row: int) -> Row:
    """A sample's columns."""
    return {str(column): value for column, value in cohort.samples.loc[row].items()}


def picture_of(cohort: Cohort, modality: Modality, row: int) -> bytes:
    """One sample's picture as a PNG."""
    arrays = {key: cohort.array(modality.name, key).take(np.array([row]))[0] for key in modality.arrays}
    return png(modality.render(arrays, columns_of(cohort, row)))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) as a small PNG: grey where all channels are equal, of few colours otherwise."""
    written = BytesIO()
    grey = (pixels[..., :1] == pixels).all()
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    if not grey:
        image = image.quantize(COLORS, dither=Image.Dither.NONE)
    image.save(written, "PNG")
    return written.getvalue()


def _level(tied: int) -> str:
    return f", level with {tied}" if tied else ""
