"""Commands on a run's embeddings: write them down, and search them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from symile_clin.cli.options import FILE, call, device_option, output_options
from symile_clin.cli.source_options import FOLDER, Command

COHORT = click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
IDS = "subject_id and hadm_id, which are MIMIC's: the agreement is yours to keep."


@click.command()
@click.argument("run", required=False)
@COHORT
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@click.option("--out", type=FILE, required=True, help="A .parquet or .npz that is not there yet.")
@click.option("--with-ids", is_flag=True, help=f"Also {IDS}")
@device_option
@output_options
def embed(**arguments: Any) -> None:
    """Write a run's embeddings of a cohort.

    One vector for each sample and modality, with its row and split; the file is patient-level. RUN is a run's name or
    directory; the one finished last if left out.
    """
    call("embed", **arguments)


@click.command()
@click.argument("run", required=False)
@COHORT
@device_option
@output_options
def index(**arguments: Any) -> None:
    """Make a cohort searchable by a run.

    Embeds every sample once into runs/RUN/index/, from where `search` maps it. RUN is a run's name or directory; the
    one finished last if left out.
    """
    call("index", **arguments)


def query_options(command: Command) -> Command:
    """What is asked with, and for."""
    for option in reversed(
        (
            click.option(
                "--query",
                "queries",
                multiple=True,
                metavar="NAME=PATH",
                help="A file of one modality; may be repeated (docs/search.md says what files).",
            ),
            click.option("--sample", metavar="ID", help="Instead: a sample of the cohort, by sample_id or row."),
            click.option("--with", "with_modalities", metavar="NAME,...", help="Of --sample.  [default: all it has]"),
            click.option("--target", metavar="NAME", help="What to find.  [default: what the cohort's lists are of]"),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.option("--run", help="A run's name or directory.  [default: the one finished last]")
@COHORT
@query_options
@click.option("-k", type=int, default=10, show_default=True, help="How many to find.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Find samples of this one only.")
@click.option("--exclude-own", is_flag=True, help="Leave out the --sample itself, and others of its patient.")
@click.option("--with-ids", is_flag=True, help=f"Show {IDS}")
@click.option("--html", type=FILE, help="Also a page with pictures of query and hits; it is patient-level.")
@device_option
@output_options
def search(queries: tuple[str, ...], with_modalities: str | None, **arguments: Any) -> None:
    """Find the samples that fit a query best.

    Any modalities ask for any other: files of one patient, or a sample of the cohort. What is not asked with is
    replaced as in `eval`, and the output says how. The cohort is indexed first, if it is not yet.
    """
    names = with_modalities.split(",") if with_modalities is not None else None
    call("search", query=_files(queries), with_modalities=names, **arguments)


def _files(queries: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for query in queries:
        name, equals, path = query.partition("=")
        if not name or not equals or not path:
            raise click.UsageError(f"--query {query!r} is not NAME=PATH.")
        if name in found:
            raise click.UsageError(f"--query {name} is given twice.")
        found[name] = Path(path)
    return found
