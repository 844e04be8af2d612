"""A cohort's embeddings on disk: one memory-mapped matrix for each modality. Patient-level.

runs/<run>/index/<own, or the cohort's name>/
  <modality>.npy   (samples, d) float32; NaN where a sample lacks the modality
  rows.parquet     row, split, <modality>_present; row i is line i of every matrix
  manifest.json    written last: what was embedded by what, and the longest embedding of each modality
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from symile_clin import disk, files
from symile_clin.data.npy import map_npy
from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError
from symile_clin.evaluation.embed import Embedded, require_finite
from symile_clin.schema import ROW, SPLIT, present_column

ROWS: Final = "rows.parquet"
STAGE: Final = "index"
REMEDY: Final = "Remove its folder: it is made again"


@dataclass(frozen=True)
class Index:
    """A complete index directory.

    Attributes:
        path: the directory.
        manifest: its manifest.json.
    """

    path: Path
    manifest: Mapping[str, Any]

    @cached_property
    def matrices(self) -> dict[str, NDArray[np.float32]]:
        """Embeddings by modality in the cohort's order, (samples, d), memory-mapped.

        Raises:
            CohortError: a file is damaged.
        """
        shape = (int(self.manifest["samples"]), int(self.manifest["dim"]))
        return {name: _mapped(self.path / f"{name}.npy", shape) for name in self.manifest["modalities"]}

    @cached_property
    def rows(self) -> pd.DataFrame:
        """rows.parquet.

        Raises:
            CohortError: it is damaged.
        """
        try:
            return pd.read_parquet(self.path / ROWS)
        except (OSError, pa.ArrowInvalid) as error:
            reason = str(error).splitlines()[0]
            raise CohortError(f"{ROWS} of the index cannot be read: {reason}", remedy=REMEDY) from None

    def present(self, name: str) -> NDArray[np.bool_]:
        """(samples,) which have the modality."""
        return self.rows[present_column(name)].to_numpy(dtype=np.bool_)

    def largest_norm(self, name: str) -> float:
        """No embedding of the modality is longer."""
        return float(self.manifest["largest_norm"][name])


def identity(
    *, cohort: Cohort, names: Sequence[str], dim: int, objective: str, run: str, checkpoint: str
) -> dict[str, Any]:
    """What an index is of: where a manifest says the same, it need not be made again.

    Args:
        checkpoint: SHA-256 of the weights.
    """
    return {
        "run": run,
        "checkpoint": checkpoint,
        "objective": objective,
        "cohort": {"name": cohort.name, "hash": cohort.hash, "synthetic": cohort.synthetic},
        "samples": len(cohort.samples),
        "dim": dim,
        "modalities": list(names),
    }


def open_index(path: Path, expected: Mapping[str, Any]) -> Index | None:
    """The index in a directory, if there is a complete one of just what is expected (`identity`)."""
    manifest = files.read_manifest(path)
    if manifest is None or any(manifest.get(key) != value for key, value in expected.items()):
        return None
    return Index(path, manifest)


def write_index(path: Path, *, cohort: Cohort, of: Mapping[str, Any], batches: Iterable[Embedded]) -> Index:
    """Write a cohort's embeddings as they come, a batch in memory at a time; an older index is replaced whole.

    Args:
        of: `identity`.
        batches: of all samples, in row order.

    Raises:
        TrainingError: an embedding is not finite.
        DiskError: the disk is too small.
    """
    names: list[str] = of["modalities"]
    needed = matrix_bytes(names, len(cohort.samples), int(of["dim"]))
    disk.require_space(path, needed, what="the embeddings")
    with files.atomic_directory(path, needed=needed) as folder:
        norms = write_matrices(folder, names, batches, shape=(len(cohort.samples), int(of["dim"])))
        columns = [ROW, SPLIT, *map(present_column, names)]
        cohort.samples[columns].to_parquet(folder / ROWS, index=False)
        files.write_manifest(folder, stage=STAGE, content={**of, "largest_norm": norms})
        for file in folder.iterdir():
            file.chmod(0o600)
    manifest = files.read_manifest(path)
    assert manifest is not None
    return Index(path, manifest)


def matrix_bytes(names: Sequence[str], samples: int, dim: int) -> int:
    """Size of the matrices that `write_matrices` writes."""
    return len(names) * samples * dim * np.dtype(np.float32).itemsize


def write_matrices(
    folder: Path, names: Sequence[str], batches: Iterable[Embedded], *, shape: tuple[int, int]
) -> dict[str, float]:
    """Append batches to `<name>.npy` of that shape, NaN where a sample lacks the modality.

    Returns:
        The greatest norm of each modality's embeddings, 0 where no sample has it.

    Raises:
        TrainingError: an embedding is not finite.
    """
    largest = dict.fromkeys(names, 0.0)
    written = 0
    with ExitStack() as stack:
        out: dict[str, IO[bytes]] = {name: stack.enter_context((folder / f"{name}.npy").open("wb")) for name in names}
        for file in out.values():
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)  # padded, so that the numbers start aligned
        for batch in batches:
            require_finite(batch)
            for name in names:
                here = batch.present[name]
                vectors = np.where(here[:, None], batch.embeddings[name], np.float32(np.nan)).astype("<f4")
                out[name].write(vectors.tobytes())
                norms = np.linalg.norm(vectors[here].astype(np.float64), axis=1)
                largest[name] = max(largest[name], float(norms.max(initial=0.0)))
            written += len(here)
    if written != shape[0]:
        raise ValueError(f"{written} embeddings for {shape[0]} samples")
    return largest


def _mapped(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    try:
        matrix: NDArray[np.float32] = map_npy(path)
    except ValueError as error:
        raise CohortError(f"{path.name} of the index cannot be read: {error}", remedy=REMEDY) from None
    if matrix.shape != shape or matrix.dtype != np.float32:
        raise CohortError(
            f"{path.name} of the index holds {matrix.dtype}{list(matrix.shape)}",
            expected=f"float32{list(shape)}",
            remedy=REMEDY,
        )
    return matrix
