"""Options of the commands that read sources: where these are, and what joins their tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
Command = Callable[..., Any]


def source_options(command: Command) -> Command:
    """--mimic-iv and the others."""
    for name, text in reversed(
        (
            ("--mimic-iv", "MIMIC-IV: the folder with hosp/ in it."),
            ("--mimic-cxr", "MIMIC-CXR-JPG: the folder with files/ and the metadata tables."),
            ("--mimic-cxr-dicom", "MIMIC-CXR, for specs with files: dicom: the folder with files/."),
            ("--mimic-ecg", "MIMIC-IV-ECG: the folder with files/ and record_list.csv."),
        )
    ):
        command = click.option(name, type=FOLDER, help=text)(command)
    return command


def engine_options(command: Command) -> Command:
    """--engine, and what each engine takes."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice(["duckdb", "pyspark", "bigquery"]),
                default="duckdb",
                show_default=True,
                help="What joins the tables (docs/engines.md); the cohort is the same.",
            ),
            click.option("--memory", default="2GB", show_default=True, help="Of DuckDB, or of Spark's driver."),
            click.option("--threads", type=click.IntRange(min=1), help="Of the engine here.  [default: all cores]"),
            click.option("--spark-master", metavar="URL", help="Of a Spark cluster.  [default: Spark on this machine]"),
            click.option("--bigquery-project", metavar="PROJECT", help="The project that BigQuery bills."),
            click.option(
                "--bigquery-table",
                "bigquery_tables",
                multiple=True,
                metavar="NAME=PROJECT.DATASET.TABLE",
                help="Where BigQuery has a table, if not at its usual name; may be repeated.",
            ),
            click.option("--tables-only", is_flag=True, help="Look into no file: no arrays, nothing to train on."),
        )
    ):
        command = option(command)
    return command
