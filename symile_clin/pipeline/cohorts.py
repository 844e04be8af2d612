"""`symile-clin cohort build`: sources in, a complete cohort directory out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pandas as pd

from symile_clin import files
from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.build import assemble
from symile_clin.cohort.events import count_events
from symile_clin.cohort.small_cells import shared_attrition
from symile_clin.cohort.spec import CohortSpec, SplitsSpec, load_spec
from symile_clin.data import splits
from symile_clin.data.prepare import Prepared, prepare
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import ConfigError
from symile_clin.evaluation.cohort_tables import table_text
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline.engines import Engine, EngineName, choose_engine, open_engine
from symile_clin.pipeline.inputs import cohort_inputs, refuse_unused, source_tables
from symile_clin.pipeline.provenance import tell_releases
from symile_clin.pipeline.refusals import refusals_shown
from symile_clin.pipeline.resuming import WORK_DIR, Workplace, resumable
from symile_clin.pipeline.tracked import open_tracker, recorded
from symile_clin.progress import Progress
from symile_clin.schema import (
    ATTRITION,
    ATTRITION_SAMPLES,
    COHORTS_ROOT,
    EVENTS,
    HADM_ID,
    NOT_CHECKED,
    QUARANTINE,
    RELEASES,
    SAMPLE_ID,
    SPLIT,
    SPLITS,
    SUBJECT_ID,
    SYNTHETIC_ROOT,
    TIES,
    TRACKING_URI,
    TRUTH,
)
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.inputs import drift, same_inputs
from symile_clin.sources.versions import Release

DEFAULT_SPEC: Final = "symile_mimic"
DEMO_SPEC: Final = "demo"
DEMO_PATIENTS: Final = 800
DEMO_SEED: Final = 0
#: Beside the tables' Parquet copies: which records may be used.
ANSWERS: Final = "answers.sqlite"
SPLIT_STEP: Final = "splits"
TABLES_ONLY: Final = (
    "It was built from tables only: no file was looked for, so samples may be in it whose files are missing or broken, "
    "and it has no arrays of files to train on."
)


@dataclass(frozen=True)
class BuildResult:
    """A complete cohort.

    Attributes:
        samples: by split.
        subjects: patients of the whole cohort.
        queries: of val and test: how many there are, and how many have a list of matched candidates.
        attrition: attrition.csv.
        tables_only: no file was looked into.
        skipped: the same cohort was there already.
    """

    path: Path
    name: str
    hash: str
    samples: Mapping[str, int]
    subjects: int
    queries: Mapping[str, Mapping[str, int | None]]
    attrition: pd.DataFrame
    tables_only: bool
    skipped: bool

    def text(self) -> str:
        """Attrition and split sizes."""
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.samples.items())
        state = "is up to date" if self.skipped else "built"
        return (
            f"{table_text(self.attrition)}\n\n"
            f"Cohort {self.path} {state}: {sum(self.samples.values()):,} samples of {self.subjects:,} patients "
            f"({sizes}).{''.join(self._matched())}" + (f"\n{TABLES_ONLY}" if self.tables_only else "")
        )

    def _matched(self) -> Iterator[str]:
        for split, of_split in self.queries.items():
            if of_split["matched"] is not None:
                yield (
                    f"\n{of_split['matched']:,} of {of_split['all']:,} queries of {split} have enough negatives like "
                    "them for a list of matched candidates."
                )

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "path": str(self.path),
            "name": self.name,
            "hash": self.hash,
            "samples": dict(self.samples),
            "subjects": self.subjects,
            "queries": {split: dict(of_split) for split, of_split in self.queries.items()},
            "attrition": self.attrition.to_dict("records"),
            "tables_only": self.tables_only,
            "skipped": self.skipped,
        }


def build_cohort(
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
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> BuildResult:
    """Build a cohort directory, unless the same one is there already.

    Args:
        spec: a cohort spec's name or file; "demo" with `demo`, "symile_mimic" otherwise.
        demo: write synthetic patients first and build from them, by the same steps as from real ones.
        mimic_iv, mimic_cxr, mimic_cxr_dicom, mimic_ecg: source directories.
        out: the cohort directory; data/cohorts/<name> by default.
        overrides: `key=value` settings that win over the spec.
        workers: processes; one per core by default. Their number changes nothing in the cohort.
        engine, memory, threads, spark_master, bigquery_project, bigquery_tables, tables_only: see `Engine`.
        tracking_uri: MLflow store; None records nothing.
        log_patient_level: also send events.csv of real patients, whose small counts cannot be told; attrition.csv goes
            without them.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        ConfigError, NotFoundError: a spec or option that cannot be understood.
        SourceError: a directory or table that is missing or is not what its format says.
        CohortError: no samples, too few for the splits, or more refused files than the spec allows.
        BusyError: another process is building the same cohort.
    """
    given = {
        "mimic_iv": mimic_iv, "mimic_cxr": mimic_cxr, "mimic_cxr_dicom": mimic_cxr_dicom, "mimic_ecg": mimic_ecg,
    }  # fmt: skip
    roots = {source: path for source, path in given.items() if path is not None}
    cohort_spec = load_spec(spec or (DEMO_SPEC if demo else DEFAULT_SPEC), overrides, ROOMS)
    if demo:
        roots = _synthetic_sources(roots, workers, progress)
    modalities = cohort_spec.make_modalities(ROOMS)
    if not demo:
        refuse_unused(cohort_spec, modalities, roots)
    out = out or Path(COHORTS_ROOT) / cohort_spec.name
    chosen = choose_engine(
        engine,
        memory=memory,
        threads=threads,
        spark_master=spark_master,
        bigquery_project=bigquery_project,
        bigquery_tables=bigquery_tables,
        tables_only=tables_only,
    )
    inputs = cohort_inputs(cohort_spec, modalities, roots, chosen)
    found = files.read_manifest(out)
    if found is not None and same_inputs(found.get("inputs"), inputs):
        files.tidy(out)
        progress.say(f"Cohort {out} is there already, from the same sources and settings: nothing to do.")
        return _result(open_cohort(out), skipped=True)
    if found is not None and found.get("stage") != "cohort":
        raise ConfigError(f"{out} holds a {found.get('stage')}", remedy="Choose another directory with --out")
    if found is None and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty and not a cohort", remedy="Choose another directory with --out")
    started = time.monotonic()
    progress.say(f"Building cohort {cohort_spec.name} in {out}.")
    for change in drift(found["inputs"].get("tables", []), inputs["tables"]) if found is not None else []:
        progress.say(f"  {change}.")
    releases = tell_releases(roots, spec=cohort_spec.name, progress=progress)
    with refusals_shown(out), resumable(out, progress) as place:
        _build(place, out, cohort_spec, modalities, roots, inputs, releases, chosen, workers, progress, started)
    cohort = open_cohort(out)
    result = _result(cohort, skipped=False)
    tracker = open_tracker(
        tracking_uri,
        kind="cohort",
        run_name=cohort.name,
        cohort_name=cohort.name,
        cohort_hash=cohort.hash,
        synthetic=cohort.synthetic,
        log_patient_level=log_patient_level,
        allow_remote_tracking=allow_remote_tracking,
        progress=progress,
    )
    runtime = dict(cohort.manifest["runtime"])
    tracker.params({**recorded(cohort.spec), "engine": runtime.pop("engine")})
    counts = {f"samples/{split}": float(count) for split, count in result.samples.items()}
    tracker.metrics({**counts, "subjects": float(result.subjects), **runtime})
    with TemporaryDirectory() as folder:
        shown = Path(folder) / ATTRITION
        files.write_text(shown, shared_attrition(result.attrition).to_csv(index=False))
        tracker.artifact(shown, patient_level=False)
    tracker.artifact(out / EVENTS, patient_level=True)  # of how many patients its events are is not known
    tracker.finish()
    return result


def _build(
    place: Workplace,
    out: Path,
    spec: CohortSpec,
    modalities: Mapping[str, Modality],
    roots: Mapping[str, Path],
    inputs: Mapping[str, Any],
    releases: Mapping[str, Release],
    engine: Engine,
    workers: int | None,
    progress: Progress,
    started: float,
) -> None:
    """Fill a cohort directory."""
    directory = place.directory
    tables = source_tables(spec, modalities)
    cache = ParquetCache(tables, roots=roots, directory=out.parent / ".cache", progress=progress)
    with open_engine(engine, cache=cache, tables=tables, roots=roots, workers=workers, cautious=place.died) as (
        catalog,
        pool,
    ):
        assembled = assemble(
            spec,
            modalities,
            catalog=catalog,
            work=place.work.absolute(),  # executors of a cluster have working directories of their own
            answers=cache.directory / ANSWERS,
            workers=pool,
            progress=progress,
        )
        split_of = _draw_splits(spec.splits, assembled.samples, spec.index.id)
        prepared = prepare(
            directory,
            samples=assembled.samples,
            shards=assembled.shards,
            modalities=modalities,
            split_of=split_of,
            target=spec.candidates.target,
            candidates=spec.candidates.n,
            seed=spec.candidates.seed,
            matched=spec.candidates.matched and spec.index.time is not None,  # else nothing is known to match in
            join=engine.name != "pyspark",  # what tasks wrote stays where it is
        )
        attrition = assembled.attrition
        attrition.leave(SPLIT_STEP, _without_split(spec.splits, assembled.samples, split_of))
        events = [
            count_events(
                modality,
                spec.modalities[name].window,
                catalog=catalog,
                index=assembled.index,
                samples=prepared.samples,
                chosen=assembled.chosen[name],
                refused=attrition.refused,
            )
            for name, modality in modalities.items()
        ]
    _write_books(directory, attrition, events, assembled.ties)
    planted = _copy_truth(directory, roots, prepared.samples)
    files.write_manifest(
        directory,
        stage="cohort",
        content={
            "name": spec.name,
            "hash": prepared.hash,
            "spec": spec.resolved(),
            "preset": spec.preset,
            "target": spec.candidates.target,
            "synthetic": planted is not None,
            "planted": planted,
            "inputs": {
                **inputs,
                "tables": cache.with_contents(inputs["tables"]),
                RELEASES: {source: release.record() for source, release in releases.items()},
            },
            "counts": _counts(prepared),
            "arrays": prepared.arrays,
            "files": files.listing(directory, leave_out=[WORK_DIR]),
            **({"source_files": NOT_CHECKED} if engine.tables_only else {}),
            "runtime": {
                "seconds": round(time.monotonic() - started, 1),
                "workers": pool.count,
                "engine": engine.name,
            },
        },
    )


def _synthetic_sources(given: Mapping[str, Path], workers: int | None, progress: Progress) -> dict[str, Path]:
    """Write the demo's synthetic tree, if it is not there; the directories of its sources.

    Raises:
        ConfigError: real sources were given, too.
    """
    if given:
        option = "--" + next(iter(given)).replace("_", "-")
        raise ConfigError(f"--demo and {option} were both given", remedy="Leave one of them out")
    from symile_clin.pipeline.synthesis import synth
    from symile_clin.synthetic.tree import DIRECTORIES

    tree = Path(SYNTHETIC_ROOT) / DEMO_SPEC
    synth(out=tree, patients=DEMO_PATIENTS, seed=DEMO_SEED, workers=workers, progress=progress)
    return {source: tree / folder for source, folder in DIRECTORIES.items() if (tree / folder).is_dir()}


def _draw_splits(spec: SplitsSpec, samples: pd.DataFrame, id_column: str | None) -> splits.Drawn:
    if spec.given is not None:
        return splits.given_splits(samples, Path(spec.given), id_column=id_column)
    if spec.groups:
        return splits.draw_by_anchor_year_group(samples, **spec.groups)
    if spec.by == "subject":
        return splits.draw_by_subject(samples, **spec.sizes, seed=spec.seed, stratify=spec.stratify)
    return splits.draw_admission_then_drop(samples, train=spec.sizes["train"], val=spec.sizes["val"], seed=spec.seed)


def _without_split(spec: SplitsSpec, samples: pd.DataFrame, split_of: splits.Drawn) -> dict[str, str]:
    reason = splits.NOT_GIVEN if spec.given is not None else splits.PATIENT_ELSEWHERE
    if spec.by == "anchor_year_group":
        reason = splits.NOT_LISTED
    return {sample: reason for sample in samples[SAMPLE_ID] if sample not in split_of}


def _write_books(directory: Path, attrition: Attrition, events: Sequence[pd.DataFrame], ties: pd.DataFrame) -> None:
    files.write_text(directory / ATTRITION, attrition.table().to_csv(index=False))
    files.write_text(directory / EVENTS, pd.concat(events, ignore_index=True).to_csv(index=False))
    books = {ATTRITION_SAMPLES: attrition.left(), QUARANTINE: attrition.quarantine(), TIES: ties}
    for name, table in books.items():
        with files.atomic(directory / name) as temporary:
            table.to_parquet(temporary, index=False)
        (directory / name).chmod(0o600)  # patient-level


def _copy_truth(directory: Path, roots: Mapping[str, Path], samples: pd.DataFrame) -> Mapping[str, Any] | None:
    """The planted factors of the samples, where the sources are one synthetic tree; how they were planted."""
    tree = {root.resolve().parent for root in roots.values()}
    manifest = files.read_manifest(tree.pop()) if len(tree) == 1 else None
    if manifest is None or manifest.get("stage") != "synthetic":
        return None
    if samples[HADM_ID].notna().all():  # factors are planted in admissions
        truth = pd.read_parquet(next(iter(roots.values())).resolve().parent / TRUTH).set_index(HADM_ID)
        with files.atomic(directory / TRUTH) as temporary:
            truth.loc[samples[HADM_ID].to_numpy(dtype="int64")].reset_index().to_parquet(temporary, index=False)
    planted: Mapping[str, Any] = manifest["planted"]
    return planted


def _counts(prepared: Prepared) -> dict[str, Any]:
    of_split = prepared.samples[SPLIT].value_counts()
    return {
        "samples": len(prepared.samples),
        "subjects": int(prepared.samples[SUBJECT_ID].nunique()),
        "splits": {split: int(of_split[split]) for split in SPLITS},
        "queries": {split: asdict(queries) for split, queries in prepared.queries.items()},
    }


def _result(cohort: Cohort, *, skipped: bool) -> BuildResult:
    counts = cohort.manifest["counts"]
    return BuildResult(
        path=cohort.path,
        name=cohort.name,
        hash=cohort.hash,
        samples={split: counts["splits"][split] for split in SPLITS},
        subjects=counts["subjects"],
        queries={split: counts["queries"][split] for split in SPLITS if split in counts.get("queries", {})},
        attrition=pd.read_csv(cohort.path / ATTRITION, keep_default_na=False),
        tables_only=cohort.tables_only,
        skipped=skipped,
    )
