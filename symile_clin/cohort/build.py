"""From sources to samples: join, narrow, choose, read. What needs to know the splits comes later, in `data`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from symile_clin import disk
from symile_clin.cohort.answers import Answers
from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.choose import NO_EVENT, OF, Chooser, Chosen
from symile_clin.cohort.index import FURTHER_COLUMN, index_events
from symile_clin.cohort.linking import further_keys, key_column, link
from symile_clin.cohort.opening import open_work
from symile_clin.cohort.reading import Shards, read_chosen
from symile_clin.cohort.spec import CohortSpec, RequireSpec
from symile_clin.cohort.ties import tied_values
from symile_clin.cohort.workers import Mapper
from symile_clin.errors import CohortError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import Linked
from symile_clin.progress import Progress
from symile_clin.schema import INDEX_TIME, SAMPLE_ID, present_column
from symile_clin.sources.catalog import Catalog

#: At most what all tables of a cohort hold: of themselves, of a sample, and of any other index event.
TABLES_BYTES, TABLES_BYTES_PER_SAMPLE, TABLES_BYTES_PER_EVENT = 256 << 10, 2_000, 100
NO_INDEX_TIME = "no index time"
FURTHER = "each event in the window is a sample"


@dataclass(frozen=True)
class Assembled:
    """Every sample that qualifies, before splits.

    Attributes:
        index: every index event, the samples' among them; one that made several samples is there for each.
        samples: one row per sample: index columns, each modality's columns and whether it is present.
        shards: what was read of each modality whose files are in reach.
        chosen: the events that samples take, by modality.
        attrition: where all others went.
        ties: what events at the very time of a chosen one would have given (`tied_values`).
    """

    index: pd.DataFrame
    samples: pd.DataFrame
    shards: Mapping[str, Shards]
    chosen: Mapping[str, pd.DataFrame]
    attrition: Attrition
    ties: pd.DataFrame


def assemble(
    spec: CohortSpec,
    modalities: Mapping[str, Modality],
    *,
    catalog: Catalog,
    work: Path,
    answers: Path | None = None,
    workers: Mapper,
    progress: Progress,
) -> Assembled:
    """Find the samples of a cohort and read their files.

    Modalities that are linked by a key come after the windows, or after the files if the key is one of those. Otherwise
    three passes, each over what the ones before left, in the spec's order with the required modalities first: which
    samples have an event in the window (tables only), which have a valid one (files are opened, one by one down the
    ranks), and what is in the chosen files. So no file is opened for a sample that could not qualify anyway.

    Files out of reach of the catalog are neither asked nor read, and such modalities have no arrays from files.

    Args:
        work: a folder for what is read; what an earlier build left there is not read again.
        answers: a file that keeps, between builds, which records may be used; None asks every time.

    Raises:
        SourceError: a table is not there or not what its format says.
        CohortError: no sample is left; the message shows where they went.
        TooManyRefusedError: more files of a modality are refused than the spec allows.
    """
    index = index_events(catalog, spec.index, further=further_keys(modalities))
    attrition = Attrition(index)
    if spec.index.time is not None:
        attrition.leave("index time", dict.fromkeys(index.loc[index[INDEX_TIME].isna(), SAMPLE_ID], NO_INDEX_TIME))
    _refuse_empty(attrition)
    choosers: dict[str, Chooser] = {}
    chosen: dict[str, Chosen] = {}
    found: dict[str, Collection[str]] = {}
    # what makes the samples comes first, then what narrows them
    order = sorted(modalities, key=lambda name: (name != spec.sampled, name not in spec.require.all))
    linked = {name: one for name in order if isinstance(one := modalities[name], Linked)}
    order = [name for name in order if name not in linked]
    for name in order:
        choosers[name] = Chooser(
            modalities[name],
            spec.modalities[name],
            catalog=catalog,
            source=_source(modalities[name], catalog),
            samples=attrition.samples,
            attrition=attrition,
            answers=Answers(answers),
            workers=workers,
            max_refused=spec.max_refused,
        )
        if name == spec.sampled:
            parts = choosers[name].parts()
            _leave_without(attrition, name, set(parts[OF]))
            attrition.multiply(name, FURTHER, parts)
            found[name] = parts[SAMPLE_ID]
        elif name in spec.require.all or spec.require.at_least is not None:
            found[name] = choosers[name].in_window()
        if name in spec.require.all:
            _leave_without(attrition, name, found[name])
            progress.say(f"  {name}: {len(attrition.samples):,} samples have one in the window.")
    late: list[Linked] = []  # by a column of another modality, which is known only once that has been read
    for name, one in linked.items():
        if key_column(one, index.columns) is None:
            late.append(one)
            found[name] = attrition.samples[SAMPLE_ID]
        else:
            chosen[name] = _link(one, attrition.samples, spec.require, attrition, progress)
            found[name] = chosen[name].events[SAMPLE_ID]
    _leave_few(attrition, spec.require, found)
    for name in order:
        chosen[name] = choosers[name].first(attrition.samples)
        if name in spec.require.all:
            attrition.leave(name, chosen[name].reasons)
            _refuse_empty(attrition)
    has = {name: one.events[SAMPLE_ID] for name, one in chosen.items()}
    _leave_few(attrition, spec.require, found | has)
    in_reach = {name: one for name, one in modalities.items() if one.reads_from is None or _source(one, catalog)}
    needed = room(in_reach, chosen, attrition.samples) + TABLES_BYTES_PER_EVENT * len(index)
    disk.require_space(work, needed - disk.size(work), what="the cohort")
    shards: dict[str, Shards] = {}
    open_work(work)
    for name, modality in modalities.items():
        source = _source(modality, catalog)
        if source is None:
            continue
        chosen[name], shards[name] = read_chosen(
            modality,
            _only(chosen[name], attrition),
            choosers[name],
            source=source,
            work=work,
            samples=attrition.samples,
            on_unreadable=spec.on_unreadable,
            max_refused=spec.max_refused,
            attrition=attrition,
            workers=workers,
            progress=progress,
        )
        if name in spec.require.all:
            attrition.leave(f"{name} file", chosen[name].reasons)
            _refuse_empty(attrition)
        has = {name: one.events[SAMPLE_ID] for name, one in chosen.items()}
        _leave_few(attrition, spec.require, found | has)
    for one in late:
        samples = attrition.samples.reset_index(drop=True)
        for name in order:
            samples = _with_columns(samples, modalities[name], chosen[name].events)
        chosen[one.name] = _link(one, samples, spec.require, attrition, progress)
    _leave_few(attrition, spec.require, {name: one.events[SAMPLE_ID] for name, one in chosen.items()})
    samples = attrition.samples.reset_index(drop=True)
    samples = samples[[column for column in samples.columns if not column.startswith(FURTHER_COLUMN)]]
    for name, modality in modalities.items():
        samples = _with_columns(samples, modality, chosen[name].events)
    return Assembled(
        index=attrition.index,
        samples=samples.copy(),  # in one piece again after the joins
        shards=shards,
        chosen={name: one.events for name, one in chosen.items()},
        attrition=attrition,
        ties=tied_values({name: (modalities[name], choosers[name], chosen[name].events) for name in order}),
    )


def room(modalities: Mapping[str, Modality], chosen: Mapping[str, Chosen], samples: pd.DataFrame) -> int:
    """Bytes that a cohort takes while it is built, if no sample leaves any more.

    Arrays of what is read are there twice, first in shards; others once. Tables are small beside them.
    """
    total = TABLES_BYTES + TABLES_BYTES_PER_SAMPLE * len(samples)
    for name, modality in modalities.items():
        for array in modality.arrays.values():
            rows, times = len(samples), 1
            if name in chosen and modality.reads_from is not None and not array.fitted:
                rows, times = int(chosen[name].events[SAMPLE_ID].isin(samples[SAMPLE_ID]).sum()), 2
            total += times * rows * math.prod(array.shape) * np.dtype(array.dtype).itemsize
    return total


def _link(
    modality: Linked, samples: pd.DataFrame, require: RequireSpec, attrition: Attrition, progress: Progress
) -> Chosen:
    """What samples have of a modality by its key; without it they leave, if they need it."""
    column = key_column(modality, samples.columns)
    if column is None:
        raise ValueError(f"no sample has a column {modality.key}")
    chosen = link(modality, samples, column, attrition)
    files = ", ".join(str(path) for path in modality.paths)
    progress.say(f"  {modality.name}: {len(chosen.events):,} of {len(samples):,} samples have one in {files}.")
    if modality.name in require.all:
        attrition.leave(modality.name, chosen.reasons)
        _refuse_empty(attrition)
    return chosen


def _with_columns(samples: pd.DataFrame, modality: Modality, events: pd.DataFrame) -> pd.DataFrame:
    """Samples with the modality's columns, null where it is absent."""
    events = events[events[SAMPLE_ID].isin(samples[SAMPLE_ID])]
    own = modality.collect(events)
    scalars = [column for column in modality.columns if column in events.columns]
    if scalars:
        own = own.join(events.set_index(SAMPLE_ID)[scalars])
    own = own.reindex(index=samples[SAMPLE_ID], columns=list(modality.columns)).reset_index(drop=True)
    own = own.astype(dict(modality.columns))
    present = samples[SAMPLE_ID].isin(events[SAMPLE_ID]).rename(present_column(modality.name))
    return pd.concat([samples, own, present], axis="columns")


def _only(chosen: Chosen, attrition: Attrition) -> Chosen:
    """What is chosen for samples that are still in."""
    events = chosen.events[chosen.events[SAMPLE_ID].isin(attrition.samples[SAMPLE_ID])]
    return Chosen(events.reset_index(drop=True), {})


def _source(modality: Modality, catalog: Catalog) -> Path | None:
    return None if modality.reads_from is None else catalog.root(modality.reads_from)


def _leave_without(attrition: Attrition, name: str, found: Collection[str]) -> None:
    """Samples without an event of a modality in its window leave."""
    without = attrition.samples.loc[~attrition.samples[SAMPLE_ID].isin(found), SAMPLE_ID]
    attrition.leave(name, dict.fromkeys(without, NO_EVENT))
    _refuse_empty(attrition)


def _leave_few(attrition: Attrition, require: RequireSpec, has: Mapping[str, Collection[str]]) -> None:
    """Samples with fewer modalities than they need leave.

    Args:
        has: samples that have it, by modality.
    """
    if require.at_least is None:
        return
    samples = attrition.samples[SAMPLE_ID]
    count = sum(samples.isin(found).to_numpy(dtype=np.int64) for found in has.values())
    few = f"fewer than {require.at_least} modalities"
    attrition.leave("require", dict.fromkeys(samples[count < require.at_least], few))
    _refuse_empty(attrition)


def _refuse_empty(attrition: Attrition) -> None:
    if attrition.samples.empty:
        raise CohortError(
            f"the cohort is empty: {attrition.in_one_line()}",
            remedy="Check that the sources belong together, or widen the windows of the spec",
        )
