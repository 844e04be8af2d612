"""`symile-clin cohort import` and `cohort export`: the Symile-MIMIC release as a cohort, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin import disk, files
from symile_clin.cohort.spec import load_spec, parse_spec
from symile_clin.data.release import ADMISSIONS, RELEASED_SPLITS, SOURCE, SUMS, array_path, read_document, table_path
from symile_clin.data.release import verify_sums as verify_release
from symile_clin.data.release_export import bytes_needed, check_exportable, write_release
from symile_clin.data.release_import import Imported, released_shapes, write_imported
from symile_clin.data.release_samples import ReleasedSamples, read_samples
from symile_clin.data.store import Cohort, newest_cohort, open_cohort
from symile_clin.errors import CohortError, ConfigError, SourceError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import ROOMS, modalities_of, released_forms
from symile_clin.modalities.released import ReleasedForm
from symile_clin.progress import Progress
from symile_clin.schema import (
    ATTRITION,
    ATTRITION_SAMPLES,
    COHORTS_ROOT,
    HADM_ID,
    QUARANTINE,
    SPLIT,
    SPLITS,
    SUBJECT_ID,
)
from symile_clin.sources import paths

#: The cohort that the release was made as.
RELEASED_SPEC: Final = "symile_mimic"
IMPORTED_NAME: Final = "symile_mimic_release"


@dataclass(frozen=True)
class ImportResult:
    """An imported cohort.

    Attributes:
        samples: by split.
        without_split: admissions of the release that are in none.
        verified: whether the files were compared with SHA256SUMS.txt.
    """

    path: Path
    release: Path
    hash: str
    samples: Mapping[str, int]
    subjects: int
    without_split: int
    verified: bool

    def text(self) -> str:
        """Counts, and what the arrays are."""
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.samples.items())
        checked = f"the files agree with {SUMS}" if self.verified else f"{SUMS} was not compared: --verify does"
        return (
            f"Cohort {self.path}: {sum(self.samples.values()):,} samples of {self.subjects:,} patients ({sizes}), as "
            f"released; {self.without_split:,} of its admissions are in no split.\n"
            f"Its large arrays stay in {self.release}, which must not move; {checked}.\n"
            f"Next: symile-clin train --cohort {self.path}"
        )

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {**vars(self), "path": str(self.path), "release": str(self.release), "samples": dict(self.samples)}


def import_cohort(*, release: Path, out: Path | None = None, verify: bool = False, progress: Progress) -> ImportResult:
    """Make a cohort directory out of the released Symile-MIMIC files, in place: large arrays are not copied.

    Args:
        release: the folder with symile_mimic_data.csv and data_npy/ in it.
        out: the cohort directory; data/cohorts/symile_mimic_release by default.
        verify: hash every file that is read, and compare with SHA256SUMS.txt first.

    Raises:
        SourceError: a file that is not there, or not what the release has.
        MismatchError: files that contradict each other, a digest that differs, or a link that leads out of the folder.
        ConfigError: `out` holds something else.
        BusyError: another process is writing there.
    """
    out = out or Path(COHORTS_ROOT) / IMPORTED_NAME
    _refuse_others(out)
    if not release.is_dir():
        raise SourceError(f"no folder {release}", expected=f"the folder of the {SOURCE}")
    paths.refuse_links(release)
    forms = released_forms()
    if verify:
        progress.say(f"Comparing the files of {release} with {SUMS}.")
        verify_release(release, _read_files(release, forms), progress)
    shapes = released_shapes(release, forms)
    spec = _released_spec(release, forms, shapes)
    modalities = parse_spec(spec, ROOMS, source=SOURCE).make_modalities(ROOMS)
    of_modality = {name: forms[modality.room](modality) for name, modality in modalities.items()}
    progress.say(f"Reading the tables of {release}.")
    released = read_samples(release, [column for form in of_modality.values() for column in form.needed()])
    spec["candidates"]["n"] = next(iter(released.lists.values())).candidate_rows.shape[1]
    with files.atomic_directory(out) as directory:
        imported = write_imported(directory, root=release, released=released, modalities=modalities, forms=of_modality)
        _write_books(directory, imported)
        files.write_manifest(directory, stage="cohort", content=_manifest(imported, spec, of_modality, verified=verify))
    return _imported(out, release, released, imported, verified=verify)


@dataclass(frozen=True)
class ExportResult:
    """A cohort in the release's layout.

    Attributes:
        rows: of each released split's arrays.
        bytes: of all files.
        empty: columns of symile_mimic_data.csv that a cohort does not hold.
        notes: where code made for the release may expect something else.
    """

    cohort: Path
    path: Path
    rows: Mapping[str, int]
    bytes: int
    empty: Sequence[str]
    notes: Sequence[str]

    def text(self) -> str:
        """Counts and what differs."""
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.rows.items())
        lines = [
            f"{self.path}: cohort {self.cohort} in the layout of the {SOURCE}.",
            f"{self.bytes / 1e9:,.2f} GB; rows: {sizes}.",
            f"Empty columns of {ADMISSIONS}: {', '.join(self.empty)}.",
            *self.notes,
        ]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        own = {"cohort": str(self.cohort), "path": str(self.path), "rows": dict(self.rows)}
        return {**vars(self), **own, "empty": list(self.empty), "notes": list(self.notes)}


def export_cohort(*, cohort: Path | None = None, out: Path, seed: int = 0, progress: Progress) -> ExportResult:
    """Write a cohort in the layout of the release, so that code made for it runs unchanged.

    Args:
        cohort: a cohort directory; None takes the newest complete one.
        out: a folder that is not there yet, or empty.
        seed: of the random crops of train, which the release froze.

    Raises:
        NotFoundError: no such cohort.
        CohortError: a cohort that the layout has no place for.
        DiskError: not enough room.
        ConfigError: `out` is not empty.
        BusyError: another process is writing there.
    """
    opened = open_cohort(cohort) if cohort else newest_cohort(Path(COHORTS_ROOT))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty", remedy="Choose another folder")
    modalities = modalities_of(opened.spec)
    forms = _forms(opened, modalities)
    check_exportable(opened, modalities)
    needed = bytes_needed(opened, forms)
    disk.require_space(out, needed, what="its copy in the release's layout")
    progress.say(f"Writing cohort {opened.path} to {out}, about {needed / 1e9:,.1f} GB.")
    with files.atomic_directory(out, needed=needed) as directory:
        written = write_release(
            directory, cohort=opened, modalities=modalities, forms=forms, seed=seed, progress=progress
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return ExportResult(
        cohort=opened.path, path=out, rows=written.rows, bytes=size, empty=written.empty, notes=_notes(forms)
    )


def _forms(cohort: Cohort, modalities: Mapping[str, Modality]) -> dict[str, ReleasedForm]:
    """The rooms of the release in its order, by the modality that each is in this cohort.

    Raises:
        CohortError: the cohort has other rooms.
    """
    rooms = [modality.room for modality in modalities.values()]
    expected = released_forms()
    if sorted(rooms) != sorted(expected):
        raise CohortError(
            f"cohort '{cohort.name}' has modalities {', '.join(modalities)}",
            expected=f"one of each of {', '.join(expected)}, as the release has",
        )
    of_room = {modality.room: modality for modality in modalities.values()}
    return {of_room[room].name: form(of_room[room]) for room, form in expected.items()}


def _notes(forms: Mapping[str, ReleasedForm]) -> list[str]:
    notes = [form.unlike_published() for form in forms.values()]
    return [note for note in notes if note is not None]


def _refuse_others(out: Path) -> None:
    found = files.read_manifest(out)
    if found is not None and found.get("source") != SOURCE:
        raise ConfigError(f"{out} holds something else than an import", remedy="Choose another directory with --out")
    if found is None and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty and not a cohort", remedy="Choose another directory with --out")


def _read_files(release: Path, forms: Mapping[str, type[ReleasedForm]]) -> list[Path]:
    """Every file that an import reads."""
    stems = [stem for form in forms.values() for stem in form.arrays]
    arrays = [array_path(release, split, stem) for split in SPLITS for stem in stems]
    documents = [release / name for form in forms.values() for name in form.documents]
    tables = [release / ADMISSIONS, *(table_path(release, split) for split in RELEASED_SPLITS)]
    ids = [
        array_path(release, split, stem)
        for split in RELEASED_SPLITS
        for stem in (HADM_ID, "label_hadm_id", "label")
        if array_path(release, split, stem).exists()
    ]
    found = [*tables, *documents, *ids, *arrays]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise SourceError(f"no {missing[0].relative_to(release)} in {release}", expected=f"the folder of the {SOURCE}")
    return found


def _released_spec(
    release: Path, forms: Mapping[str, type[ReleasedForm]], shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> dict[str, Any]:
    """The paper's spec, with the release's arrays and splits."""
    spec = load_spec(RELEASED_SPEC, (), ROOMS).resolved()
    for entry in spec["modalities"].values():
        form = forms[entry["room"]]
        documents = {name: read_document(release, name) for name in form.documents}
        entry |= form.options(shapes=shapes[form.room], documents=documents)
    return {**spec, "name": IMPORTED_NAME, "splits": {"from": SOURCE}}


def _write_books(directory: Path, imported: Imported) -> None:
    files.write_text(directory / ATTRITION, imported.attrition.table().to_csv(index=False))
    for name, table in (
        (ATTRITION_SAMPLES, imported.attrition.left()),
        (QUARANTINE, imported.attrition.quarantine()),
    ):
        with files.atomic(directory / name) as temporary:
            table.to_parquet(temporary, index=False)
        (directory / name).chmod(0o600)


def _manifest(
    imported: Imported, spec: Mapping[str, Any], forms: Mapping[str, ReleasedForm], *, verified: bool
) -> dict[str, Any]:
    of_split = imported.samples[SPLIT].value_counts()
    return {
        "name": IMPORTED_NAME,
        "hash": imported.hash,
        "source": SOURCE,
        "done_in_arrays": {name: form.done for name, form in forms.items()},
        "spec": dict(spec),
        "preset": spec["preset"],
        "target": spec["candidates"]["target"],
        "synthetic": False,
        "planted": None,
        "inputs": {"source": SOURCE, "verified": verified},
        "counts": {
            "samples": len(imported.samples),
            "subjects": int(imported.samples[SUBJECT_ID].nunique()),
            "splits": {split: int(of_split[split]) for split in SPLITS},
        },
        "arrays": imported.arrays,
    }


def _imported(
    out: Path, release: Path, released: ReleasedSamples, imported: Imported, *, verified: bool
) -> ImportResult:
    counts = open_cohort(out).manifest["counts"]
    return ImportResult(
        path=out,
        release=release,
        hash=imported.hash,
        samples={split: counts["splits"][split] for split in SPLITS},
        subjects=counts["subjects"],
        without_split=len(released.others),
        verified=verified,
    )
