"""Which releases a cohort is made from: said before a build, kept in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from symile_clin.progress import Progress
from symile_clin.sources.versions import Release, detect_all, unlike_the_paper

#: The spec that follows the paper rule for rule, and the admissions it has on the paper's releases.
PAPER_SPEC: Final = "symile_mimic"
PAPER_ADMISSIONS: Final = 11_622


def tell_releases(roots: Mapping[str, Path], *, spec: str, progress: Progress) -> dict[str, Release]:
    """Find out and say which releases the sources are, by source.

    Args:
        spec: name of the cohort's spec; for the paper's, releases that are not the paper's are pointed out.
    """
    releases = detect_all(roots)
    for release in releases.values():
        progress.say(f"  {release.text()}")
    note = paper_note(spec, releases)
    if note:
        progress.say(f"  {note}")
    return releases


def paper_note(spec: str, releases: Mapping[str, Release]) -> str:
    """One line on what these releases do to the paper's figures; empty if nothing is certain to differ."""
    others = unlike_the_paper(releases) if spec == PAPER_SPEC else []
    if not others:
        return ""
    return f"Counts will differ from the paper's {PAPER_ADMISSIONS:,} admissions: {', '.join(others)}."
