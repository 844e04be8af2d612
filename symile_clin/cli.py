"""The command line: a thin skin over `symile_clin.pipeline`. Errors end here, as one line and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import click

from symile_clin import __version__
from symile_clin.errors import SymileClinError
from symile_clin.schema import TRACKING_URI
from symile_clin.source_options import FOLDER, Command, engine_options, source_options

FILE = click.Path(dir_okay=False, path_type=Path)


class Result(Protocol):
    """What a command gives back."""

    def text(self) -> str:
        """For a person."""

    def record(self) -> dict[str, Any]:
        """For a program: one JSON object."""


def _run(command: str, *, as_json: bool, quiet: bool, **arguments: Any) -> None:
    """Call one pipeline function and show its result."""
    from symile_clin import pipeline
    from symile_clin.progress import Console, Quiet
    from symile_clin.ranks import launched

    ranks = launched()
    if ranks.size > 1 and command != "train":
        raise click.UsageError("only `train` runs in several processes: start this command without torchrun.")
    if not ranks.is_first:
        as_json, quiet = False, True
    result: Result = getattr(pipeline, command)(progress=Quiet() if quiet else Console(), **arguments)
    if as_json:
        click.echo(json.dumps(result.record(), allow_nan=False))
    elif not quiet:
        click.echo(result.text())
    code = getattr(result, "exit_code", 0)  # of commands whose answer may be no
    if code:
        raise click.exceptions.Exit(code)


def _output_options(command: Command) -> Command:
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="Print nothing but errors (and --json's object).")(command)


def _store_options(command: Command) -> Command:
    command = click.option("--tracking-uri", default=TRACKING_URI, show_default=True, help="MLflow store of this run.")(
        command
    )
    command = click.option("--no-tracking", is_flag=True, help="Record nothing in MLflow.")(command)
    return click.option(
        "--allow-remote-tracking", is_flag=True, help="Let --tracking-uri be a server; the agreement is yours to keep."
    )(command)


def _tracking_options(command: Command) -> Command:
    command = _store_options(command)
    return click.option(
        "--log-patient-level",
        is_flag=True,
        help="Also send pictures and embeddings of real patients to MLflow (synthetic ones always go).",
    )(command)


def _override_option(command: Command) -> Command:
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one setting; may be repeated."
    )(command)


def _device_option(command: Command) -> Command:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")(command)


def _uri(tracking_uri: str, no_tracking: bool) -> str | None:
    return None if no_tracking else tracking_uri


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="symile-clin")
def cli() -> None:
    """Clinical multimodal research: join MIMIC labs, ECGs and X-rays, train with Symile, measure retrieval.

    \b
    Without credentials, on synthetic patients in MIMIC's own formats:
      symile-clin cohort build --demo
      symile-clin train
      symile-clin eval --bootstrap 10
      symile-clin ui
    With real data only the first line changes:
      symile-clin cohort build symile_mimic --mimic-iv DIR --mimic-cxr DIR --mimic-ecg DIR
    """


@cli.group()
def cohort() -> None:
    """Build and describe cohorts of patient-time samples."""


@cohort.command("build")
@click.argument("spec", required=False)
@click.option("--demo", is_flag=True, help="Write synthetic patients first and build from them.")
@source_options
@click.option("--out", type=FOLDER, help="Cohort directory.  [default: data/cohorts/<name>]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@engine_options
@click.option("--dry-run", is_flag=True, help="Print what would be done, and what it would cost; write nothing.")
@click.option("--sql", is_flag=True, help="Print the SQL that --engine bigquery would run; run nothing.")
@_override_option
@_tracking_options
@_output_options
def cohort_build(tracking_uri: str, no_tracking: bool, dry_run: bool, sql: bool, **arguments: Any) -> None:
    """Join the sources into a cohort.

    SPEC is a name in cohorts/ or a YAML file; symile_mimic if left out.
    """
    command = "cohort_sql" if sql else "plan_cohort" if dry_run else "build_cohort"
    _run(command, tracking_uri=_uri(tracking_uri, no_tracking), **arguments)


@cohort.command("check", short_help="Look at the sources before a build.")
@click.argument("spec", required=False)
@source_options
@click.option("--out", type=FOLDER, help="Where the cohort would be.  [default: data/cohorts/<name>]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes of the build.  [default: all cores]")
@_override_option
@_output_options
def cohort_check(**arguments: Any) -> None:
    """Look at the sources before a build: what is missing, and what the build will cost.

    Takes at most half a minute, whatever the size of the sources, and writes nothing. Leaves with 0 if the build can
    start and 3 if not. SPEC is as in `cohort build`.
    """
    _run("check_cohort", **arguments)


@cohort.command("describe")
@click.argument("cohort", required=False, type=FOLDER)
@_output_options
def cohort_describe(**arguments: Any) -> None:
    """Show a cohort's attrition, splits and counts.

    COHORT is a cohort directory; the newest if left out. The figures are saved in it.
    """
    _run("describe_cohort", **arguments)


@cohort.command("diff")
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="List the samples, with ids, as Parquet.")
@_output_options
def cohort_diff(**arguments: Any) -> None:
    """Compare two cohorts, sample by sample.

    Which samples entered, left or changed from A to B, and which rule did it. B may be an imported release.
    """
    _run("diff_cohorts", **arguments)


@cohort.command("verify")
@click.argument("cohort", required=False, type=FOLDER)
@click.option("--sources", is_flag=True, help="Also read the given sources again: what changed since the build?")
@source_options
@_output_options
def cohort_verify(**arguments: Any) -> None:
    """Read every file of a cohort again.

    Names each file that is not as it was built; proves that splits share no patient and that candidate lists are whole.
    Leaves with 3 if there is any finding. COHORT is a cohort directory; the newest if left out.
    """
    _run("verify_cohort", **arguments)


@cohort.command("import")
@click.argument("release", type=FOLDER)
@click.option("--out", type=FOLDER, help="Cohort directory.  [default: data/cohorts/symile_mimic_release]")
@click.option("--verify", is_flag=True, help="Compare every file with SHA256SUMS.txt first; reads all of them.")
@_output_options
def cohort_import(**arguments: Any) -> None:
    """Make a cohort of the Symile-MIMIC release.

    RELEASE is the folder of the files from PhysioNet. Its large arrays are used where they are.
    """
    _run("import_cohort", **arguments)


@cohort.command("export")
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="[COHORT] DIR")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of train's frozen crops.")
@_output_options
def cohort_export(folders: tuple[Path, ...], **arguments: Any) -> None:
    """Write a cohort as the Symile-MIMIC release.

    COHORT is a cohort directory, the newest if left out; DIR gets the release's tables and arrays.
    """
    if len(folders) > 2:
        raise click.UsageError("Expected [COHORT] DIR.")
    *given, out = folders
    _run("export_cohort", cohort=given[0] if given else None, out=out, **arguments)


@cli.command()
@click.argument("out", type=FOLDER)
@click.option("--patients", type=click.IntRange(min=1, max=100_000), default=400, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--full-size", is_flag=True, help="X-rays of 2500 x 3050 pixels, as MIMIC's; 512 x 624 otherwise.")
@click.option("--dicom", is_flag=True, help="Write the X-rays as DICOM, too.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@_output_options
def synth(**arguments: Any) -> None:
    """Write synthetic patients in MIMIC's formats.

    OUT gets the trees of MIMIC-IV, MIMIC-CXR-JPG and MIMIC-IV-ECG, and the planted truth.
    """
    _run("synth", **arguments)


@cli.command()
@click.argument("preset", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the newest]")
@click.option("--objective", help="Train with this objective and its defaults instead of the preset's.")
@click.option(
    "--init-from", type=FILE, help="Start from these weights: a run's model.safetensors, or the released .ckpt."
)
@click.option("--name", help="Name of the run.  [default: <cohort>-<objective>-<number>]")
@click.option("--resume", is_flag=True, help="Go on with a run that was cut short: --name's, or the last one.")
@_override_option
@_device_option
@_tracking_options
@_output_options
def train(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Train encoders on a cohort.

    PRESET is a name in configs/ or a YAML file; the one the cohort names if left out. SIGTERM, Ctrl-C and SIGUSR1
    keep a checkpoint of the step in hand; --resume then comes to the same weights as if nothing had happened.
    """
    _run("train", tracking_uri=_uri(tracking_uri, no_tracking), **arguments)


@cli.command("eval")
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
@_device_option
@_tracking_options
@_output_options
def evaluate(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Measure a run's zero-shot retrieval.

    RUN is a run's name or directory; the one finished last if left out. A --checkpoint becomes a run, called like its
    file.
    """
    if arguments["checkpoint"] and arguments["run"]:
        raise click.UsageError("Give RUN or --checkpoint, not both.")
    if arguments["objective"] and not arguments["checkpoint"]:
        raise click.UsageError("--objective is for --checkpoint: a run is scored with what it was trained with.")
    _run("evaluate", tracking_uri=_uri(tracking_uri, no_tracking), **arguments)


@cli.command()
@click.argument("run", required=False)
@click.option("--cohort", type=FOLDER, help="Cohort directory.  [default: the one the run was trained on]")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@_device_option
@_tracking_options
@_output_options
def information(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Bound what modalities tell of each other.

    Total correlation, what all others tell of one, pairs, and synergy, in nats, from a run's embeddings of a split that
    did not train it. RUN is a run's name or directory; the one finished last if left out.
    """
    _run("measure_information", tracking_uri=_uri(tracking_uri, no_tracking), **arguments)


@cli.command()
@_device_option
@_tracking_options
@_output_options
def demo(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Cohort, training, evaluation on synthetic patients.

    About a minute on two cores.
    """
    _run("demo", tracking_uri=_uri(tracking_uri, no_tracking), **arguments)


@cli.command()
@click.argument("preset", required=False)
@click.option("--out", type=FOLDER, help="Where the results go.  [default: runs/<preset>-<number>]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@_override_option
@_store_options
@_output_options
def xor(tracking_uri: str, no_tracking: bool, **arguments: Any) -> None:
    """Run the paper's synthetic experiment.

    Objectives on vectors of which only all three together tell one, their accuracies beside the exact information
    terms. PRESET is xor (the paper's), xor_eight, xor_missing or a YAML file; xor if left out.
    """
    _run("xor", tracking_uri=_uri(tracking_uri, no_tracking), **arguments)


@cli.command()
@click.option("--tracking-uri", default=TRACKING_URI, show_default=True, help="MLflow store to show.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@_output_options
def ui(**arguments: Any) -> None:
    """Open MLflow's own UI on loopback.

    It is served to this machine only; Ctrl-C ends it.
    """
    _run("ui", **arguments)


def main() -> NoReturn:
    """Entry point: run the command line and leave with the documented exit code."""
    os.umask(0o077)  # what is derived from patients is the user's alone
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; print its errors as one line; return the exit code."""
    try:
        code = cli.main(list(arguments), prog_name="symile-clin", standalone_mode=False)
    except click.exceptions.Abort:
        return _fail("Interrupted.", 130)
    except click.UsageError as error:
        if os.environ.get("RANK", "0") == "0":  # the others of a launcher's processes would say the same
            error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)
    except SymileClinError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{place}.", 1)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"symile-clin: {message}", err=True)
    return code


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature of a handler
    """End as if by an exception, so that half-written places are cleaned up on the way out."""
    raise SystemExit(143)
