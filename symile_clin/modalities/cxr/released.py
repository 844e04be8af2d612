"""X-rays in the published Symile-MIMIC release: cropped, three channels, ImageNet's mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.errors import SourceError
from symile_clin.modalities.base import Arrays
from symile_clin.modalities.cxr import CxrOptions
from symile_clin.modalities.cxr.tables import FINDINGS
from symile_clin.modalities.released import ReleasedArray, ReleasedForm, frozen_input, read_times

STEM: Final = "cxr"
PUBLISHED_SIDE: Final = 320
#: Column of the release -> our column without its prefix.
NAMES: Final[Mapping[str, str]] = {
    "cxr_dicom_id": "dicom_id",
    "cxr_study_id": "study_id",
    "cxr_ViewPosition": "view",
    "cxr_StudyDateTime": "time",
    "cxr_path": "path",
}
#: The block in the release's order. The first and `study_id` repeat ids.
BLOCK: Final = (
    "cxr_24_72_hr", "cxr_dicom_id", "cxr_study_id", "cxr_ViewPosition", "cxr_ViewCodeSequence_CodeMeaning",
    "cxr_StudyDateTime", "cxr_path", "study_id", *FINDINGS,
)  # fmt: skip
KEPT: Final = ("cxr_path", "Atelectasis", "Cardiomegaly", "Edema", "Lung Opacity", "No Finding", "Pleural Effusion")


@final
class ReleasedXrays(ReleasedForm):
    """`cxr`: float32 (3, side, side)."""

    room: ClassVar[str] = "cxr"
    arrays: ClassVar[Mapping[str, ReleasedArray]] = {STEM: ReleasedArray("float32", (3, None, None), serves_as="image")}
    done: ClassVar[str] = (
        "short side resized, one square crop (at random in train, frozen; in the centre elsewhere), three channels, "
        "ImageNet mean and standard deviation"
    )
    encoder: ClassVar[Mapping[str, Any]] = {"arch": "resnet50"}
    encoder_prefix: ClassVar[str] = "cxr_encoder."
    encoder_names: ClassVar[Mapping[str, str]] = {"resnet.": ""}

    @classmethod
    def options(cls, *, shapes: Mapping[str, tuple[int, ...]], documents: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003  part of the contract
        """The side of the crops is the one of the files."""
        _, height, width = shapes[STEM]
        if height != width:
            raise SourceError(f"the release's X-rays are {height} x {width}", expected="squares")
        return {"stored": "released", "short_side": height, "long_side": height}

    def needed(self) -> tuple[str, ...]:
        """Ids, view, time, path and findings."""
        return (*NAMES, *FINDINGS)

    def columns(self, table: pd.DataFrame) -> pd.DataFrame:
        """Ids, view, time, path, findings; every picture fills its square."""
        own = {f"{self.modality.name}_{name}": table[column] for column, name in NAMES.items()}
        own[f"{self.modality.name}_time"] = read_times(table["cxr_StudyDateTime"])
        own |= {ours: table[finding] for ours, finding in self._findings.items()}
        own |= {column: pd.Series(self._side, index=table.index) for column in self.modality.input_columns}
        return pd.DataFrame(own)[list(self.modality.columns)].astype(dict(self.modality.columns))

    def table(self, samples: pd.DataFrame) -> pd.DataFrame:
        """22 columns; ViewCodeSequence_CodeMeaning is empty."""
        own = {column: samples[f"{self.modality.name}_{name}"] for column, name in NAMES.items()}
        own |= {"cxr_24_72_hr": own["cxr_dicom_id"], "study_id": own["cxr_study_id"]}
        own |= {finding: samples[ours] for ours, finding in self._findings.items()}
        return pd.DataFrame(own).reindex(columns=list(BLOCK))

    def kept(self) -> tuple[str, ...]:
        """The path and six findings."""
        return KEPT

    def unlike_published(self) -> str | None:
        """Where pictures have another size."""
        if self._side == PUBLISHED_SIDE:
            return None
        return f"X-rays are {self._side} x {self._side}; the release's are {PUBLISHED_SIDE} x {PUBLISHED_SIDE}."

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Three channels of what encoders see."""
        return {STEM: (3, self._side, self._side)}

    def write_arrays(self, arrays: Arrays, draws: NDArray[np.float64] | None) -> Arrays:
        """Exactly the encoder's input."""
        return {STEM: frozen_input(self.modality, arrays, draws)}

    @property
    def _side(self) -> int:
        assert isinstance(self.modality.options, CxrOptions)
        return self.modality.options.short_side

    @property
    def _findings(self) -> dict[str, str]:
        """Our columns of the findings -> the release's, which are CheXpert's."""
        ours = [column for column in self.modality.columns if "chexpert" in column]
        return dict(zip(ours, FINDINGS, strict=True))
