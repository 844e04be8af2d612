"""`symile-clin cohort describe`: what is in a cohort, as tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from symile_clin.data.store import newest_cohort, open_cohort
from symile_clin.evaluation.cohort_figures import draw_figures
from symile_clin.evaluation.cohort_tables import split_table, summary_table, table_text
from symile_clin.modalities.registry import modalities_of
from symile_clin.progress import Progress
from symile_clin.schema import ATTRITION, COHORTS_ROOT, FIGURES_DIR


@dataclass(frozen=True)
class Description:
    """What is in a cohort.

    Attributes:
        tables: title -> small table.
        figures: the PNG files that were written.
    """

    path: Path
    tables: Mapping[str, pd.DataFrame]
    figures: Sequence[Path]

    def text(self) -> str:
        """The tables, one below the other."""
        parts = [f"{title}\n{table_text(table)}" for title, table in self.tables.items()]
        return "\n\n".join([*parts, f"Figures: {self.path / FIGURES_DIR}"])

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        tables = {title: table.to_dict("records") for title, table in self.tables.items()}
        return {"path": str(self.path), "tables": tables, "figures": [str(path) for path in self.figures]}


def describe_cohort(*, cohort: Path | None = None, progress: Progress) -> Description:
    """Tell a cohort's attrition, splits, sexes and what each modality has to say; draw it.

    Args:
        cohort: a cohort directory; None takes the newest complete one.

    Raises:
        NotFoundError: there is none.
    """
    opened = open_cohort(cohort) if cohort else newest_cohort(Path(COHORTS_ROOT))
    progress.say(f"Cohort {opened.path}")
    samples = opened.samples
    tables = {"Attrition": pd.read_csv(opened.path / ATTRITION, keep_default_na=False)}
    tables["Splits"] = split_table(samples)
    summaries = [one for modality in modalities_of(opened.spec).values() for one in modality.summaries(samples)]
    tables |= {one.title: summary_table(one) for one in summaries}
    folder = opened.path / FIGURES_DIR
    figures = draw_figures(folder, attrition=tables["Attrition"], summaries=summaries)
    return Description(path=opened.path, tables=tables, figures=figures)
