"""inputs.parquet: the files that a cohort's arrays were read from, as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from symile_clin import files
from symile_clin.cohort.reading import Shards
from symile_clin.schema import INPUTS, SAMPLE_ID

SCHEMA = pa.schema([("modality", pa.string()), ("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])


def write_inputs(directory: Path, samples: pd.DataFrame, shards: Mapping[str, Shards]) -> None:
    """Write modality, path (relative to its source), bytes and sha256 of every chosen file, in order of the samples."""
    rows = [
        {"modality": name, "path": file.path, "bytes": file.bytes, "sha256": file.sha256}
        for name, read in shards.items()
        for sample in samples[SAMPLE_ID]
        for file in read.files.get(sample, ())
    ]
    with files.atomic(directory / INPUTS) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
    (directory / INPUTS).chmod(0o600)  # patient-level: paths carry ids


def read_inputs(directory: Path) -> Iterator[dict[str, Any]]:
    """Rows of inputs.parquet."""
    for batch in pq.ParquetFile(directory / INPUTS).iter_batches():
        yield from batch.to_pylist()
