"""What a build reads: the tables, and what a cohort's identity is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symile_clin import __version__, files
from symile_clin.cohort.index import index_tables
from symile_clin.cohort.named_table import named_path
from symile_clin.cohort.spec import CohortSpec
from symile_clin.errors import ConfigError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import Linked
from symile_clin.pipeline.engines import DUCKDB, Engine
from symile_clin.schema import NOT_CHECKED
from symile_clin.sources.inputs import require_roots, source_files
from symile_clin.sources.tables import TableSpec, remote_tables


def source_tables(spec: CohortSpec, modalities: Mapping[str, Modality]) -> list[TableSpec]:
    """Every table that a build reads, those of the index events first."""
    tables = {table.name: table for modality in modalities.values() for table in modality.tables}
    return [*index_tables(spec.index), *tables.values()]


def refuse_unused(spec: CohortSpec, modalities: Mapping[str, Modality], roots: Mapping[str, Path]) -> None:
    """A source that was given is read: whoever gives one expects that it is.

    Raises:
        ConfigError: the spec reads neither tables nor files of a source.
    """
    used = {table.source for table in source_tables(spec, modalities)}
    used |= {modality.reads_from for modality in modalities.values() if modality.reads_from}
    for source in sorted(set(roots) - used):
        options = [f"modalities.{name}.{modality.other_files[source]}"
                   for name, modality in modalities.items() if source in modality.other_files]  # fmt: skip
        option = f"--{source.replace('_', '-')}"
        reading = f", or read it with --set {options[0]}" if options else ""
        raise ConfigError(f"{option} was given, but the spec reads nothing of it", remedy=f"Leave it out{reading}")


def cohort_inputs(
    spec: CohortSpec, modalities: Mapping[str, Modality], roots: Mapping[str, Path], engine: Engine = DUCKDB
) -> dict[str, Any]:
    """What a cohort is made from; equal inputs make an equal cohort.

    Images and records are not listed: only those that are chosen are ever opened. Nor is the engine, but where its
    tables are others; of those in BigQuery, names are all that is known.

    Raises:
        ConfigError: the directory of a source was not given.
    """
    given, named = spec.splits.given, named_path(spec.index)
    tables = source_tables(spec, modalities)
    linked = {
        name: {path.as_posix(): files.sha256(path) for path in one.paths}
        for name, one in modalities.items()
        if isinstance(one, Linked)
    }
    if not engine.tables_only:
        of_tables = set() if engine.remote else {table.source for table in tables}
        of_files = {modality.reads_from for modality in modalities.values() if modality.reads_from}
        try:
            require_roots(of_tables | of_files, roots)
        except ConfigError as error:
            if not of_tables <= set(roots):
                raise
            raise ConfigError(error.found, remedy=f"{error.remedy}, or look into no file with --tables-only") from None
    return {
        "spec": spec.resolved(),
        "tables": remote_tables(tables, engine.bigquery_tables) if engine.remote else source_files(tables, roots),
        **({"files": NOT_CHECKED} if engine.tables_only else {}),
        "splits_sha256": files.sha256(Path(given)) if given and Path(given).is_file() else None,
        "index_sha256": None if named is None else files.sha256(named),
        **({"linked": linked} if linked else {}),
        "version": __version__,
    }
