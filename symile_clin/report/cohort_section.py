"""Who is in the cohort, who left it and why, and what is missing of those who stayed."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Final

import numpy as np
import pandas as pd

from symile_clin.data.store import Cohort
from symile_clin.evaluation.cohort_figures import draw_attrition
from symile_clin.evaluation.cohort_tables import split_table
from symile_clin.evaluation.page import Block, Details, Missing, Part, Picture, Section, Table
from symile_clin.modalities.base import Modality
from symile_clin.report.missingness import draw_shares, draw_together, missing_together, observed_shares, presence
from symile_clin.schema import AGE, ATTRITION, GENDER

SAME: Final = "The same as a table"
#: Correlation from which a caption calls parts missing together.
TOGETHER: Final = 0.9


def cohort_section(cohort: Cohort, modalities: Mapping[str, Modality]) -> Section:
    """Attrition, splits and missingness."""
    blocks: list[Block] = [
        "Who the numbers of this page are about: read the losses first, for a cohort is its exclusions.",
        Part("Attrition", _attrition(cohort)),
        Part("Splits", _splits(cohort.samples)),
        Part("Modalities that samples have", _presence(cohort.samples, modalities)),
    ]
    for name, modality in modalities.items():
        blocks += _missingness(name, modality, cohort.samples)
    return Section("Cohort", "cohort", blocks)


def _attrition(cohort: Cohort) -> list[Block]:
    path = cohort.path / ATTRITION
    if not path.is_file():
        return [Missing("this cohort was imported from a release, which does not tell whom its authors left out.")]
    attrition = pd.read_csv(path, keep_default_na=False)
    if len(attrition) < 2:
        return [Missing("the cohort's table of attrition has no steps.")]
    written = BytesIO()
    draw_attrition(written, attrition, form="svg")
    first, last = attrition.iloc[0], attrition.iloc[-1]
    alt = f"Bars: {first['samples']:,} at the first step, {last['samples']:,} samples in the cohort; numbers below."
    caption = "Samples left after each step; in brackets those lost by it. The last bar is the cohort."
    return [
        Picture(written.getvalue(), alt, caption, width=900),
        Details(SAME, [Table(attrition, "Samples and patients lost at each step.")], printed=False),
    ]


def _splits(samples: pd.DataFrame) -> list[Block]:
    absent = [name for name in (AGE, GENDER) if name not in samples]
    table = split_table(samples.assign(**dict.fromkeys(absent, None)) if absent else samples)
    return [
        Table(table, "Samples and patients (subjects) of each split. No patient is in two splits.", {"median age": 0})
    ]


def _presence(samples: pd.DataFrame, modalities: Mapping[str, Modality]) -> list[Block]:
    shares = presence(samples, modalities)
    if (shares.iloc[:, 1:] == 1).all(axis=None):
        return [f"Every sample has {_and(list(modalities))}."]
    return [Table(shares, "Share of samples that have each modality.")]


def _missingness(name: str, modality: Modality, samples: pd.DataFrame) -> list[Block]:
    """What samples have of a modality with parts; nothing for others."""
    observed = modality.observed(samples)
    if not len(observed.columns):
        return []
    part = str(observed.columns.name or "part")
    shares = observed_shares(samples, observed)
    total = observed.mean().sort_values()
    seldom, often = total.index[0], total.index[-1]
    alt = (
        f"Heat map of {len(shares)} {part}s of {name} by split: observed most often {often} ({total.iloc[-1]:.0%}), "
        f"least often {seldom} ({total.iloc[0]:.0%}); numbers below."
    )
    caption = f"Share of samples in which each {part} of {name} was observed: the darker, the more."
    table = Table(shares.reset_index(names=part), f"Share of samples in which each {part} was observed.", small=True)
    blocks: list[Block] = [
        Picture(draw_shares(shares), alt, caption, least=760),
        Details(SAME, [table], printed=False),
    ]
    together = missing_together(observed)
    if together.empty:
        blocks.append(Missing(f"which {part}s are missing together: too few of them are missing in some samples only."))
    else:
        alt = f"Heat map of {len(together)} by {len(together)} correlations of being missing; {_groups(together, part)}"
        caption = (
            f"Which {part}s are missing together, in the order of a hierarchical clustering: blue squares on the "
            f"diagonal are {part}s that are ordered, and so missing, together; white is unrelated, orange one instead "
            "of the other."
        )
        blocks.append(Picture(draw_together(together), alt, caption, width=860, least=700))
    return [Part(f"What is missing of {name}", blocks)]


def _groups(together: pd.DataFrame, part: str) -> str:
    """In words, how large the groups are that are missing (almost) always together."""
    near = np.diag(together.to_numpy(dtype=np.float64), 1) >= TOGETHER
    edges = np.flatnonzero(np.concatenate([[True], ~near, [True]]))  # a group goes on where neighbours are near
    groups = sorted((int(size) for size in np.diff(edges) if size > 1), reverse=True)
    if not groups:
        return f"no {part}s that are always missing together."
    return f"groups that are missing almost always together: of {_and([str(one) for one in groups])} {part}s."


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
