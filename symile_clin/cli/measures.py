"""Commands that measure trained runs."""

from __future__ import annotations

from typing import Any

import click

from symile_clin.cli.options import FILE, call, device_option, output_options, store_options, tracking_options, uri
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
@click.option(
    "--min-group",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    metavar="N",
    help="Withhold the metrics of groups of fewer than N patients.",
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


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN [RUN]...")
@click.option("--cohort", type=FOLDER, help="Cohort they were evaluated on.  [default: the one each was trained on]")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option(
    "--metric",
    type=click.Choice(["recall_at_1", "recall_at_5", "recall_at_10", "mrr", "mean_rank"]),
    default="recall_at_1",
    show_default=True,
)
@click.option(
    "--protocol",
    type=click.Choice(["candidates", "candidates_other_subjects", "matched", "gallery", "gallery_other_subjects"]),
    default="candidates",
    show_default=True,
    help="What each query is ranked against.",
)
@click.option("--query", metavar="NAME[+NAME]...", help="What is asked with.  [default: all but the target]")
@click.option("--target", help="What is retrieved.  [default: the cohort's target]")
@click.option("--all-pairs", is_flag=True, help="Also compare the others with each other.")
@click.option("--name", help="Folder in comparisons/.  [default: made from the runs]")
@store_options
@output_options
def compare(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Compare evaluated runs with each other.

    Each RUN against the first, query by query: differences with intervals over patients, tests, a figure and a page.
    Runs whose settings differ in nothing but the seed are taken together.
    """
    call("compare", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.argument("run", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option(
    "--uncertain",
    type=click.Choice(["ignore", "zeros", "ones"]),
    default="ignore",
    show_default=True,
    help="Findings that a report is not sure of: left out, not there, or there (U-Ignore, U-Zeros, U-Ones).",
)
@click.option(
    "--blank",
    type=click.Choice(["zeros", "ignore"]),
    default="zeros",
    show_default=True,
    help="Findings that a report does not mention: not there, or left out.",
)
@click.option(
    "--min-positives",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Patients with a finding, and without it, that each split needs.",
)
@click.option(
    "--min-group", type=click.IntRange(min=1), default=10, show_default=True, help="Hide counts of fewer patients."
)
@device_option
@tracking_options
@output_options
def probe(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Measure what a run's embeddings tell of findings.

    Linear probes of each embedding, of several side by side, and of age and sex; and which findings the other
    modalities retrieve. RUN is a run's name or directory; the one finished last if left out.
    """
    call("probe", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.argument("run", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="Samples of each kind that are listed."
)
@device_option
@tracking_options
@output_options
def audit(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """List samples that a person should look at.

    Possible mix-ups (own modalities fit each other worse than other patients' do), inputs far from the training data,
    and values stored under several patients, with pictures. Nothing is dropped. RUN is a run's name or directory; the
    one finished last if left out.
    """
    call("audit", tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@click.command()
@click.argument("run", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option(
    "--map",
    "map_method",
    type=click.Choice(["pca", "umap"]),
    default="pca",
    show_default=True,
    help="Flattens embeddings to a map; umap needs the extra of that name.",
)
@device_option
@output_options
def report(**arguments: Any) -> None:
    """Write one page with all that is known of an evaluated run.

    `eval` writes it, too; this one adds what probe, audit and information have found since. The page shows single
    patients. RUN is a run's name or directory; the one finished last if left out.
    """
    call("report", **arguments)
