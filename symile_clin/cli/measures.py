"""Commands that measure trained runs."""

from __future__ import annotations

from typing import Any

import click

from symile_clin.cli.options import FILE, call, device_option, output_options, tracking_options, uri
from symile_clin.cli.source_options import FOLDER


@click.command("eval")
@click.argument("run", required=False)
@click.option(
    "--checkpoint", type=FILE, help="Instead of RUN: the published code's .ckpt file, such as the released one."
)
@click.option("--objective", help="Score --checkpoint with this one.  [default: the one it was trained with]")
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=2),
    metavar="B",
    help="Also the paper's way: resample the queries B times. The 95 % interval needs no option.",
)
@device_option
@tracking_options
@output_options
def evaluate(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Measure a run's zero-shot retrieval.

    RUN is a run's name or directory; the one finished last if left out. A --checkpoint becomes a run, called like its
    file.
    """
    if arguments["checkpoint"] and arguments["run"]:
        raise click.UsageError("Give RUN or --checkpoint, not both.")
    if arguments["objective"] and not arguments["checkpoint"]:
        raise click.UsageError("--objective is for --checkpoint: a run is scored with what it was trained with.")
    call("evaluate", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.argument("run", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@device_option
@tracking_options
@output_options
def information(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Bound what modalities tell of each other.

    Total correlation, what all others tell of one, pairs, and synergy, in nats, from a run's embeddings of a split that
    did not train it. RUN is a run's name or directory; the one finished last if left out.
    """
    call("measure_information", tracking_uri=uri(tracking_uri, no_tracking), **arguments)
