"""What commands share: their options, and the way from a command line to a pipeline function and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import click

from symile_clin.cli.source_options import Command
from symile_clin.disk import writing
from symile_clin.schema import TRACKING_URI

FILE = click.Path(dir_okay=False, path_type=Path)


class Result(Protocol):
    """What a command gives back."""

    def text(self) -> str:
        """For a person."""

    def record(self) -> dict[str, Any]:
        """For a program: one JSON object."""


def call(command: str, *, as_json: bool, quiet: bool, **arguments: Any) -> None:
    """Call one pipeline function and show its result."""
    from symile_clin import pipeline
    from symile_clin.progress import Console, Quiet, visible
    from symile_clin.ranks import launched

    ranks = launched()
    if ranks.size > 1 and command != "train":
        raise click.UsageError("only `train` runs in several processes: start this command without torchrun.")
    if not ranks.is_first:
        as_json, quiet = False, True
    result: Result = getattr(pipeline, command)(progress=Quiet() if quiet else Console(), **arguments)
    if as_json or not quiet:
        shown = json.dumps(result.record(), allow_nan=False) if as_json else visible(result.text())
        with writing(Path("stdout"), needed=len(shown.encode())):
            click.echo(shown)
    code = getattr(result, "exit_code", 0)  # of commands whose answer may be no
    if code:
        raise click.exceptions.Exit(code)


def output_options(command: Command) -> Command:
    """--json and --quiet, which every command has."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="Print nothing but errors (and --json's object).")(command)


def store_options(command: Command) -> Command:
    """Where a run is recorded, and whether."""
    command = click.option("--tracking-uri", default=TRACKING_URI, show_default=True, help="MLflow store of this run.")(
        command
    )
    command = click.option("--no-tracking", is_flag=True, help="Record nothing in MLflow.")(command)
    return click.option(
        "--allow-remote-tracking", is_flag=True, help="Let --tracking-uri be a server; the agreement is yours to keep."
    )(command)


def tracking_options(command: Command) -> Command:
    """The same, and what of single patients may be sent there."""
    command = store_options(command)
    return click.option(
        "--log-patient-level",
        is_flag=True,
        help="Also send pictures and embeddings of real patients to MLflow (synthetic ones always go).",
    )(command)


def override_option(command: Command) -> Command:
    """--set."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one setting; may be repeated."
    )(command)


def device_option(command: Command) -> Command:
    """--device."""
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")(command)


def uri(tracking_uri: str, no_tracking: bool) -> str | None:
    """What --tracking-uri and --no-tracking mean together."""
    return None if no_tracking else tracking_uri
