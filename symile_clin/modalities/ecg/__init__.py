"""12-lead ECGs of MIMIC-IV-ECG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from symile_clin.modalities.base import (
    Arrays,
    ArraySpec,
    Choice,
    EncoderOptions,
    Modality,
    Reason,
    Recordings,
    Refusal,
    RoomOptions,
    Row,
    Stored,
    Summary,
    Tables,
    refuse_released,
    refused,
)
from symile_clin.modalities.ecg import encoder_options, synthetic
from symile_clin.modalities.ecg.preprocess import LEADS, SAMPLES, Ecg, read_ecg
from symile_clin.modalities.ecg.tables import RECORDS
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows
from symile_clin.sources import paths
from symile_clin.sources.tables import TableSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    from torch import Tensor, nn

    from symile_clin.modalities.attribution import ByLayer


class EcgOptions(RoomOptions):
    """Keys of an ECG modality in a cohort spec.

    Attributes:
        flat_leads: "keep" takes a record some of whose leads are flat for all ten seconds (the paper's rule), "refuse"
            gives way to the next. One whose leads all are is refused in any case.
        stored: "own" arrays, or those of a release that was imported: scaled once and for all.
    """

    flat_leads: Literal["keep", "refuse"] = "keep"
    stored: Stored = "own"


@final
class ECG(Modality):
    """One 12-lead ECG per sample, kept as the raw integers of its record."""

    room: ClassVar[str] = "ecg"
    Options: ClassVar[type[RoomOptions]] = EcgOptions
    Encoder: ClassVar[type[EncoderOptions]] = encoder_options.Options
    tables: ClassVar[tuple[TableSpec, ...]] = (RECORDS,)
    synthetic_factors: ClassVar[int] = synthetic.FACTORS
    options: EcgOptions

    @property
    def columns(self) -> Mapping[str, str]:
        """Study, time and path of the record, and how raw values become mV: (raw − baseline) / gain."""
        own = {
            "study_id": "Int64", "time": "datetime64[us]", "path": "string", "gain": "float64", "baseline": "Int64",
        }  # fmt: skip
        return {f"{self.name}_{column}": dtype for column, dtype in own.items()}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The record."""
        return (Choice("record", f"{self.name}_study_id", f"{self.name}_time"),)

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """`signal` (5000, 12): 10 s at 500 Hz. A release's is (1, 5000, 12)."""
        if self.options.stored == "released":
            return {"signal": ArraySpec("float32", (1, SAMPLES, len(LEADS)))}
        return {"signal": ArraySpec("int16", (SAMPLES, len(LEADS)))}

    # --- cohort ---

    def events(self, tables: Tables) -> ir.Table:
        """Every record of the list."""
        refuse_released(self.name, self.options.stored)
        from symile_clin.modalities.ecg.events import ecg_events

        return ecg_events(tables.table(RECORDS.name))

    @property
    def reads_from(self) -> str | None:
        """MIMIC-IV-ECG."""
        return RECORDS.source

    def files(self, row: Row) -> tuple[str, ...]:
        """Header and signal."""
        record = PurePosixPath(row["path"])
        return f"{record}.hea", f"{record}.dat"

    @property
    def recordings(self) -> Recordings:
        """Study and file, and the signal."""
        return Recordings({"study": f"{self.name}_study_id", "file": f"{self.name}_path"}, ("signal",))

    def is_valid(self, row: Row, source: Path | None) -> Refusal | None:
        """A record that cannot be used in full is no candidate: the next one is taken."""
        if source is None:
            return None
        ecg = self._open(row, source)
        return ecg if isinstance(ecg, Refusal) else None

    def read(self, row: Row, source: Path) -> dict[str, NDArray[Any]] | Refusal:
        """The raw signal, its gain and its baseline."""
        ecg = self._open(row, source)
        if isinstance(ecg, Refusal):
            return ecg
        return {
            "signal": ecg.signal,
            f"{self.name}_gain": np.array(ecg.gain),
            f"{self.name}_baseline": np.array(ecg.baseline),
        }

    def _open(self, row: Row, source: Path) -> Ecg | Refusal:
        # a path that names no file would name its folder's siblings
        if not PurePosixPath(row["path"]).name:
            return Refusal(Reason.OUTSIDE)
        # the record has two files, either of which may be a link
        if any(paths.inside(source, file) is None for file in self.files(row)):
            return Refusal(Reason.OUTSIDE)
        return self._unless_flat(read_ecg(source / row["path"]))

    def _unless_flat(self, ecg: Ecg | Refusal) -> Ecg | Refusal:
        if self.options.flat_leads == "keep" or isinstance(ecg, Refusal):
            return ecg
        flat = int((ecg.signal == ecg.signal[0]).all(axis=0).sum())
        return Refusal(Reason.CONSTANT, f"flat leads: {flat}") if flat else ecg

    def collect(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Study, time and path of the chosen records."""
        names = {"study_id": "study_id", "event_time": "time", "path": "path"}
        renamed = {column: f"{self.name}_{name}" for column, name in names.items()}
        return chosen.set_index("sample_id")[list(renamed)].rename(columns=renamed)

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:  # noqa: ARG002  part of the contract
        """Nothing is fitted."""
        return {}

    def transform(
        self,
        samples: pd.DataFrame,
        state: Mapping[str, Any],  # noqa: ARG002  part of the contract
    ) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
        """Nothing is left to do."""
        return samples, {}

    def placeholder(self) -> dict[str, NDArray[Any]]:
        """A flat line."""
        return {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.arrays.items()}

    def summaries(self, samples: pd.DataFrame) -> list[Summary]:
        """When the ECG was taken: hours from the index time."""
        hours = (samples[f"{self.name}_time"] - samples["index_time"]).dt.total_seconds() / 3600
        quartiles = {"first quarter": 0.25, "median": 0.5, "last quarter": 0.75}
        return [
            Summary(
                f"{self.name}: hours from index time", {name: float(hours.quantile(q)) for name, q in quartiles.items()}
            )
        ]

    # --- synthetic patients ---

    def write_synthetic(
        self, patient: SyntheticPatient, source: Path, rng: np.random.Generator, options: SyntheticOptions
    ) -> TableRows:
        """WFDB records in MIMIC's form, and their rows of the record list."""
        return synthetic.write(patient, source, rng, options, name=self.name)

    def synthetic_tables(self) -> TableRows:
        """None: MIMIC-IV-ECG has no dictionaries."""
        return synthetic.static_tables()

    # --- evaluation ---

    def read_query(self, path: Path, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:  # noqa: ARG002  nothing is fitted
        """A WFDB record by the rules of `read`; its path with or without .hea or .dat."""
        record = path.with_suffix("") if path.suffix in (".hea", ".dat") else path
        ecg = self._unless_flat(read_ecg(record)) if record.name else Refusal(Reason.MISSING)  # "." and "/"
        if isinstance(ecg, Refusal):
            whole = replace(ecg, detail="a record is a .hea and a .dat") if ecg.reason == Reason.MISSING else ecg
            raise refused(path, whole)
        columns = {f"{self.name}_gain": np.array(ecg.gain), f"{self.name}_baseline": np.array(ecg.baseline)}
        if self.options.stored == "released":
            from symile_clin.modalities.ecg.encoder import released_input

            return {"signal": released_input(ecg.signal), **columns}
        return {"signal": ecg.signal, **columns}

    # --- training and pictures ---

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:  # noqa: ARG002  not augmented
        """(b, 1, 5000, 12) in [−1, 1]; a release's as it is."""
        from symile_clin.modalities.ecg.encoder import to_input

        return arrays["signal"] if self.options.stored == "released" else to_input(arrays["signal"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """A one-channel image of time by leads."""
        return (1, SAMPLES, len(LEADS))

    def encoder(self, dim: int, options: EncoderOptions) -> nn.Module:
        """(b, 1, 5000, 12) to (b, dim)."""
        from symile_clin.modalities.ecg.encoder import build

        return build(dim, options)

    def render(self, arrays: Arrays, row: Row) -> NDArray[np.uint8]:
        """A 12-lead sheet at 25 mm/s and 10 mm/mV; a release's, whose millivolts are lost, as if it spanned 3 mV."""
        from symile_clin.modalities.ecg.sheet import RELEASED_MV, draw_sheet

        if self.options.stored == "released":
            return draw_sheet(arrays["signal"][0].astype(np.float64) * RELEASED_MV, note="mV not known")
        gain, baseline = float(row[f"{self.name}_gain"]), float(row[f"{self.name}_baseline"])
        return draw_sheet((arrays["signal"].astype(np.float64) - baseline) / gain)

    @property
    def attribution(self) -> ByLayer:
        """Along time."""
        from symile_clin.modalities.ecg.attribution import EcgAttribution

        return EcgAttribution(self)
