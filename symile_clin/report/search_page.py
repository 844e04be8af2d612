"""The page of a search: what was asked with, and pictures of what was found. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from symile_clin.data.store import Cohort
from symile_clin.evaluation.page import Block, Picture, Section, SideBySide, Stack, Strip, Table, render_page
from symile_clin.modalities.base import Modality
from symile_clin.report.gallery_section import columns_of, picture_of, png
from symile_clin.report.headline import banner
from symile_clin.schema import ROW
from symile_clin.search.question import Answer, Query
from symile_clin.search.results import ITSELF, OWN, RANK, SCORE

#: Pictures at most; the table has all hits.
SHOWN: Final = 20


def search_page(
    answer: Answer,
    query: Query,
    *,
    lines: Sequence[str],
    table: pd.DataFrame,
    run: str,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    readers: Mapping[str, Modality],
) -> str:
    """A page that loads nothing.

    Args:
        lines, table: as `search.results` makes them.
        modalities: of the cohort.
        readers: that the query's files were read by.
    """
    best = table.head(SHOWN)
    strip = Strip([_hit(hit, cohort, modalities[answer.target]) for _, hit in best.iterrows()])
    fewer = f" The first {SHOWN} are shown as pictures." if len(table) > SHOWN else ""
    found: list[Block] = [
        f"Best first, by the score that the model was trained with; scores compare within this answer only.{fewer}",
        strip,
        Table(table.rename(columns={OWN: "whose"}), "All hits.", decimals={SCORE: 4}, marked=_own(table)),
    ]
    sections = [
        Section("Asked with", "query", _asked(query, cohort, modalities, readers)),
        Section("Found", "hits", found),
        Section("How", "how", [" ".join(lines)]),
    ]
    title = f"{' and '.join(answer.query)} asked for {answer.target}"
    return render_page(
        title, sections, subtitle=f"Run {run}, cohort {cohort.name}", banner=banner(synthetic=cohort.synthetic)
    )


def _own(table: pd.DataFrame) -> list[int]:
    return np.flatnonzero(table[OWN] != "").tolist() if OWN in table else []


def _asked(
    query: Query, cohort: Cohort, modalities: Mapping[str, Modality], readers: Mapping[str, Modality]
) -> list[Block]:
    """Pictures below each other, tables beside them."""
    pictures: list[Block] = []
    tables: list[Block] = []
    for name in query.embeddings:
        if query.row is None:
            modality, values = readers[name], query.values[name]
            columns = {**dict.fromkeys(modality.columns), **values}
        else:
            modality, columns = modalities[name], dict(columns_of(cohort, query.row))
        values_table = modality.table(columns)
        if values_table is not None:
            flagged = [place for place, flag in enumerate(values_table.get("flag", [])) if flag]
            words = tuple(str(column) for column in values_table.columns if column in ("value", "percentile"))
            tables.append(Table(values_table, name, marked=flagged, small=True, numeric=words))
        elif query.row is None:
            data = png(modality.render({key: query.values[name][key] for key in modality.arrays}, columns))
            pictures.append(Picture(data, f"The query's {name}.", name))
        else:
            pictures.append(Picture(picture_of(cohort, modality, query.row), f"The query's {name}.", name))
    source = "Files of one patient" if query.row is None else f"Row {query.row} of the cohort"
    blocks: list[Block] = [f"{source}: {' and '.join(query.embeddings)}."]
    if pictures and tables:
        return [*blocks, SideBySide([Stack(pictures), Stack(tables)], wide_first=True)]
    return [*blocks, *pictures, *tables]


def _hit(hit: pd.Series[Any], cohort: Cohort, modality: Modality) -> Picture:
    own = str(hit.get(OWN, ""))
    whose = f", {own}" if own else ""
    data = picture_of(cohort, modality, int(hit[ROW]))
    words = f"#{hit[RANK]}{whose}: row {hit[ROW]}, score {hit[SCORE]:.4g}"
    return Picture(data, f"{modality.name} at place {hit[RANK]}{whose}.", words, mark="true" if own == ITSELF else "")
