"""Commands about the tracking store."""

from __future__ import annotations

from typing import Any

import click

from symile_clin.cli.options import call, output_options
from symile_clin.schema import TRACKING_URI


@click.group()
def track() -> None:
    """Bring runs to the tracking store."""


@track.command("sync")
@click.argument("run", required=False)
@click.option("--tracking-uri", default=TRACKING_URI, show_default=True, help="MLflow store to deliver to.")
@click.option(
    "--allow-remote-tracking", is_flag=True, help="Let --tracking-uri be a server; the agreement is yours to keep."
)
@click.option(
    "--log-patient-level",
    is_flag=True,
    help="Also send pictures and embeddings of real patients to MLflow (synthetic ones always go).",
)
@output_options
def sync(**arguments: Any) -> None:
    """Deliver a run to a store that was out of reach.

    Whatever of a training and of what was measured of it MLflow lacks: settings, labels, numbers with their times,
    files, how it ended. What is there is left alone. RUN is a run's name or directory; the last one if left out.
    """
    call("sync_tracking", **arguments)
