"""Commands that train, and that show what was tracked."""

from __future__ import annotations

from typing import Any

import click

from symile_clin.cli.options import (
    FILE,
    call,
    device_option,
    output_options,
    override_option,
    store_options,
    tracking_options,
    uri,
)
from symile_clin.cli.source_options import FOLDER
from symile_clin.schema import TRACKING_URI


@click.command()
@click.argument("preset", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the newest]")
@click.option("--objective", help="Train with this objective and its defaults instead of the preset's.")
@click.option(
    "--init-from", type=FILE, help="Start from these weights: a run's model.safetensors, or the released .ckpt."
)
@click.option("--name", help="Name of the run.  [default: <cohort>-<objective>-<number>]")
@click.option("--resume", is_flag=True, help="Go on with a run that was cut short: --name's, or the last one.")
@override_option
@device_option
@tracking_options
@output_options
def train(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Train encoders on a cohort.

    PRESET is a name in configs/ or a YAML file; the one the cohort names if left out. SIGTERM, Ctrl-C and SIGUSR1
    keep a checkpoint of the step in hand; --resume then comes to the same weights as if nothing had happened.
    """
    call("train", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.argument("run", required=False)
@click.option("--out", type=FOLDER, help="Folder to write.  [default: exports/<run>]")
@output_options
def export(**arguments: Any) -> None:
    """Write a run's model for others to load.

    Weights as safetensors, settings, what was fitted on train, and a model card. It loads without the cohort:
    `symile_clin.load(folder)`. RUN is a run's name or directory; the one finished last if left out.
    """
    call("export_run", **arguments)


@click.command()
@device_option
@tracking_options
@output_options
def demo(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Cohort, training, evaluation on synthetic patients.

    About a minute on two cores.
    """
    call("demo", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.argument("preset", required=False)
@click.option("--out", type=FOLDER, help="Where the results go.  [default: runs/<preset>-<number>]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@override_option
@store_options
@output_options
def xor(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Run the paper's synthetic experiment.

    Objectives on vectors of which only all three together tell one, their accuracies beside the exact information
    terms. PRESET is xor (the paper's), xor_eight, xor_missing or a YAML file; xor if left out.
    """
    call("xor", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.option("--tracking-uri", default=TRACKING_URI, show_default=True, help="MLflow store to show.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option(
    "--allow-other-machines",
    is_flag=True,
    help="Let --host be an address that others reach. It has no password; the agreement is yours to keep.",
)
@output_options
def ui(**arguments: Any) -> None:
    """Open MLflow's own UI on loopback.

    It is served to this machine only; Ctrl-C ends it. From elsewhere, tunnel: ssh -L 5000:127.0.0.1:5000 MACHINE.
    """
    call("ui", **arguments)
