"""`cohort verify --sources`: that samples took what the source tables hold in their windows, by another way than the
build's: no join of tables, but the events of the cohort's patients in memory, and numpy's arithmetic of times.

It proves what a cohort's files cannot tell alone: the times of values whose times samples do not keep, and that the
times which they keep are the source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.cohort.index import index_events, index_tables
from symile_clin.cohort.spec import CohortSpec, ModalitySpec
from symile_clin.data.store import Cohort
from symile_clin.modalities.base import Modality
from symile_clin.pipeline.inputs import source_tables
from symile_clin.pipeline.leakage import Finding, NotProved, Proof, named_rows, within
from symile_clin.progress import Progress
from symile_clin.schema import EVENT_ID, EVENT_TIME, INDEX_TIME, KEY, SAMPLE_ID, SAMPLES, SUBJECT_ID, present_column
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.duckdb_catalog import DuckDbCatalog


def inputs_are_of_their_windows(
    cohort: Cohort,
    *,
    spec: CohortSpec,
    modalities: Mapping[str, Modality],
    roots: Mapping[str, Path],
    progress: Progress,
) -> Proof:
    """Index times are the source's, and every sample's events are among those of its patient in its window.

    Args:
        roots: directory of each source that was given; modalities whose tables are in others are not looked at.
    """
    tables = source_tables(spec, modalities)
    given = {table.name for table in tables if table.source in roots}
    cache = ParquetCache(tables, roots=roots, directory=cohort.path.parent / ".cache", progress=progress)
    with DuckDbCatalog(cache) as catalog:
        index = index_tables(spec.index)
        if index and given.issuperset(table.name for table in index):
            yield from _index_times(cohort, spec, catalog)
        for name, modality in modalities.items():
            own = spec.modalities[name]
            if own.window is None:
                continue
            if given.issuperset(table.name for table in modality.tables):
                yield from _events(cohort, own, modality, catalog)
            else:
                yield NotProved(f"that {name} is what its source has in the windows: that source was not given")


def _index_times(cohort: Cohort, spec: CohortSpec, catalog: Catalog) -> Proof:
    found = index_events(catalog, spec.index).set_index(SAMPLE_ID)
    samples = cohort.samples
    ids = samples[SAMPLE_ID].astype("string").str.partition("/")[0]
    of_source = found.reindex(ids)
    for column in (SUBJECT_ID, INDEX_TIME):
        differs = of_source[column].to_numpy() != samples[column].to_numpy(of_source[column].to_numpy().dtype)
        if differs.any():
            yield Finding(SAMPLES, f"{column} is another than the source's: {named_rows(np.flatnonzero(differs))}")


def _events(cohort: Cohort, own: ModalitySpec, modality: Modality, catalog: Catalog) -> Proof:
    """The modality's part of the samples, made again from the events in their windows."""
    samples = cohort.samples
    present = samples[present_column(modality.name)].to_numpy(dtype=np.bool_)
    inside = _in_windows(samples, own, modality, catalog)
    if modality.keyed:  # the first of each key, whatever else there is: nothing is opened, so nothing is refused
        inside = inside.sort_values(_order(inside, own), kind="stable").drop_duplicates([SAMPLE_ID, KEY])
    again = modality.collect(inside)
    if modality.keyed:
        again = again.reindex(samples[SAMPLE_ID])
        for choice in modality.choices:
            left = samples[choice.column].to_numpy(dtype=np.float64, na_value=np.nan)
            right = again[choice.column].to_numpy(dtype=np.float64, na_value=np.nan)
            wrong = ~np.isclose(left, right, rtol=0, atol=0, equal_nan=True)
            if wrong.any():
                what = f"{choice.column} is not what the source has in the window"
                yield Finding(SAMPLES, f"{what}: {named_rows(np.flatnonzero(wrong))}")
        return
    for choice in modality.choices:
        columns = [choice.column, *([choice.time] if choice.time is not None else [])]
        known = set(again[columns].astype("string").itertuples(name=None))
        wanted = samples.set_index(SAMPLE_ID)[columns].astype("string").itertuples(name=None)
        missing = present & np.array([one not in known for one in wanted], dtype=np.bool_)
        if missing.any():
            what = f"{' and '.join(columns)} are of no event that the source has in the window"
            yield Finding(SAMPLES, f"{what}: {named_rows(np.flatnonzero(missing))}")


def _in_windows(samples: pd.DataFrame, own: ModalitySpec, modality: Modality, catalog: Catalog) -> pd.DataFrame:
    """Eligible events of the samples' patients that lie in their windows, one row for each sample and event."""
    assert own.window is not None
    events = modality.events(catalog)
    patients = catalog.rows(samples[[SUBJECT_ID]].drop_duplicates())
    of_patients = catalog.frame(events.filter(events.eligible).semi_join(patients, SUBJECT_ID))
    pairs = samples[[SAMPLE_ID, SUBJECT_ID, INDEX_TIME]].merge(of_patients, on=SUBJECT_ID)
    return pairs[within(pairs[EVENT_TIME], pairs[INDEX_TIME], own.window)]


def _order(inside: pd.DataFrame, own: ModalitySpec) -> list[str]:
    """Columns to sort by, which are added: the rule of `take`, then the event's id."""
    time: NDArray[np.int64] = inside[EVENT_TIME].to_numpy("datetime64[us]").astype(np.int64)
    index = inside[INDEX_TIME].to_numpy("datetime64[us]").astype(np.int64)
    first = {"earliest": time, "latest": -time, "nearest": np.abs(time - index)}[own.take or "earliest"]
    inside.insert(0, "_first", first)
    inside.insert(1, "_time", time)
    return ["_first", "_time", EVENT_ID]
