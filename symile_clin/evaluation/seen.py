"""Queries of patients that the model was trained on: splits keep them apart within a cohort, but not between two."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from symile_clin.evaluation.ranked import Ranked
from symile_clin.schema import SUBJECT_ID, Split

#: Of the metric's name: how many queries are of patients that the model was trained on.
SEEN = "recall_at_1_n_trained_on"


def seen_report(
    full: Ranked, samples: pd.DataFrame, trained_on: Collection[int] | None, *, split: Split
) -> dict[str, float]:
    """How many queries are of patients that the model was trained on.

    Args:
        samples: (n,) of the cohort, in row order.
        trained_on: subject_ids; None: not known.

    Returns:
        `<split>/<target>/recall_at_1_n_trained_on`; nothing where there are none.
    """
    count = int(samples[SUBJECT_ID].iloc[full.query_row].isin(list(trained_on or ())).sum())
    return {f"{split}/{full.target}/{SEEN}": float(count)} if count else {}


def seen_words(own: Mapping[str, float]) -> str | None:
    """The same as a sentence.

    Args:
        own: metrics of a target, without the prefix.
    """
    if SEEN not in own:
        return None
    count, n = own[SEEN], own["recall_at_1_n"]
    return (
        f"{count:,.0f} of {n:,.0f} queries are of patients that the model was trained on, in another cohort: "
        "the numbers here are not of new patients alone"
    )
