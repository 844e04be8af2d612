"""A question to a searcher, its answer, and whether it can be meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import ConfigError
from symile_clin.search.nearest import Leading
from symile_clin.strict import nearest

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    """What is asked with.

    Attributes:
        embeddings: by modality that is there, (d,).
        values: by modality that came from a file, its stored arrays and columns, as `Modality.read_query` gives them.
        row: the sample of the index that it is; None for files.
        seconds: that reading and encoding took.
    """

    embeddings: Mapping[str, Vector]
    values: Mapping[str, Mapping[str, NDArray[Any]]]
    row: int | None
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        target: modality of the candidates.
        query: modalities that were asked with.
        absent: the others, for which something else stands.
        method: in words, what stands for them; empty where none is absent.
        candidates: how many there were.
        hits: the best, best first; see `Leading`.
        one_product: whether a score is an inner product with one vector, and not computed candidate by candidate.
        seconds: from embeddings to the answer.
    """

    target: str
    query: tuple[str, ...]
    absent: tuple[str, ...]
    method: str
    candidates: int
    hits: Leading
    one_product: bool
    seconds: float


def check_question(names: Sequence[str], *, asked: Collection[str], target: str, k: int) -> None:
    """Whether a question can be meant.

    Args:
        names: of the modalities that there are.
        asked: those asked with.

    Raises:
        ConfigError: no such modality, nothing to ask with, the target among it, or no hits asked for.
    """
    check_names(names, [*asked, target])
    others = [name for name in names if name != target]
    if target in asked:
        raise ConfigError(
            f"{target} is asked for, and asked with, too",
            remedy=f"Leave it out of the query, or ask for another: --target {' or '.join(others)}",
        )
    if not asked:
        raise ConfigError("there is nothing to ask with", expected=f"{' or '.join(others)}, or several")
    if k < 1:
        raise ConfigError(f"k is {k}", expected="at least 1")


def check_names(names: Sequence[str], asked: Collection[str]) -> None:
    """Whether there are modalities of these names.

    Raises:
        ConfigError: naming the nearest.
    """
    for name in asked:
        if name not in names:
            raise ConfigError(f"the run has no modality '{name}'", remedy=nearest(name, names).capitalize())
