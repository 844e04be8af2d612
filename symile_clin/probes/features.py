"""What probes are fitted on: each modality's embedding, their concatenations, and as a baseline who the patient is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from symile_clin.evaluation.demographics import DEMOGRAPHICS
from symile_clin.evaluation.embed import Embedded
from symile_clin.objectives.base import Objective
from symile_clin.probes.linear import Matrix
from symile_clin.schema import AGE, GENDER

#: Name among the inputs, beside the baseline's: what the objective makes of the modalities that it asks with.
QUERY: Final = "query"


@dataclass(frozen=True)
class Input:
    """Something to probe.

    Attributes:
        modalities: whose embeddings, side by side; none for the baseline. A probe called QUERY is of one vector made of
            them instead.
    """

    name: str
    modalities: tuple[str, ...] = ()


def inputs_of(names: Sequence[str], *, target: str) -> list[Input]:
    """The baseline, each modality alone, those that `target` is retrieved with together, all together, and QUERY.

    Args:
        names: modalities in alphabetical order.
    """
    queries = tuple(name for name in names if name != target)
    groups: list[tuple[str, ...]] = [(name,) for name in names]
    groups += [group for group in (queries, tuple(names)) if len(group) > 1]
    together = [Input(QUERY, queries)] if len(queries) > 1 else []
    return [Input(DEMOGRAPHICS), *(Input("+".join(group), group) for group in groups), *together]


def query_features(
    objective: Objective, encoded: Embedded, modalities: Sequence[str], *, target: str
) -> tuple[Matrix, NDArray[np.bool_]] | None:
    """The vector whose inner product with a candidate is its score, (n, d) in float64, and which samples have all of
    `modalities`. None if the score of this objective is no inner product.

    It holds what the model takes from the modalities together, where a linear probe of their embeddings side by side
    sees only what each of them tells alone.
    """
    here = np.logical_and.reduce([encoded.present[name] for name in modalities])
    scorer = copy.deepcopy(objective).to(device="cpu", dtype=torch.float64).eval()
    queries = {name: torch.from_numpy(encoded.embeddings[name][here].astype(np.float64)) for name in modalities}
    with torch.inference_mode():
        vectors = scorer.query_vector(queries, target)
    if vectors is None:
        return None
    found = np.full((len(here), vectors.shape[1]), np.nan)
    found[here] = vectors.numpy()
    return found, here


def embedded_features(encoded: Embedded, modalities: Sequence[str]) -> tuple[Matrix, NDArray[np.bool_]]:
    """Embeddings side by side, (n, d) in float64, and which samples have all of these modalities.

    A sample that lacks one has no features: a placeholder would teach a probe who was not examined.
    """
    here = np.logical_and.reduce([encoded.present[name] for name in modalities])
    return np.concatenate([encoded.embeddings[name] for name in modalities], axis=1, dtype=np.float64), here


def demographic_features(samples: pd.DataFrame, *, train: NDArray[np.int64]) -> Matrix | None:
    """(n, 1 or 2) age in years and 1 for women; unknown ones are the mean of the train rows. None if neither is known.

    MIMIC's age of 91 stands for all above 89.
    """
    known: Mapping[str, pd.Series] = {
        AGE: samples[AGE].astype("float64") if AGE in samples else pd.Series(np.nan, samples.index),
        GENDER: samples[GENDER].map({"F": 1.0, "M": 0.0}).astype("float64")
        if GENDER in samples
        else pd.Series(np.nan, samples.index),
    }
    columns = []
    for values in known.values():
        own = values.to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isnan(own[train]).all():
            columns.append(np.where(np.isnan(own), np.nanmean(own[train]), own))
    return np.column_stack(columns) if columns else None
