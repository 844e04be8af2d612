"""From shards to a cohort's arrays: one file in the order of the samples, or the shards as they are with a map."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from symile_clin import disk
from symile_clin.data.store import Rows, StoredArray
from symile_clin.modalities.base import ArraySpec

COPY_BYTES: Final = 16 << 20


def join_shards(parts: Sequence[Path], places: Rows, folder: Path, array: str, spec: ArraySpec) -> dict[str, Any]:
    """Copy the samples' rows, a few megabytes at a time, to one file.

    Args:
        parts: directories of shards.
        places: (samples, 2): part and row of each sample, −1 where it has none.
        folder: of the modality's arrays.

    Returns:
        The manifest's entry.

    Raises:
        DiskError: there is not enough room.
    """
    dtype, shape = np.dtype(spec.dtype), (len(places), *spec.shape)
    disk.require_space(folder, math.prod(shape) * dtype.itemsize, what=f"{array}.npy")
    target = folder / f"{array}.npy"
    total = _start_hash(dtype, shape)
    with target.open("wb") as handle:
        write_array_header_1_0(handle, {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
        for rows in _gather([part / f"{array}.npy" for part in parts], places, spec):
            # plain writes: pages of a memory map would count as this process's own until they are on the disk
            handle.write(rows.data)
            total.update(rows.data)
    return one_part(dtype, shape, target.name, total.hexdigest())


def link_shards(parts: Sequence[Path], places: Rows, folder: Path, array: str, spec: ArraySpec) -> dict[str, Any]:
    """Make the shards themselves the array's parts; arguments and result as `join_shards`."""
    dtype = np.dtype(spec.dtype)
    listed: list[dict[str, Any]] = []
    for part in parts:
        target = folder / f"{array}-{part.name}.npy"
        _link(part / f"{array}.npy", target)
        listed.append({"file": target.name, "rows": len(_map(target))})
    row_map = f"{array}.rows.npy"
    np.save(folder / row_map, places, allow_pickle=False)
    entry: dict[str, Any] = {"dtype": dtype.name, "shape": list(spec.shape), "parts": listed, "row_map": row_map}
    rows = _gather([folder / one["file"] for one in listed], places, spec)
    return {**entry, "sha256": sha256_of(rows, dtype, (len(places), *spec.shape))}


def one_part(dtype: np.dtype[Any], shape: Sequence[int], file: str, sha256: str) -> dict[str, Any]:
    """The manifest's entry of an array in one file."""
    return {
        "dtype": dtype.name,
        "shape": list(shape[1:]),
        "parts": [{"file": file, "rows": shape[0]}],
        "sha256": sha256,
    }


def sha256_of(chunks: Iterable[NDArray[Any]], dtype: np.dtype[Any], shape: Sequence[int]) -> str:
    """Hex digest of an array's values in the order of the samples, however they are stored.

    Args:
        chunks: its rows, C-contiguous.
    """
    total = _start_hash(dtype, shape)
    for chunk in chunks:
        total.update(chunk.data)
    digest: str = total.hexdigest()
    return digest


def stored_sha256(array: StoredArray) -> str:
    """`sha256_of` a stored array."""
    shape = (len(array), *array.shape)
    step = _step(array.dtype, array.shape)
    chunks = (array.take(np.arange(start, min(start + step, shape[0]))) for start in range(0, shape[0], step))
    return sha256_of(chunks, array.dtype, shape)


def _start_hash(dtype: np.dtype[Any], shape: Sequence[int]) -> Any:
    return hashlib.sha256(f"{dtype.str}{list(shape)}".encode())


def _gather(paths: Sequence[Path], places: Rows, spec: ArraySpec) -> Iterator[NDArray[Any]]:
    """Rows in the order of `places`, in chunks; where there is none, zeros."""
    step = _step(np.dtype(spec.dtype), spec.shape)
    for start in range(0, len(places), step):
        some = places[start : start + step]
        out = np.zeros((len(some), *spec.shape), spec.dtype)
        follows = (some[1:, 0] == some[:-1, 0]) & (some[1:, 1] == some[:-1, 1] + 1)
        starts = [0, *(np.flatnonzero(~follows) + 1)]
        for first, end in zip(starts, [*starts[1:], len(some)], strict=True):
            part, row = some[first]
            if part >= 0:  # mapped and let go again, so that mapped pages do not pile up
                out[first:end] = _map(paths[part])[row : row + end - first]
        yield out


def _map(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _step(dtype: np.dtype[Any], shape: Sequence[int]) -> int:
    return max(COPY_BYTES // max(math.prod(shape) * dtype.itemsize, 1), 1)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
