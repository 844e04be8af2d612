"""What the scores of a few samples hang on, drawn over their own input. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from symile_clin.data.store import Cohort
from symile_clin.evaluation.attribution import Attributed, Relevance, attribute, explainable
from symile_clin.evaluation.page import Block, Facts, Missing, Part, Picture, Section, SideBySide
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.rng import stream
from symile_clin.schema import Split, present_column

SAMPLES: Final = 3
#: Pixels from which a picture stands alone, and how wide it then is shown.
WIDE: Final = 1000
SHOWN: Final = 900
LARGEST_NAMED: Final = 3
LIMITS: Final = (
    "Each map is of one input, all others as they are, and its colours are shares of the largest value in it: maps "
    "cannot be compared by colour. It says what this model's score answers to, neither what is wrong with the patient "
    "nor what causes what; a score that is wrong is explained as readily as one that is right."
)


def attribution_section(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    split: Split,
    target: str,
    seed: int,
    device: torch.device | str,
    count: int = SAMPLES,
) -> Section:
    """Some samples of a split, drawn at random, with what raises the score of their own target in each modality.

    Args:
        model: on `device`.
        objective: the one that the model was trained with.
        seed: of the draw.
        count: samples.
    """
    query = [name for name in modalities if name != target]
    told = {name: one.attribution.reading for name, one in modalities.items() if one.attribution is not None}
    able = explainable(cohort, cohort.rows(split), model=model, names=list(modalities), target=target)
    if not told or not len(able):
        why = "no modality of this cohort can be drawn under a map" if not told else "no sample can be scored as it is"
        return Section("What the score hangs on", "attribution", [Missing(f"{why}.")])
    rows = stream(seed, "attribution").permutation(able)[:count].tolist()
    found = attribute(
        model=model, objective=objective, cohort=cohort, modalities=modalities, rows=rows, target=target, device=device
    )
    blocks: list[Block] = [
        f"The score of a sample's own {target}, given its {' and '.join(query)}, traced back to each of them, for "
        f"{len(found)} samples of the {split} split drawn at random.",
        Facts(told),
        LIMITS,
    ]
    for one in found:
        blocks.append(Part(f"Sample in row {one.row}: score {one.score:.4g}", _sample(one, cohort, modalities)))
    return Section("What the score hangs on", "attribution", blocks)


def _sample(found: Attributed, cohort: Cohort, modalities: Mapping[str, Modality]) -> list[Block]:
    row = {str(column): value for column, value in cohort.samples.loc[found.row].items()}
    small: list[Block] = []
    wide: list[Block] = []
    for name, modality in modalities.items():
        way = modality.attribution
        if way is None:
            continue
        if not row[present_column(name)]:
            small.append(Missing(f"{name}: this sample has none."))
            continue
        relevance = found.relevance[name]
        if not relevance.values.any():
            small.append(Missing(f"{name}: the score does not answer to it; the map is flat."))
            continue
        arrays = {key: cohort.array(name, key).take(np.array([found.row]))[0] for key in modality.arrays}
        drawn = way.draw(arrays, row, relevance.values)
        caption, alt = f"{name} of row {found.row}", _words(name, relevance)
        if not (relevance.values > 0).any():
            caption += ": nothing in it raises the score"
        (wide if drawn.shape[1] >= WIDE else small).append(
            Picture(_png(drawn), alt, caption, width=min(drawn.shape[1], SHOWN))
        )
    return [*([SideBySide(small)] if small else []), *wide]


def _words(name: str, relevance: Relevance) -> str:
    if relevance.names:
        order = np.argsort(-np.abs(relevance.values), kind="stable")[:LARGEST_NAMED]
        largest = ", ".join(f"{relevance.names[place]} {relevance.values[place]:+.3g}" for place in order)
        return f"Bars: what each part of {name} changes in the score, the largest being {largest}."
    place = np.unravel_index(int(relevance.values.argmax()), relevance.values.shape)
    where = " and ".join(
        f"{100 * (step + 0.5) / size:.0f} % of its {axis}"
        for step, size, axis in zip(place, relevance.values.shape, _axes(relevance.values.ndim), strict=True)
        if size > 1
    )
    return f"The {name} under a map of what raises the score, the largest value at {where}."


def _axes(count: int) -> list[str]:
    return ["length"] if count == 1 else ["height", "width", "depth"][:count]


def _png(picture: NDArray[np.uint8]) -> bytes:
    written = BytesIO()
    Image.fromarray(picture).save(written, "PNG")
    return written.getvalue()
