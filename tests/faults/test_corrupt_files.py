"""Every kind of bad image and record in one cohort build beside good ones: each is refused with its typed reason.

What cannot be told without digests that somebody else keeps is in the same table, with no reason: such a file is taken
as it is, and refused as soon as the source has its SHA256SUMS.txt.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.base import Reason
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.progress import Quiet
from symile_clin.schema import QUARANTINE
from symile_clin.sources.checksums import SUMS
from symile_clin.strict import dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree
from tests.faults.corrupt_images import dicoms, good_jpeg, jpegs, write_good_dicom
from tests.faults.corrupt_records import SIGNAL, records
from tests.faults.kinds import FAULTS, Kind

GOOD: Final = 8
#: Modality of the cohort, source that holds its files, and what a file's path ends in where a kind is made.
PLACES: Final = {
    "JPG": ("cxr", "mimic_cxr", ".jpg"),
    "DICOM": ("film", "mimic_cxr_dicom", ".dcm"),
    "WFDB": ("ecg", "mimic_ecg", ".hea"),
}
KINDS: Final = [*jpegs(), *dicoms(), *records()]


@dataclass(frozen=True)
class Places:
    """A tree with one bad file an admission; and good admissions, the first and the last.

    Attributes:
        bad: by hadm_id.
        paths: of the bad file, relative to its source, as the quarantine has it.
    """

    tree: Tree
    bad: dict[int, Kind]
    paths: dict[int, str]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Good files everywhere, their digests in SUMS.kept, then one kind of damage an admission."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    tree.roots["mimic_cxr_dicom"] = tree.root / "mimic_cxr_dicom"
    bad: dict[int, Kind] = {}
    spoils: list[tuple[Callable[[Path], None], Path]] = []
    paths: dict[int, str] = {}
    for number, kind in enumerate([*[None] * (GOOD // 2), *KINDS, *[None] * (GOOD // 2)]):
        subject, hadm, study = 10_000_000 + number, 20_000_000 + number, 50_000_000 + number
        tree.admission(subject, hadm)
        dicom_id = tree.xray(subject, study, ADMITTED + 30 * HOUR, content=good_jpeg())
        record = 40_000_000 + number
        tree.ecg(subject, record, ADMITTED, signal=SIGNAL)
        for item in (50912, 50931):
            tree.lab(subject, ADMITTED + HOUR, float(number), item=item)
        image = f"files/p10/p{subject}/s{study}/{dicom_id}"
        film = tree.roots["mimic_cxr_dicom"] / f"{image}.dcm"
        write_good_dicom(film, subject_id=subject, study_id=study, dicom_id=dicom_id)
        if kind is not None:
            source, ending = PLACES[kind.form][1:]
            path = tree.rows["ecg_records"][-1]["path"] if ending == ".hea" else f"{image}{ending}"
            spoils.append((kind.spoil, tree.roots[source] / path))
            bad[hadm], paths[hadm] = kind, path
    for _, source, _ in PLACES.values():
        root = tree.roots[source]
        every = sorted(path for path in (root / "files").rglob("*") if path.is_file())
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in every]
        (root / f"{SUMS}.kept").write_text("".join(lines))
    for spoil, path in spoils:
        spoil(path)
    tree.write()
    return Places(tree, bad, paths)


def build(places: Places, out: Path) -> Cohort:
    """The cohort in which only labs are required: whose image or record is bad has none, and no more happens."""
    film = {**SPEC["modalities"]["cxr"], "room": "cxr", "files": "dicom", "dicom": "voi"}
    modalities = {**SPEC["modalities"], "film": film}
    modalities["ecg"] = {**modalities["ecg"], "flat_leads": "refuse"}
    values: dict[str, Any] = {**SPEC, "modalities": modalities, "require": ["labs"]}
    spec = places.tree.root / "tiny.yaml"
    spec.write_text(dump_yaml(values))
    roots: dict[str, Any] = places.tree.roots
    build_cohort(spec=str(spec), **roots, out=out, workers=1, tracking_uri=None, progress=Quiet())
    return open_cohort(out)


def found(cohort: Cohort) -> dict[tuple[str, str], tuple[str, str]]:
    """What the quarantine has: (modality, path) -> (reason, detail)."""
    table = pd.read_parquet(cohort.path / QUARANTINE)
    assert not table.duplicated(["modality", "path"]).any()
    rows = table[["modality", "path", "reason", "detail"]].astype(str).to_numpy().tolist()
    return {(modality, path): (reason, detail) for modality, path, reason, detail in rows}


def compare(places: Places, cohort: Cohort, expected: dict[tuple[str, str], Reason]) -> None:
    refused = found(cohort)
    names = {(PLACES[kind.form][0], places.paths[hadm]): str(kind) for hadm, kind in places.bad.items()}
    differences = {
        names.get(where, "a good file"): (refused.get(where), expected.get(where))
        for where in refused.keys() | expected.keys()
        if refused.get(where, [None])[0] != expected.get(where)
    }
    assert not differences, "\n".join(f"{name}: {pair[0]}, expected {pair[1]}" for name, pair in differences.items())


def check_samples(places: Places, cohort: Cohort, refused: dict[tuple[str, str], Reason]) -> None:
    """Nobody is lost, who has a bad file lacks that modality alone, and what the others have is what was written."""
    samples = cohort.samples.set_index("hadm_id")
    assert len(samples) == GOOD + len(KINDS)
    for modality, array in (("cxr", "image"), ("film", "image"), ("ecg", "signal")):
        has = samples[f"{modality}_present"]
        lacking = {hadm for hadm, path in places.paths.items() if (modality, path) in refused}
        assert set(has.index[~has]) == lacking
        whole = [
            hadm
            for hadm in samples.index
            if places.bad.get(hadm) is None or PLACES[places.bad[hadm].form][0] != modality
        ]
        values = cohort.array(modality, array).take(samples.loc[whole, "row"].to_numpy())
        assert (values == values[0]).all(), "a good file's values are other ones beside bad files"
        if modality == "ecg":
            np.testing.assert_array_equal(values[0], SIGNAL)


@pytest.mark.slow
def test_without_digests_every_kind_but_the_listed_is_refused_for_its_reason(places: Places, tmp_path: Path) -> None:
    for _, source, _ in PLACES.values():
        (places.tree.roots[source] / SUMS).unlink(missing_ok=True)
    cohort = build(places, tmp_path / "cohort")
    expected = {
        (PLACES[kind.form][0], places.paths[hadm]): kind.reason
        for hadm, kind in places.bad.items()
        if kind.reason is not None
    }
    compare(places, cohort, expected)
    check_samples(places, cohort, expected)


def test_every_kind_is_refused_for_its_reason_or_its_digest_and_harms_nobody_else(
    places: Places, tmp_path: Path
) -> None:
    for _, source, _ in PLACES.values():
        root = places.tree.roots[source]
        shutil.copy(root / f"{SUMS}.kept", root / SUMS)
    cohort = build(places, tmp_path / "cohort")
    expected = {
        (PLACES[kind.form][0], places.paths[hadm]): kind.reason or Reason.CHECKSUM for hadm, kind in places.bad.items()
    }
    compare(places, cohort, expected)
    check_samples(places, cohort, expected)
    # a reason is one of the contract's, and no detail tells whose file it is
    for hadm, path in places.paths.items():
        for reason, detail in found(cohort).values():
            assert Reason(reason)
            assert Path(path).stem not in detail
            assert str(hadm) not in detail


def test_the_table_has_every_fault_of_images_and_records() -> None:
    assert len({str(kind) for kind in KINDS}) == len(KINDS)
    assert len(KINDS) >= 24
    faults = {kind.fault for kind in KINDS}
    assert set(FAULTS) - faults == {"CRC error"}  # what has one is a table
    for form in PLACES:
        own = {kind.fault for kind in KINDS if kind.form == form}
        assert {"truncated", "zero-filled", "flipped byte", "wrong type", "swapped header", "bomb"} <= own
    # what no reader can tell is said, and is little
    assert sorted(str(kind) for kind in KINDS if kind.reason is None) == [
        "DICOM, flipped byte: in the pixels",
        "DICOM, zero-filled: some rows",
        "JPG, flipped byte: in the pixels",
        "JPG, swapped header: rows and columns",
        "JPG, truncated: and closed by an end",
        "JPG, zero-filled: in the middle, progressive",
        "WFDB, flipped byte: in the year",
    ]
