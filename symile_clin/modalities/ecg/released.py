"""ECGs in the published Symile-MIMIC release: one channel, scaled to [−1, 1] over all leads of the record together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.modalities.base import Arrays
from symile_clin.modalities.ecg.preprocess import LEADS, SAMPLES
from symile_clin.modalities.released import ReleasedArray, ReleasedForm, frozen_input, read_times

STEM: Final = "ecg"
SHAPE: Final = (1, SAMPLES, len(LEADS))
#: The block in the release's order. The first repeats the id; the file's name is the end of the path.
BLOCK: Final = ("ecg_adm", "ecg_study_id", "ecg_file_name", "ecg_time", "ecg_path")


@final
class ReleasedEcgs(ReleasedForm):
    """`ecg`: float32 (1, 5000, 12)."""

    room: ClassVar[str] = "ecg"
    arrays: ClassVar[Mapping[str, ReleasedArray]] = {STEM: ReleasedArray("float32", SHAPE, serves_as="signal")}
    done: ClassVar[str] = "scaled to [-1, 1] over all leads of a record, so that millivolts are lost"
    encoder: ClassVar[Mapping[str, Any]] = {"arch": "resnet18_image"}
    encoder_prefix: ClassVar[str] = "ecg_encoder."
    encoder_names: ClassVar[Mapping[str, str]] = {"resnet.": ""}

    @classmethod
    def options(cls, *, shapes: Mapping[str, tuple[int, ...]], documents: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003  part of the contract
        """The shape is fixed."""
        return {"stored": "released"}

    def needed(self) -> tuple[str, ...]:
        """Id, time and path."""
        return ("ecg_study_id", "ecg_time", "ecg_path")

    def columns(self, table: pd.DataFrame) -> pd.DataFrame:
        """Id, time and path; gain and baseline are null, for the release does not have them."""
        own = {
            f"{self.modality.name}_study_id": table["ecg_study_id"],
            f"{self.modality.name}_time": read_times(table["ecg_time"]),
            f"{self.modality.name}_path": table["ecg_path"],
        }
        return pd.DataFrame(own).reindex(columns=list(self.modality.columns)).astype(dict(self.modality.columns))

    def table(self, samples: pd.DataFrame) -> pd.DataFrame:
        """5 columns."""
        study, path = samples[f"{self.modality.name}_study_id"], samples[f"{self.modality.name}_path"]
        time = samples[f"{self.modality.name}_time"]
        own = {"ecg_study_id": study, "ecg_adm": study, "ecg_time": time, "ecg_path": path}
        own["ecg_file_name"] = path.str.rsplit("/", n=1).str[-1]
        return pd.DataFrame(own)[list(BLOCK)]

    def kept(self) -> tuple[str, ...]:
        """The path."""
        return ("ecg_path",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """One channel of 10 s by 12 leads."""
        return {STEM: SHAPE}

    def write_arrays(self, arrays: Arrays, draws: NDArray[np.float64] | None) -> Arrays:
        """Exactly the encoder's input."""
        return {STEM: frozen_input(self.modality, arrays, draws)}
