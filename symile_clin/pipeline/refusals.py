"""What a build that too many files were refused in leaves for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from symile_clin import files
from symile_clin.cohort.refusals import TooManyRefusedError
from symile_clin.errors import CohortError
from symile_clin.schema import QUARANTINE


@contextmanager
def refusals_shown(out: Path) -> Iterator[None]:
    """Keep the quarantine of a build that stops for its refusals beside `out`, until a build there ends well.

    Raises:
        CohortError: too many files were refused; the message names the list.
    """
    beside = out.with_name(f"{out.name}.{QUARANTINE}")
    try:
        yield
    except TooManyRefusedError as error:
        with files.atomic(beside) as temporary:
            error.quarantine.to_parquet(temporary, index=False)
        beside.chmod(0o600)  # patient-level
        raise CohortError(
            error.found,
            remedy=f"{beside} lists them: is the download complete and its disk there? If these are all that you have, "
            "build from the others with --set max_refused=1",
        ) from None
    beside.unlink(missing_ok=True)
