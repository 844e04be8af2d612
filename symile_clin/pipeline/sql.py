"""`symile-clin cohort build --engine bigquery --sql`: what would be run, to be read first; nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from symile_clin.cohort.answers import Answers
from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.choose import Chooser
from symile_clin.cohort.events import count_events
from symile_clin.cohort.index import index_events
from symile_clin.cohort.spec import load_spec
from symile_clin.cohort.workers import Workers
from symile_clin.errors import ConfigError
from symile_clin.modalities.linked import Linked
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline.cohorts import DEFAULT_SPEC
from symile_clin.pipeline.engines import EngineName, choose_engine
from symile_clin.pipeline.inputs import source_tables
from symile_clin.progress import Progress
from symile_clin.schema import SAMPLE_ID
from symile_clin.sources.bigquery_catalog import BigQueryCatalog, Transcript


@dataclass(frozen=True)
class Step:
    """One thing that would be done.

    Attributes:
        stage: of the build.
        action: "ask", "keep as TABLE" or "send COLUMNS as TABLE".
        sql: empty where rows are sent.
    """

    stage: str
    action: str
    sql: str


@dataclass(frozen=True)
class Sql:
    """The SQL of a build, in order."""

    steps: Sequence[Step]

    def text(self) -> str:
        """A script with comments."""
        parts = [
            "-- Compiled, not run. A step that is asked for each rank of a window is here once; rows that are sent",
            "-- (samples, and what they took) are not here.",
        ]
        for number, step in enumerate(self.steps, start=1):
            parts.append(f"\n-- {number}. {step.stage}: {step.action}")
            if step.sql:
                parts.append(f"{step.sql};")
        return "\n".join(parts)

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {"steps": [vars(step) for step in self.steps]}


def cohort_sql(
    *,
    spec: str | None = None,
    engine: EngineName = "bigquery",
    memory: str = "2GB",
    threads: int | None = None,
    spark_master: str | None = None,
    bigquery_project: str | None = None,
    bigquery_tables: Sequence[str] = (),
    overrides: Sequence[str] = (),
    progress: Progress,
    **others: Any,  # noqa: ARG001  options of a build that change nothing of its SQL
) -> Sql:
    """Write down what a build would ask BigQuery. Needs neither its packages nor an account.

    Raises:
        ConfigError, NotFoundError: a spec or option that cannot be understood, or another engine.
        SourceError: a table that BigQuery is not known to have.
    """
    if engine != "bigquery":
        raise ConfigError(f"--sql is of BigQuery, not of {engine}", remedy="Add --engine bigquery")
    chosen = choose_engine(
        engine,
        memory=memory,
        threads=threads,
        spark_master=spark_master,
        bigquery_project=bigquery_project,
        bigquery_tables=bigquery_tables,
        tables_only=True,
    )
    cohort_spec = load_spec(spec or DEFAULT_SPEC, overrides, ROOMS)
    modalities = cohort_spec.make_modalities(ROOMS)
    progress.say(f"SQL of cohort {cohort_spec.name}; nothing is run.")
    transcript = Transcript()
    steps: list[Step] = []

    def note(stage: str) -> None:
        steps.extend(Step(stage, action, sql) for action, sql in transcript.steps)
        transcript.steps.clear()

    tables = source_tables(cohort_spec, modalities)
    with (
        BigQueryCatalog(tables, transcript, roots={}, names=chosen.bigquery_tables) as catalog,
        Workers(1) as workers,
    ):
        index = index_events(catalog, cohort_spec.index)
        note("index events")
        for name, modality in modalities.items():
            if isinstance(modality, Linked):
                continue  # found by a key in a file of the user's, which no engine sees
            chooser = Chooser(
                modality,
                cohort_spec.modalities[name],
                catalog=catalog,
                source=None,
                samples=index,
                attrition=Attrition(index),
                answers=Answers(None),
                workers=workers,
                max_refused=cohort_spec.max_refused,
            )
            chooser.in_window()
            note(f"{name} in the window")
            taken = catalog.frame(modality.events(catalog)).assign(**{SAMPLE_ID: index[SAMPLE_ID]})
            transcript.steps.clear()  # that was for the blank row
            count_events(
                modality,
                cohort_spec.modalities[name].window,
                catalog=catalog,
                index=index,
                samples=index,
                chosen=taken,
                refused=(),
            )
            note(f"{name} counted")
    return Sql(steps)
