"""Which release of a source a directory holds, told from what lies in it, and never guessed.

Evidence, the strongest first; the first that speaks decides:

1. the manifest of a synthetic tree;
2. a release's own files: the highest version in a heading of MIMIC-IV's CHANGELOG.txt, or a file that only one release
   has, there or named in SHA256SUMS.txt (MIMIC-CXR-JPG 2.1.0 added mimic-cxr-2.1.0-test-set-labeled.csv);
3. the directory's name, as PhysioNet's downloads make it: `mimiciv/3.1`, `mimic-iv-2.2`,
   `mimic-cxr-jpg-2.1.0.physionet.org`;
4. what the tables show, which narrows the version without naming it: `order_provider_id` in labevents came with
   MIMIC-IV 2.1, patients of `2020 - 2022` with 3.0.

What the tables show is also held against the others: where they contradict each other, the version is unknown. A
README is not asked: that of MIMIC-CXR-JPG 2.1.0 speaks of v2.0.0. No real release was at hand when this was written:
that CHANGELOG.txt has a heading for its own version, and which releases have which columns, is from documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin import files
from symile_clin.errors import SymileClinError
from symile_clin.sources.glance import column_head, header_of, table_file

SUMS: Final = "SHA256SUMS.txt"
CHANGELOG: Final = "CHANGELOG.txt"
MAX_TEXT_BYTES: Final = 1 << 20
MAX_SUMS_BYTES: Final = 128 << 20
_VERSION: Final = r"\d(?:\.\d{1,2}){1,2}"
#: `## MIMIC-IV v2.2`, `# [2.2] - 2023-01-06`, `v2.2`, `Version 2.2:`, `2.2 (January 2023)`
_HEADING: Final = re.compile(
    rf"#*\s*\[?(?:mimic[-\w ]*?\s)?(?:version\s+|release\s+)?v?({_VERSION})\]?(?=$|\s*$|\s*[-:(–—])", re.IGNORECASE
)


@dataclass(frozen=True)
class Family:
    """A PhysioNet project.

    Attributes:
        folder: pattern of the name that its downloads are unpacked to, without version.
        paper: the version that the Symile paper used; None where it used another project.
        signs: files that only one release has, with its version.
        changelog: it ships a CHANGELOG.txt.
    """

    name: str
    folder: str
    paper: str | None = None
    signs: Mapping[str, str] | None = None
    changelog: bool = False


FAMILIES: Final[Mapping[str, Family]] = {
    "mimic_iv": Family("MIMIC-IV", r"mimic-?iv", paper="2.2", changelog=True),
    "mimic_cxr": Family(
        "MIMIC-CXR-JPG",
        r"mimic-cxr-jpg(?:-[a-z-]+)?",
        paper="2.0.0",
        signs={"mimic-cxr-2.1.0-test-set-labeled.csv": "2.1.0"},
    ),
    "mimic_cxr_dicom": Family("MIMIC-CXR", r"mimic-cxr(?:-database)?"),
    "mimic_ecg": Family("MIMIC-IV-ECG", r"mimic-iv-ecg(?:-[a-z-]+)?", paper="1.0"),
}


@dataclass(frozen=True)
class Release:
    """What a directory holds.

    Attributes:
        name: of the project.
        version: as PhysioNet names it; None where nothing tells.
        evidence: where that is known from, in words.
        since, before: what the tables show of it: not older than, older than.
        synthetic: written by `symile-clin synth` in the project's formats.
    """

    name: str
    version: str | None
    evidence: str
    since: str | None = None
    before: str | None = None
    synthetic: bool = False

    def text(self) -> str:
        """One line."""
        if self.synthetic:
            return self.evidence
        return f"{self.name} {self.version or '(version unknown)'}: {self.evidence}"

    def record(self) -> dict[str, Any]:
        """For programs and the manifest."""
        return {
            "name": self.name, "version": self.version, "evidence": self.evidence, "synthetic": self.synthetic,
        }  # fmt: skip

    def is_not(self, version: str) -> bool:
        """Whether it is certain that this is another version."""
        if self.version is not None:
            return _key(self.version) != _key(version)
        return (self.since is not None and _key(version) < _key(self.since)) or (
            self.before is not None and _key(version) >= _key(self.before)
        )


def detect(source: str, root: Path) -> Release:
    """Which release of a source a directory holds.

    Args:
        source: "mimic_iv", "mimic_cxr", "mimic_cxr_dicom" or "mimic_ecg".
        root: its directory; one that is missing or empty holds an unknown release.
    """
    family = FAMILIES[source]
    if _is_synthetic(root):
        return Release(family.name, None, f"synthetic, in the formats of {family.name}", synthetic=True)
    since, before, seen = _features(root) if family.changelog else (None, None, [])
    told = _own_files(family, root) or _folder_name(family, root)
    if told is None:
        return Release(family.name, None, "; ".join(seen) or "nothing in it tells", since, before)
    version, evidence = told
    shown = Release(family.name, None, "", since, before)
    if shown.is_not(version):
        return Release(family.name, None, f"{evidence}, but {'; '.join(seen)}", since, before)
    return Release(family.name, version, evidence, since, before)


def detect_all(roots: Mapping[str, Path]) -> dict[str, Release]:
    """The releases of several sources, by source; of sources that have releases at all."""
    return {source: detect(source, root) for source, root in sorted(roots.items()) if source in FAMILIES}


def unlike_the_paper(releases: Mapping[str, Release]) -> list[str]:
    """Releases that are certainly not those the Symile paper used, as `name version instead of version`."""
    found = []
    for source, release in releases.items():
        paper = FAMILIES[source].paper
        if paper is not None and (release.synthetic or release.is_not(paper)):
            version = "synthetic" if release.synthetic else release.version or "of another version"
            found.append(f"{release.name} {version} instead of {paper}")
    return found


def _is_synthetic(root: Path) -> bool:
    try:
        manifest = files.read_manifest(root.resolve().parent)
    except (SymileClinError, OSError):
        return False
    return manifest is not None and manifest.get("stage") == "synthetic"


def _own_files(family: Family, root: Path) -> tuple[str, str] | None:
    for name, version in (family.signs or {}).items():
        if table_file(root, name) is not None:
            return version, f"it has {name}"
        if _mentions(root / SUMS, name):
            return version, f"{SUMS} names {name}"
    if family.changelog:
        versions = _headings(root / CHANGELOG)
        if versions:
            return max(versions, key=_key), f"the newest entry of {CHANGELOG}"
    return None


def _headings(path: Path) -> list[str]:
    if not path.is_file():  # nor a pipe, which would be waited for
        return []
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_TEXT_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [match[1] for line in lines if (match := _HEADING.match(line)) and len(line) < 60]


def _mentions(path: Path, name: str) -> bool:
    """Whether a long text file has a line that ends with `name`."""
    wanted, read, tail = name.encode() + b"\n", 0, b""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            while read < MAX_SUMS_BYTES and (block := file.read(1 << 20)):
                if wanted in tail + block + (b"\n" if len(block) < 1 << 20 else b""):
                    return True
                read, tail = read + len(block), block[-len(wanted) :]
    except OSError:
        pass
    return False


def _folder_name(family: Family, root: Path) -> tuple[str, str] | None:
    for path in (root.resolve(), root.absolute()):  # a link's own name is the user's
        own, above = (part.lower().replace("_", "-") for part in (path.name, path.parent.name))
        match = re.fullmatch(rf"{family.folder}-v?({_VERSION})(?:\.physionet\.org)?", own)
        if match is None and re.fullmatch(family.folder, above):
            match = re.fullmatch(rf"v?({_VERSION})", own)
        if match is not None:
            return match[1], "by the directory's name"
    return None


def _features(root: Path) -> tuple[str | None, str | None, list[str]]:
    """What MIMIC-IV's tables show: not older than, older than, and why."""
    since = before = None
    seen = []
    labevents, patients = table_file(root, "hosp/labevents.csv"), table_file(root, "hosp/patients.csv")
    try:
        if labevents is not None and "order_provider_id" in header_of(labevents):
            since = "2.1"
            seen.append("2.1 or later by labevents' order_provider_id")
        elif labevents is not None:
            before = "2.1"
            seen.append("before 2.1, for labevents has no order_provider_id")
        groups = column_head(patients, "anchor_year_group") if patients is not None else set()
        if "2020 - 2022" in groups:
            since = "3.0"
            seen = ["3.0 or later by patients of 2020 - 2022"]
    except (SymileClinError, OSError):
        pass  # who reads the tables will say what is wrong with them
    return since, before, seen


def _key(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:  # 1.0.0 is 1.0
        numbers.pop()
    return tuple(numbers)
