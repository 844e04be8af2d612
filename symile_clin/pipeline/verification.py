"""`symile-clin cohort verify`: is a cohort what was built, does nothing of its held-out splits leak into train, and are
its sources still what it was built from?

Whether it leaks is proved in leakage.py; here are its files, its lists and its sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from symile_clin import files
from symile_clin.cohort.spec import CohortSpec, parse_spec
from symile_clin.data.candidates import CandidateLists, read_candidates
from symile_clin.data.inputs import read_inputs
from symile_clin.data.join import stored_sha256
from symile_clin.data.prepare import HELD_OUT, LISTS, hash_cohort, hash_lists
from symile_clin.data.store import Cohort, newest_cohort, open_cohort
from symile_clin.errors import ConfigError, SymileClinError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline.inputs import source_tables
from symile_clin.pipeline.leakage import (
    Finding,
    NotProved,
    Proof,
    fitted_on_train,
    inputs_in_their_windows,
    no_file_in_two_splits,
    no_one_in_two_splits,
    no_recording_in_two_splits,
)
from symile_clin.pipeline.source_times import inputs_are_of_their_windows
from symile_clin.progress import Progress
from symile_clin.schema import (
    CANDIDATES_DIR,
    COHORTS_ROOT,
    FIGURES_DIR,
    INPUTS,
    MANIFEST,
    ROW,
    SAMPLE_ID,
    SAMPLES,
    SPLIT,
    SPLITS,
    SUBJECT_ID,
)
from symile_clin.sources import paths
from symile_clin.sources.convert import find_table

#: Findings that are listed; the others are counted.
MOST_LISTED: Final = 50
GOOD: Final = "All as they were built; nothing of val or test is in train, and no input is outside its window."


@dataclass(frozen=True)
class Verification:
    """What `cohort verify` found.

    Attributes:
        checked: files of the cohort that were read in full.
        sources: source tables and chosen files that were; None where they were not asked for.
        findings: the first of them, in order.
        found: how many there are.
        not_proved: what the cohort's files cannot tell.
    """

    path: Path
    checked: int
    sources: int | None
    findings: list[Finding]
    found: int
    not_proved: list[str]

    @property
    def exit_code(self) -> int:
        """3 if there is any finding."""
        return 3 if self.found else 0

    def text(self) -> str:
        """Every finding on its line, or that there is none."""
        of_sources = "" if self.sources is None else f" and {self.sources:,} files of its sources"
        head = f"Cohort {self.path}: {self.checked:,} files{of_sources} were read."
        lines = [f"  {one.where}: {one.what}" for one in self.findings]
        if self.found > len(self.findings):
            lines.append(f"  ... and {self.found - len(self.findings):,} more")
        lines += [f"  Not proved: {what}." for what in self.not_proved]
        return "\n".join([head, *lines, f"Findings: {self.found:,}." if self.found else GOOD])

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "path": str(self.path),
            "checked": self.checked,
            "sources": self.sources,
            "found": self.found,
            "findings": [vars(one) for one in self.findings],
            "not_proved": list(self.not_proved),
        }


def verify_cohort(
    *,
    cohort: Path | None = None,
    sources: bool = False,
    mimic_iv: Path | None = None,
    mimic_cxr: Path | None = None,
    mimic_cxr_dicom: Path | None = None,
    mimic_ecg: Path | None = None,
    progress: Progress,
) -> Verification:
    """Read every file of a cohort again, and prove what must hold of splits, inputs, fitted states and candidate lists.

    Args:
        cohort: a cohort directory; None takes the newest complete one.
        sources: also read the source tables and the chosen files again, and say what changed since the build.
        mimic_iv, mimic_cxr, mimic_cxr_dicom, mimic_ecg: source directories, for `sources`.

    Raises:
        NotFoundError: there is no cohort.
        ConfigError: source directories without `sources`, or the reverse.
    """
    given = {
        "mimic_iv": mimic_iv, "mimic_cxr": mimic_cxr, "mimic_cxr_dicom": mimic_cxr_dicom, "mimic_ecg": mimic_ecg,
    }  # fmt: skip
    roots = {source: path for source, path in given.items() if path is not None}
    opened = open_cohort(cohort) if cohort else newest_cohort(Path(COHORTS_ROOT))
    linked = opened.manifest.get("inputs", {}).get("linked")  # files that the spec itself names need no directory
    if sources != bool(roots) and not (sources and linked):
        raise ConfigError("--sources and directories of sources go together", remedy="Give both, or neither")
    spec = parse_spec(dict(opened.spec), ROOMS, source=MANIFEST)
    modalities = spec.make_modalities(ROOMS)
    progress.say(f"Reading cohort {opened.path} again.")
    findings: list[Finding] = list(_files(opened))
    damaged = bool(findings)
    checks: tuple[Callable[[Cohort], Proof], ...] = (
        _rows,
        _lists,
        _content,
        no_one_in_two_splits,
        partial(no_recording_in_two_splits, modalities=modalities),
        partial(no_file_in_two_splits, modalities=modalities),
        partial(inputs_in_their_windows, spec=spec, modalities=modalities),
        partial(fitted_on_train, modalities=modalities),
    )
    proofs = [proof for check in checks for proof in _guarded(check, opened, damaged=damaged)]
    findings += [one for one in proofs if isinstance(one, Finding)]
    read = 0
    if sources:
        drift = list(_sources(opened, roots, spec, modalities))
        read, changed = len(drift), [one for one in drift if one is not None]
        again = partial(inputs_are_of_their_windows, spec=spec, modalities=modalities, roots=roots, progress=progress)
        proofs = [one for one in proofs if not (isinstance(one, NotProved) and one.asks_sources)]
        more = _guarded(again, opened, damaged=bool(changed))
        findings += [*changed, *(one for one in more if isinstance(one, Finding))]
        proofs += more
    return Verification(
        path=opened.path,
        checked=len(opened.manifest.get("files", ())),
        sources=read if sources else None,
        findings=findings[:MOST_LISTED],
        found=len(findings),
        not_proved=[one.what for one in proofs if isinstance(one, NotProved)],
    )


def _files(cohort: Cohort) -> Iterator[Finding]:
    """Every file's bytes, where the manifest keeps their digests."""
    listed: Mapping[str, Any] | None = cohort.manifest.get("files")
    if listed is None:
        return
    found = files.listing(cohort.path, leave_out=[MANIFEST, FIGURES_DIR])
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            yield Finding(name, "is missing")
        elif name not in listed:
            yield Finding(name, "was not there when the cohort was built")
        elif found[name]["bytes"] != listed[name]["bytes"]:
            yield Finding(name, f"has {found[name]['bytes']:,} bytes instead of {listed[name]['bytes']:,}")
        elif found[name]["sha256"] != listed[name]["sha256"]:
            yield Finding(name, "has other bytes than when the cohort was built")


def _guarded(check: Callable[[Cohort], Proof], cohort: Cohort, *, damaged: bool) -> list[Finding | NotProved]:
    """What a check comes to; where files are damaged, that it cannot be made is no finding of its own."""
    proved: list[Finding | NotProved] = []
    try:
        proved.extend(check(cohort))
    except (SymileClinError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        if not damaged:
            proved.append(Finding(MANIFEST, f"{type(error).__name__} while it was checked"))
    return proved


def _rows(cohort: Cohort) -> Proof:
    """Rows in order, splits that are known."""
    samples = cohort.samples
    if samples[ROW].tolist() != list(range(len(samples))):
        yield Finding(SAMPLES, "rows are not in order")
    if not samples[SPLIT].isin(SPLITS).all():
        yield Finding(SAMPLES, "holds samples of no known split")
    if samples[SAMPLE_ID].duplicated().any():
        yield Finding(SAMPLES, "holds a sample twice")


def _lists(cohort: Cohort) -> Proof:
    """Candidates of their own split, the positive first, none twice."""
    for name, split, lists in _stored_lists(cohort):
        rows, listed = cohort.rows(split), lists.listed
        if not np.isin(lists.candidate_rows[listed], rows).all():
            yield Finding(name, f"lists candidates that are not in {split}")
        if not (lists.candidate_rows[:, 0] == lists.query_row).all():
            yield Finding(name, "does not list the positive first")
        if any(len(np.unique(row[here])) != here.sum() for row, here in zip(lists.candidate_rows, listed, strict=True)):
            yield Finding(name, "lists a candidate twice")
        subjects = cohort.samples[SUBJECT_ID].to_numpy()
        same = subjects[lists.candidate_rows] == subjects[lists.query_row][:, None]
        if (same[listed] != lists.same_subject[listed]).any():
            yield Finding(name, "marks candidates of the query's patient wrongly")
        if not name.endswith(f"/{split}.parquet") and lists.same_subject[:, 1:].any():
            yield Finding(name, "lists the query's own patient")


def _content(cohort: Cohort) -> Proof:
    """Every array's values, and the hash of all."""
    if "files" not in cohort.manifest:
        yield NotProved(f"that its bytes are as they were: {cohort.manifest['source']} has its own checksums, which "
                        "`cohort import --verify` compares")  # fmt: skip
        return
    arrays: dict[str, dict[str, str]] = {}
    for name, of_modality in cohort.manifest["arrays"].items():
        arrays[name] = {array: stored_sha256(cohort.array(name, array)) for array in of_modality}
        for array, digest in arrays[name].items():
            if digest != of_modality[array]["sha256"]:
                yield Finding(f"{name}/{array}", "holds other values than when the cohort was built")
    lists = [hash_lists(one) for _, _, one in _stored_lists(cohort)]
    if hash_cohort(cohort.samples, arrays, lists) != cohort.hash:
        yield Finding(MANIFEST, "its hash is not that of the samples, arrays and candidate lists")


def _stored_lists(cohort: Cohort) -> Iterator[tuple[str, Any, CandidateLists]]:
    for split in HELD_OUT:
        for kind in LISTS:
            name = f"{CANDIDATES_DIR}/{split}{kind}.parquet"
            if (cohort.path / name).is_file():
                yield name, split, read_candidates(cohort.path / name)


def _sources(
    cohort: Cohort, roots: Mapping[str, Path], spec: CohortSpec, modalities: Mapping[str, Modality]
) -> Iterator[Finding | None]:
    """One answer for each source file that was read: what is different, or None."""
    tables: list[Mapping[str, Any]] = cohort.manifest["inputs"]["tables"]
    digests = {table["table"]: table["sha256"] for table in tables if "sha256" in table}
    for table in source_tables(spec, modalities):
        if table.source in roots and table.name in digests:
            try:
                same = files.sha256(find_table(table, roots[table.source])) == digests[table.name]
            except SymileClinError as error:
                yield Finding(table.name, error.found)
            else:
                yield None if same else Finding(table.name, "this source table has changed since the build")
    linked: Mapping[str, Mapping[str, str]] = cohort.manifest["inputs"].get("linked", {})
    for name, of_modality in linked.items():
        for file, digest in of_modality.items():
            same = Path(file).is_file() and files.sha256(Path(file)) == digest
            yield None if same else Finding(name, f"{file} is not there, or has changed since the build")
    for number, row in enumerate(read_inputs(cohort.path)):
        root = roots.get(modalities[row["modality"]].reads_from or "")
        if root is not None:
            what = _changed(root, row)
            yield None if what is None else Finding(f"{INPUTS} row {number} ({row['modality']})", what)


def _changed(root: Path, row: Mapping[str, Any]) -> str | None:
    path = paths.inside(root, row["path"])
    if path is None or not path.is_file():
        return "this file is missing"
    if path.stat().st_size != row["bytes"] or files.sha256(path) != row["sha256"]:
        return "this file has changed since the build"
    return None
