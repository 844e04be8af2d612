"""`symile-clin cohort ...` and `synth`: everything before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from symile_clin.cli.options import call, output_options, override_option, tracking_options, uri
from symile_clin.cli.source_options import FOLDER, engine_options, source_options


@click.group()
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
@override_option
@tracking_options
@output_options
def cohort_build(tracking_uri: str, no_tracking: bool, dry_run: bool, sql: bool, **arguments: Any) -> None:
    """Join the sources into a cohort.

    SPEC is a name in cohorts/ or a YAML file; symile_mimic if left out.
    """
    command = "cohort_sql" if sql else "plan_cohort" if dry_run else "build_cohort"
    call(command, tracking_uri=uri(tracking_uri, no_tracking), **arguments)


@cohort.command("check", short_help="Look at the sources before a build.")
@click.argument("spec", required=False)
@source_options
@click.option("--out", type=FOLDER, help="Where the cohort would be.  [default: data/cohorts/<name>]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes of the build.  [default: all cores]")
@override_option
@output_options
def cohort_check(**arguments: Any) -> None:
    """Look at the sources before a build: what is missing, and what the build will cost.

    Takes at most half a minute, whatever the size of the sources, and writes nothing. Leaves with 0 if the build can
    start and 3 if not. SPEC is as in `cohort build`.
    """
    call("check_cohort", **arguments)


@cohort.command("describe")
@click.argument("cohort", required=False, type=FOLDER)
@output_options
def cohort_describe(**arguments: Any) -> None:
    """Show a cohort's attrition, splits and counts.

    COHORT is a cohort directory; the newest if left out. The figures are saved in it.
    """
    call("describe_cohort", **arguments)


@cohort.command("diff")
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="List the samples, with ids, as Parquet.")
@output_options
def cohort_diff(**arguments: Any) -> None:
    """Compare two cohorts, sample by sample.

    Which samples entered, left or changed from A to B, and which rule did it. B may be an imported release.
    """
    call("diff_cohorts", **arguments)


@cohort.command("verify")
@click.argument("cohort", required=False, type=FOLDER)
@click.option("--sources", is_flag=True, help="Also read the given sources again: what changed since the build?")
@source_options
@output_options
def cohort_verify(**arguments: Any) -> None:
    """Read a cohort again: its files, and what would leak.

    Names each file that is not as it was built; proves that splits share no patient, study or recording, that inputs
    lie in their windows, that fitted states are train's and candidate lists whole; says what could not be proved.
    Leaves with 3 if there is any finding. COHORT is a cohort directory; the newest if left out.
    """
    call("verify_cohort", **arguments)


@cohort.command("import")
@click.argument("release", type=FOLDER)
@click.option("--out", type=FOLDER, help="Cohort directory.  [default: data/cohorts/symile_mimic_release]")
@click.option("--verify", is_flag=True, help="Compare every file with SHA256SUMS.txt first; reads all of them.")
@output_options
def cohort_import(**arguments: Any) -> None:
    """Make a cohort of the Symile-MIMIC release.

    RELEASE is the folder of the files from PhysioNet. Its large arrays are used where they are.
    """
    call("import_cohort", **arguments)


@cohort.command("export")
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="[COHORT] DIR")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of train's frozen crops.")
@output_options
def cohort_export(folders: tuple[Path, ...], **arguments: Any) -> None:
    """Write a cohort as the Symile-MIMIC release.

    COHORT is a cohort directory, the newest if left out; DIR gets the release's tables and arrays.
    """
    if len(folders) > 2:
        raise click.UsageError("Expected [COHORT] DIR.")
    *given, out = folders
    call("export_cohort", cohort=given[0] if given else None, out=out, **arguments)


@click.command()
@click.argument("out", type=FOLDER)
@click.option("--patients", type=click.IntRange(min=1, max=100_000), default=400, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--full-size", is_flag=True, help="X-rays of 2500 x 3050 pixels, as MIMIC's; 512 x 624 otherwise.")
@click.option("--dicom", is_flag=True, help="Write the X-rays as DICOM, too.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@output_options
def synth(**arguments: Any) -> None:
    """Write synthetic patients in MIMIC's formats.

    OUT gets the trees of MIMIC-IV, MIMIC-CXR-JPG and MIMIC-IV-ECG, and the planted truth.
    """
    call("synth", **arguments)
