"""`symile-clin cohort check`: whether a cohort can be built from these sources, and what that would cost.

Every part has a limit on its time, and what does not answer is named instead of waited for. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from symile_clin.cohort.index import index_tables
from symile_clin.cohort.linking import further_keys
from symile_clin.cohort.named_table import named_path
from symile_clin.cohort.spec import CohortSpec, load_spec
from symile_clin.disk import amount
from symile_clin.errors import SourceError, SymileClinError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import INDEX_ROW
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline.cohorts import DEFAULT_SPEC
from symile_clin.pipeline.costs import estimate
from symile_clin.pipeline.engines import DUCKDB, Engine
from symile_clin.pipeline.inputs import source_tables
from symile_clin.pipeline.machine import look_at_machine
from symile_clin.pipeline.opened import NO_ANSWER, Opened, open_some
from symile_clin.pipeline.provenance import paper_note
from symile_clin.pipeline.readiness import Preflight
from symile_clin.pipeline.whereabouts import Problem, given_problems, option, whole_folder_problem
from symile_clin.progress import Progress, Quiet
from symile_clin.schema import COHORTS_ROOT, SUBJECT_ID
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.convert import find_table
from symile_clin.sources.deadline import Deadline, within
from symile_clin.sources.glance import count_rows, glance
from symile_clin.sources.memory import memory_bytes
from symile_clin.sources.tables import TableSpec
from symile_clin.sources.versions import FAMILIES, Release, detect

SECONDS: Final = 26.0  #: for everything
SECONDS_PER_FOLDER: Final = 5.0
SECONDS_PER_TABLE: Final = 10.0
#: Of these, for reading; the rest is for making sense of it on a busy machine.
READING_SECONDS: Final = 3.0
SECONDS_PER_MODALITY: Final = 8.0


def check_cohort(
    *,
    spec: str | None = None,
    mimic_iv: Path | None = None,
    mimic_cxr: Path | None = None,
    mimic_cxr_dicom: Path | None = None,
    mimic_ecg: Path | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    progress: Progress,
) -> Preflight:
    """Look at every source of a cohort, for at most half a minute; nothing is written.

    Args:
        spec: a cohort spec's name or file; "symile_mimic" by default.
        mimic_iv, mimic_cxr, mimic_cxr_dicom, mimic_ecg: source directories.
        out: where the cohort would be; data/cohorts/<name> by default.
        overrides: `key=value` settings that win over the spec.
        workers: processes of the build; one per core by default.

    Raises:
        ConfigError, NotFoundError: a spec or option that cannot be understood.
    """
    given = {
        "mimic_iv": mimic_iv, "mimic_cxr": mimic_cxr, "mimic_cxr_dicom": mimic_cxr_dicom, "mimic_ecg": mimic_ecg,
    }  # fmt: skip
    cohort_spec = load_spec(spec or DEFAULT_SPEC, overrides, ROOMS)
    roots = {source: path for source, path in given.items() if path is not None}
    progress.say(f"Looking at the sources of cohort {cohort_spec.name}.")
    return look(cohort_spec, roots, out=out or Path(COHORTS_ROOT) / cohort_spec.name, workers=workers)


def look(
    spec: CohortSpec, roots: Mapping[str, Path], *, out: Path, workers: int | None, engine: Engine = DUCKDB
) -> Preflight:
    """Look at every source of a cohort; as `check_cohort`. Tables and files that the engine leaves alone are not."""
    deadline = Deadline(SECONDS)
    modalities = spec.make_modalities(ROOMS)
    all_tables = source_tables(spec, modalities)
    specs = [] if engine.remote else all_tables
    found = Preflight(spec.name, out, look_at_machine(out), roots)
    copies = ParquetCache(specs, roots=roots, directory=out.parent / ".cache", progress=Quiet())
    files = {} if engine.tables_only else modalities
    found.problems += given_problems(specs, all_tables, modalities, files, roots)
    order = [spec.source for spec in specs] + list(roots)
    for source in sorted(roots, key=order.index):
        _look_at_source(source, roots[source], specs, modalities, copies, found, deadline)
    _look_for_rows(specs, modalities, found)
    _look_at_files(files, roots, found, deadline, max_refused=spec.max_refused)
    if engine.remote:
        found.notes.append("the tables are elsewhere: neither they nor what their join costs were looked at")
    note = paper_note(spec.name, found.releases)
    if note:
        found.notes.append(note)
    index_rows = _count_index(spec, further_keys(modalities), found)
    if index_rows is not None:
        found.cost = estimate(
            files if engine.tables_only else modalities,
            tables=found.tables,
            kept=found.kept,
            opened=found.opened,
            index_rows=index_rows,
            alone=spec.index.time is None,
            synthetic=any(release.synthetic for release in found.releases.values()),
            workers=workers or found.machine.cores,
            engine_bytes=memory_bytes(engine.memory),
            unseen=[one.name for one in specs if one.name not in found.tables],
        )
        _look_at_sizes(spec, index_rows, found)
    _look_at_room(found)
    return found


def _count_index(spec: CohortSpec, further: Sequence[str], found: Preflight) -> int | None:
    """How many index events there are, about; None if that cannot be told."""
    if spec.index.path is None:
        name = index_tables(spec.index)[-1 if spec.index.event == "icu_stay" else 0].name
        return found.tables[name].rows if name in found.tables else None
    try:
        path = named_path(spec.index)
        header, rows = within(SECONDS_PER_TABLE, partial(count_rows, path)) if path is not None else ([], 0)
    except (SymileClinError, OSError) as error:
        text = error.found if isinstance(error, SymileClinError) else str(error)
        found.problems.append(Problem(text, "Set 'index.path' of the spec to the table of index events"))
        return None
    alone = spec.index.time is None
    wanted = [spec.index.id, *(name for name in further if name != INDEX_ROW)] + (
        [] if alone else [SUBJECT_ID, spec.index.time]
    )
    missing = [column for column in wanted if column not in header]
    if missing and path is not None:
        found.problems.append(
            Problem(f"{path} has no column {', '.join(map(str, missing))}", "Name its columns in the spec's 'index'")
        )
    return rows


def _look_at_source(
    source: str,
    root: Path,
    specs: Sequence[TableSpec],
    modalities: Mapping[str, Modality],
    copies: ParquetCache,
    found: Preflight,
    deadline: Deadline,
) -> None:
    """Which release a folder holds, and its tables."""
    lists = [spec for modality in modalities.values() for spec in modality.synthetic_only]
    limit = deadline.left(SECONDS_PER_FOLDER)
    try:
        problem = within(limit, partial(whole_folder_problem, source, root, specs, lists))
        if problem is not None:
            found.problems.append(problem)
            return
        found.releases[source] = _detect(source, root, limit)
        for spec in specs:
            if spec.source == source:
                limit = deadline.left(SECONDS_PER_TABLE)
                _look_at_table(spec, root, copies, found, limit)
    except TimeoutError:
        if deadline.left() > 0:
            found.problems.append(
                Problem(f"{root} does not answer", "Check that its disk or file server is there; try `ls` on it")
            )
        else:
            found.notes.append(f"the time was up before all of {root} had been looked at")


def _detect(source: str, root: Path, limit: float) -> Release:
    """The release; a long list of checksums on a slow disk is not waited for."""
    try:
        return within(limit, partial(detect, source, root))
    except TimeoutError:
        name = FAMILIES[source].name if source in FAMILIES else source
        return Release(name, None, "it took too long to find out")


def _look_at_table(spec: TableSpec, root: Path, copies: ParquetCache, found: Preflight, limit: float) -> None:
    again = "Check the file against the release's SHA256SUMS.txt and download it again"
    try:
        path = within(limit, partial(find_table, spec, root))
        one = within(limit, partial(glance, spec, path, seconds=min(limit / 2, READING_SECONDS)))
        known = within(limit, partial(copies.known, spec.name))
    except SourceError as error:
        found.problems.append(Problem(error.found, error.remedy or again))
        return
    except TimeoutError:
        raise
    except OSError as error:
        name = error.filename or f"table '{spec.name}' of {root}"
        found.problems.append(Problem(f"{name} cannot be read: {error.strerror}", "Check its permissions"))
        return
    if known is not None:
        one = replace(one, rows=int(known["rows"]), exact=True)
        found.kept |= {spec.name}
    found.tables[spec.name] = one
    if one.missing:
        right = "Check that it is the right file of the right release"
        found.problems.append(Problem(f"{path} has no column {', '.join(one.missing)}", right))
    if one.repeated:
        found.problems.append(Problem(f"{path} has column {', '.join(one.repeated)} more than once", again))
    if one.fault:
        found.problems.append(Problem(f"{path} cannot be read as '{spec.name}': {one.fault}", again))
    if one.unknown:
        found.notes.append(
            f"{path.name} has columns that its format lacks, which are ignored: {', '.join(one.unknown)}"
        )


def _look_for_rows(specs: Sequence[TableSpec], modalities: Mapping[str, Modality], found: Preflight) -> None:
    """Index events and events of each modality are in the first of their tables; without them there is no cohort."""
    needed = {spec.name for spec in specs[:1]}
    needed |= {table.name for modality in modalities.values() for table in modality.tables[:1]}
    for name, one in found.tables.items():
        if one.rows == 0 and name in needed:
            found.problems.append(Problem(f"{one.path} has no rows", "Download it again"))
        elif one.rows == 0:
            found.notes.append(f"{one.path.name} has no rows")


def _look_at_files(
    modalities: Mapping[str, Modality],
    roots: Mapping[str, Path],
    found: Preflight,
    deadline: Deadline,
    *,
    max_refused: float,
) -> None:
    """A sample of each modality's files, where its tables could be read."""
    for name, modality in modalities.items():
        source = modality.reads_from
        needed = {spec.name for spec in modality.tables}
        if source is None or source not in roots or not needed <= found.tables.keys():
            continue
        samples = {table: found.tables[table].sample for table in needed}
        if any(found.tables[table].missing or found.tables[table].fault for table in needed):
            continue
        one = open_some(modality, samples, roots[source], deadline=deadline, seconds=SECONDS_PER_MODALITY)
        found.opened[name] = one
        where = f"modalities.{name}: "
        if one.looked_at == 0:
            why = "no sampled row could be chosen" if deadline.left() > 0 else "the time was up"
            found.notes.append(f"{where}no file was looked at, for {why}")
        elif one.fine == 0:
            found.problems.append(_no_file(one, source, roots[source]))
        elif one.fine < one.looked_at:
            share = (one.looked_at - one.fine) / one.looked_at
            then = "leaves them out, and says which"
            if share > max_refused:
                then = f"may stop for it: it allows {max_refused:.0%}, or more with --set max_refused=..."
            found.notes.append(f"{where}{share:.0%} of the sampled files cannot be used; a build {then}")


def _no_file(one: Opened, source: str, root: Path) -> Problem:
    if NO_ANSWER in one.refused:
        return Problem(f"Files below {root} do not answer", "Check that its disk or file server is there")
    found = (
        f"None of {one.looked_at} sampled files of '{one.modality}' below {root} can be used: {one.refusals(all=True)}"
    )
    if one.instead:
        return Problem(
            f"{found}; {one.instead} files lie in their places",
            f"Give {option(source)} the release with the files that the spec asks for, or change the spec's options",
        )
    return Problem(found, "Check that the download of files/ is complete")


def _look_at_sizes(spec: CohortSpec, index_rows: int, found: Preflight) -> None:
    """Whether there can be, and probably are, as many samples as the splits ask for."""
    sizes = (spec.splits.train, spec.splits.val, spec.splits.test)
    wanted = sum(size for size in sizes if isinstance(size, int))
    if any(one.take == "all" for one in spec.modalities.values()) or found.cost is None:
        return
    if wanted > index_rows:
        shares = "Ask for shares, such as --set splits.train=0.8 --set splits.val=0.1"
        found.problems.append(Problem(f"The splits ask for {wanted:,} samples of {index_rows:,} index events", shares))
    elif wanted > found.cost.samples:
        found.notes.append(f"the splits ask for {wanted:,} samples, but about {found.cost.samples:,} are expected")


def _look_at_room(found: Preflight) -> None:
    """Whether the cohort's disk and this machine's memory are large enough."""
    machine = found.machine
    if not machine.writable:
        found.problems.append(Problem(f"{machine.folder} may not be written to", "Choose another place with --out"))
    if found.cost is None:
        return
    if found.cost.total_disk > machine.disk:
        found.problems.append(
            Problem(
                f"{machine.folder} has {amount(machine.disk)} free, "
                f"but about {amount(found.cost.total_disk)} are needed",
                "Make room, or choose another disk with --out",
            )
        )
    if machine.memory and found.cost.memory > machine.memory:
        found.notes.append(
            f"{amount(machine.memory)} of memory are free, but up to {amount(found.cost.memory)} may be used: "
            "fewer --workers help"
        )
