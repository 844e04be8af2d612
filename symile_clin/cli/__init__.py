"""The command line: a thin skin over `symile_clin.pipeline`. Errors end here, as one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from symile_clin import __version__
from symile_clin.cli.cohorts import cohort, synth
from symile_clin.cli.measures import audit, compare, evaluate, information, probe, report
from symile_clin.cli.runs import demo, export, train, ui, xor
from symile_clin.cli.track import track
from symile_clin.cli.unexpected import told, without_ids
from symile_clin.cli.vectors import embed, index, search
from symile_clin.errors import SymileClinError, is_out_of_memory
from symile_clin.progress import visible


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="symile-clin")
@click.option("--traceback", is_flag=True, help="Show errors that were not foreseen whole; they may name patients.")
@click.pass_obj
def cli(wishes: dict[str, bool] | None, traceback: bool) -> None:
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
    if wishes is not None:
        wishes["traceback"] = traceback


for _command in (
    cohort,
    synth,
    train,
    evaluate,
    compare,
    information,
    probe,
    audit,
    report,
    export,
    embed,
    index,
    search,
    demo,
    xor,
    ui,
    track,
):
    cli.add_command(_command)


def main() -> NoReturn:
    """Entry point: run the command line and leave with the documented exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # said already; Python would try once more, and say it in many lines
        _leave_stdout()
        code = code or 1
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; print its errors as one line; return the exit code."""
    wishes = {"traceback": False}
    try:
        code = cli.main(list(arguments), prog_name="symile-clin", standalone_mode=False, obj=wishes)
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
        _leave_stdout()
        return 1
    except OSError as error:
        place = f" ({without_ids(os.fsdecode(error.filename))})" if isinstance(error.filename, str | bytes) else ""
        return _fail(f"{error.strerror or error}{place}.", 1)
    except Exception as error:  # a library's, or a mistake of this program: its words may quote what it was given
        if wishes["traceback"]:
            raise
        if is_out_of_memory(error):
            return _fail("out of memory. Free some, or use smaller batches, fewer workers or another device.", 1)
        return _fail(told(error), 1)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # stderr may be a file on the same full disk: the code says it still
        click.echo(f"symile-clin: {visible(' '.join(message.split()))}", err=True)
    return code


def _leave_stdout() -> None:
    """Let what could not be printed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature of a handler
    """End as if by an exception, so that half-written places are cleaned up on the way out."""
    raise SystemExit(143)
