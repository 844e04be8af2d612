"""`symile-clin cohort build --dry-run`: what a build would do and cost, and nothing of it done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin import files
from symile_clin.cohort.spec import CohortSpec, load_spec
from symile_clin.cohort.words import in_words
from symile_clin.errors import SymileClinError
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline.cohorts import DEFAULT_SPEC, DEMO_PATIENTS, DEMO_SEED, DEMO_SPEC
from symile_clin.pipeline.engines import Engine, EngineName, choose_engine
from symile_clin.pipeline.inputs import cohort_inputs
from symile_clin.pipeline.preflight import look
from symile_clin.pipeline.readiness import UNREADY, Preflight
from symile_clin.pipeline.resuming import WORK_DIR
from symile_clin.progress import Progress
from symile_clin.schema import COHORTS_ROOT, SYNTHETIC_ROOT
from symile_clin.sources.inputs import same_inputs
from symile_clin.synthetic.tree import DIRECTORIES

ENGINES: Final = {"duckdb": "DuckDB", "pyspark": "Spark"}
#: What would become of the cohort's directory.
NEW: Final = "new"
UP_TO_DATE: Final = "there already, from the same sources and settings: nothing would be done"
GOES_ON: Final = "begun by a build that was cut short: what it has read would be kept"
REPLACED: Final = "there already, from other sources or settings: it would be replaced"
IN_THE_WAY: Final = "not empty and not a cohort: choose another with --out"


@dataclass(frozen=True)
class Plan:
    """What a build would do.

    Attributes:
        spec: in words.
        state: what would become of the cohort's directory.
        synthetic: the tree that would be written first; None where it is there or none is asked for.
        found: what a look at the sources found; None where they are yet to be written.
        engine: table engine and processes, in words.
    """

    name: str
    out: Path
    spec: Sequence[str]
    resolved: Mapping[str, Any]
    state: str
    synthetic: Path | None
    found: Preflight | None
    engine: str

    @property
    def exit_code(self) -> int:
        """0 if the build can start."""
        return UNREADY if self.state == IN_THE_WAY or (self.found is not None and self.found.problems) else 0

    def text(self) -> str:
        """The spec in words, the engine, the place, then the sources as `cohort check` shows them."""
        parts = ["\n".join([f"Cohort {self.name}", *(f"  {line}" for line in self.spec)])]
        parts.append(f"Written to {self.out}: {self.state}.\n{self.engine}")
        if self.synthetic is not None:
            parts.append(
                f"First {DEMO_PATIENTS:,} synthetic patients would be written to {self.synthetic}, seed {DEMO_SEED}; "
                "only then can the sources be looked at."
            )
        if self.found is not None:
            parts.append(self.found.text())
        parts.append("This was a dry run: nothing was written.")
        return "\n\n".join(parts)

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "name": self.name,
            "out": str(self.out),
            "state": self.state,
            "spec": dict(self.resolved),
            "spec_in_words": list(self.spec),
            "engine": self.engine,
            "synthetic": None if self.synthetic is None else str(self.synthetic),
            "sources": None if self.found is None else self.found.record(),
        }


def plan_cohort(
    *,
    spec: str | None = None,
    demo: bool = False,
    mimic_iv: Path | None = None,
    mimic_cxr: Path | None = None,
    mimic_cxr_dicom: Path | None = None,
    mimic_ecg: Path | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    engine: EngineName = "duckdb",
    memory: str = "2GB",
    threads: int | None = None,
    spark_master: str | None = None,
    bigquery_project: str | None = None,
    bigquery_tables: Sequence[str] = (),
    tables_only: bool = False,
    progress: Progress,
    **others: Any,  # noqa: ARG001  options of a build that change nothing of what is planned
) -> Plan:
    """Say what `build_cohort` would do with the same arguments. Nothing is written, not even a folder.

    Raises:
        ConfigError, NotFoundError: a spec or option that cannot be understood.
    """
    cohort_spec = load_spec(spec or (DEMO_SPEC if demo else DEFAULT_SPEC), overrides, ROOMS)
    out = out or Path(COHORTS_ROOT) / cohort_spec.name
    tree = Path(SYNTHETIC_ROOT) / DEMO_SPEC
    given = {
        "mimic_iv": mimic_iv, "mimic_cxr": mimic_cxr, "mimic_cxr_dicom": mimic_cxr_dicom, "mimic_ecg": mimic_ecg,
    }  # fmt: skip
    roots = {source: path for source, path in given.items() if path is not None}
    if demo:
        roots = {source: tree / folder for source, folder in DIRECTORIES.items() if (tree / folder).is_dir()}
    chosen = choose_engine(
        engine,
        memory=memory,
        threads=threads,
        spark_master=spark_master,
        bigquery_project=bigquery_project,
        bigquery_tables=bigquery_tables,
        tables_only=tables_only,
    )
    missing = demo and files.read_manifest(tree) is None
    progress.say(f"Planning cohort {cohort_spec.name}; nothing is written.")
    found = None if missing else look(cohort_spec, roots, out=out, workers=workers, engine=chosen)
    return Plan(
        name=cohort_spec.name,
        out=out,
        spec=in_words(cohort_spec),
        resolved=cohort_spec.resolved(),
        state=_state(out, cohort_spec, roots, chosen),
        synthetic=tree if missing else None,
        found=found,
        engine=_engine(chosen, workers, found),
    )


def _state(out: Path, spec: CohortSpec, roots: Mapping[str, Path], engine: Engine) -> str:
    manifest = files.read_manifest(out)
    if manifest is None:
        if out.is_dir() and any(out.iterdir()):
            return IN_THE_WAY
        return GOES_ON if (files.building(out) / WORK_DIR).is_dir() else NEW
    if manifest.get("stage") != "cohort":
        return IN_THE_WAY
    try:
        inputs = cohort_inputs(spec, spec.make_modalities(ROOMS), roots, engine)
    except SymileClinError:  # the look at the sources says why
        return REPLACED
    return UP_TO_DATE if same_inputs(manifest.get("inputs"), inputs) else REPLACED


def _engine(engine: Engine, workers: int | None, found: Preflight | None) -> str:
    """Who joins the tables and who opens the files."""
    cores = workers or (found.machine.cores if found is not None else None)
    processes = "a process for each core" if cores is None else "1 process" if cores == 1 else f"{cores} processes"
    threads = f" and {engine.threads} threads" if engine.threads else ""
    if engine.name == "bigquery":
        tables = "Tables are joined by BigQuery, where they are"
    else:
        tables = (
            f"Tables are joined by {ENGINES[engine.name]} within {engine.memory}{threads}, spilling to disk beyond "
            "that; their typed copies are kept in .cache beside the cohort"
        )
    if engine.tables_only:
        return f"{tables}. No file is looked into."
    return f"{tables}. Files are opened by {'Spark' if engine.name == 'pyspark' else processes}."
