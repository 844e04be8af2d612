"""An opened cohort directory: samples as a frame, arrays as memory maps behind row indices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.data.candidates import CandidateLists, read_candidates
from symile_clin.data.npy import map_npy
from symile_clin.data.release import is_released_array
from symile_clin.errors import CohortError, MismatchError, NotFoundError
from symile_clin.schema import (
    ARRAYS_DIR,
    CANDIDATES_DIR,
    MANIFEST,
    NOT_CHECKED,
    ROW,
    SAMPLES,
    SPLIT,
    STATE_DIR,
    TRUTH,
    Split,
)
from symile_clin.sources import paths

Rows = NDArray[np.int64]
REBUILD: Final = "Rebuild the cohort"


class StoredArray:
    """One array of a cohort: .npy parts, memory-mapped and read by sample row.

    Args:
        directory: of the modality's arrays.
        entry: of the manifest. `parts` lists each part's `file` (relative to `directory`, or absolute where it is an
            array of a release that was imported in place) and its number of `rows`. Without a `row_map`, sample rows
            run through the parts in order. With one, that file holds an int64 array (samples, 2): part and position of
            each sample row, so that shards and releases keep rows in their own order, and rows that no sample has;
            part −1 stands for zeros, where the modality is absent.

    Raises:
        CohortError: a file that is elsewhere, damaged, or not what the entry says.
    """

    def __init__(self, directory: Path, entry: Mapping[str, Any]) -> None:
        self.shape: tuple[int, ...] = tuple(entry["shape"])
        self.dtype = np.dtype(entry["dtype"])
        self._parts = [
            _map(_place(directory, part["file"]), self.dtype, (part["rows"], *self.shape)) for part in entry["parts"]
        ]
        self._ends = np.cumsum([part["rows"] for part in entry["parts"]])
        self._row_map: Rows | None = None
        if "row_map" in entry:
            self._row_map = _row_map(_place(directory, entry["row_map"]), [part["rows"] for part in entry["parts"]])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._row_map is None else len(self._row_map)

    def take(self, rows: Rows) -> NDArray[Any]:
        """Samples `rows` in that order, shape (len(rows), *shape), as a copy."""
        if len(self._parts) == 1 and self._row_map is None:
            whole: NDArray[Any] = self._parts[0][rows]
            return whole
        part_of, position = self._locate(rows)
        out = np.zeros((len(rows), *self.shape), dtype=self.dtype)
        for part in np.unique(part_of[part_of >= 0]):
            mine = part_of == part
            out[mine] = self._parts[part][position[mine]]
        return out

    def _locate(self, rows: Rows) -> tuple[Rows, Rows]:
        """Part and position of each sample row."""
        if self._row_map is not None:
            found = np.asarray(self._row_map[rows])
            return found[:, 0], found[:, 1]
        part_of = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        return part_of, rows - starts[part_of]


class Cohort:
    """A complete cohort directory (docs/architecture.md lists its files).

    Attributes:
        path: the directory.
        manifest: its manifest.json.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def name(self) -> str:
        """The spec's name."""
        return str(self.manifest["name"])

    @property
    def hash(self) -> str:
        """Hash of the logical content: samples, splits, arrays, candidates."""
        return str(self.manifest["hash"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """The resolved cohort spec as plain values."""
        spec: Mapping[str, Any] = self.manifest["spec"]
        return spec

    @property
    def tables_only(self) -> bool:
        """Whether it was built without a look into files: it has no arrays of them."""
        return self.manifest.get("source_files") == NOT_CHECKED

    @property
    def synthetic(self) -> bool:
        """Whether the patients are synthetic, so that pictures of them may travel."""
        return bool(self.manifest["synthetic"])

    @property
    def planted(self) -> Mapping[str, Any] | None:
        """How the factors of a synthetic cohort were planted; None for real patients."""
        return self.manifest["planted"] if self.synthetic else None

    @cached_property
    def samples(self) -> pd.DataFrame:
        """samples.parquet; its position equals its `row`.

        Raises:
            CohortError: it is damaged.
        """
        with _reading(self.path / SAMPLES):
            return pd.read_parquet(self.path / SAMPLES)

    @cached_property
    def truth(self) -> pd.DataFrame | None:
        """Planted factors of each sample in row order, for synthetic cohorts."""
        with _reading(self.path / TRUTH):
            return pd.read_parquet(self.path / TRUTH) if (self.path / TRUTH).is_file() else None

    def rows(self, split: Split) -> Rows:
        """Rows of a split, ascending."""
        samples = self.samples
        # pandas hands out a read-only view, which a tensor cannot share
        return samples.loc[samples[SPLIT] == split, ROW].to_numpy(dtype=np.int64, copy=True)

    def array(self, modality: str, array: str) -> StoredArray:
        """A stored array of a modality, memory-mapped.

        Raises:
            CohortError: it would be of files, and the cohort was built from tables only.
        """
        if self.tables_only and array not in self.manifest["arrays"][modality]:
            raise CohortError(
                f"cohort {self.name} was built from tables only: it has no {modality} {array}",
                remedy="Build it again where the files are, without --tables-only",
            )
        return StoredArray(self.path / ARRAYS_DIR / modality, self.manifest["arrays"][modality][array])

    def state(self, modality: str) -> dict[str, Any]:
        """What the modality fitted on train.

        Raises:
            MismatchError: its file is damaged.
        """
        state: Any = files.read_json(self.path / STATE_DIR / f"{modality}.json")
        if not isinstance(state, dict):
            raise MismatchError(f"{modality}.json of cohort {self.name} is damaged", remedy="Rebuild the cohort")
        return state

    def candidates(self, split: Split, *, other_subjects: bool = False, matched: bool = False) -> CandidateLists:
        """The fixed candidate lists of a split: as drawn, without the query's own patient, or of negatives like it.

        Matched lists are without the query's own patient, too, and there may be fewer of them than queries.

        Raises:
            NotFoundError: the cohort has none for that split.
            CohortError: the file is damaged.
        """
        name = f"{split}_matched" if matched else f"{split}_other_subjects" if other_subjects else split
        path = self.path / CANDIDATES_DIR / f"{name}.parquet"
        if not path.is_file():
            remedy = "Draw shorter ones with --set candidates.n=..." if matched else "Use val or test"
            raise NotFoundError(f"cohort {self.name} has no candidate lists for '{name}'", remedy=remedy)
        with _reading(path):
            return read_candidates(path)


def open_cohort(path: Path) -> Cohort:
    """Open a complete cohort directory.

    Raises:
        NotFoundError: no such cohort, or one whose build did not finish.
        MismatchError: a directory of another kind, or one whose names or links lead out of it.
    """
    paths.refuse_link(path, MANIFEST)
    manifest = files.read_manifest(path)
    if manifest is None:
        raise NotFoundError(f"no complete cohort in {path}", remedy="Build one with `symile-clin cohort build`")
    if manifest.get("stage") != "cohort":
        raise MismatchError(f"{path} was written by the stage '{manifest.get('stage')}'", expected="a cohort")
    _refuse_strangers(path, manifest)
    return Cohort(path, manifest)


def _refuse_strangers(path: Path, manifest: Mapping[str, Any]) -> None:
    """Names that folders are made of, and links: a cohort may have come from elsewhere."""
    spec = manifest.get("spec")
    modalities = spec.get("modalities", {}) if isinstance(spec, Mapping) else {}
    arrays = manifest.get("arrays")
    for name in (manifest.get("name"), *modalities, *(arrays if isinstance(arrays, Mapping) else ())):
        if not paths.is_plain_name(name):
            raise MismatchError(f"the manifest of {path} holds a name that is none: {name!r}", remedy=REBUILD)
    paths.refuse_links(path)


def newest_cohort(root: Path) -> Cohort:
    """The complete cohort below `root` that was built last.

    Raises:
        NotFoundError: there is none.
    """
    found = [path.parent for path in root.glob("[!.]*/manifest.json")]
    if not found:
        raise NotFoundError(
            f"no cohort in {root}", remedy="Build one with `symile-clin cohort build --demo`, or name one with --cohort"
        )
    return open_cohort(max(found, key=lambda path: (path / "manifest.json").stat().st_mtime_ns))


def _place(directory: Path, file: object) -> Path:
    """Where a file that a manifest names is: inside, or an array of a release in its place.

    Raises:
        CohortError: anywhere else.
    """
    name = str(file)
    found = paths.inside(directory, name)
    if found is None and is_released_array(Path(name)):
        found = Path(name)
    if found is None:
        raise CohortError(
            f"the manifest of {directory.parent.parent} names a file outside of it: {name!r}",
            expected="files of its own, or arrays of an imported release",
            remedy="Do not use it if you do not know who made it; import a release that has moved again",
        )
    return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say of a cohort's file that it is damaged, whatever its reader makes of that."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble
        raise CohortError(
            f"{path} cannot be read: it is damaged",
            remedy="`symile-clin cohort verify` names every file that is; build the cohort again",
        ) from None


def _map(path: Path, dtype: np.dtype[Any], expected: tuple[int, ...]) -> NDArray[Any]:
    array = _mapped(path)
    if array.dtype != dtype or array.shape != expected:
        raise CohortError(
            f"{path.name} holds {array.dtype}{list(array.shape)}",
            expected=f"{dtype}{list(expected)} as its manifest says",
            remedy=REBUILD,
        )
    return array


def _row_map(path: Path, lengths: Sequence[int]) -> Rows:
    """Part and position of each sample, none of which is beyond its part or counts from its end."""
    places: Rows = _mapped(path)
    if places.dtype != np.int64 or places.ndim != 2 or places.shape[1] != 2:
        raise CohortError(
            f"{path.name} holds {places.dtype}{list(places.shape)}", expected="int64[samples, 2]", remedy=REBUILD
        )
    part, position = np.asarray(places[:, 0]), np.asarray(places[:, 1])
    known = (part >= -1) & (part < len(lengths))
    limit = np.array([*lengths, np.iinfo(np.int64).max])[np.where(known, part, -1)]  # of part -1, the last
    if not known.all() or ((part >= 0) & ((position < 0) | (position >= limit))).any():
        raise CohortError(f"{path.name} leads to rows that there are not", remedy=REBUILD)
    return places


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return map_npy(path)
    except ValueError as error:
        raise CohortError(f"{path.name} cannot be read: {error}", remedy=REBUILD) from None
