"""Chest X-rays of MIMIC-CXR-JPG, or of MIMIC-CXR's DICOMs by MIMIC-CXR-JPG's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

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
from symile_clin.modalities.cxr import encoder_options, synthetic
from symile_clin.modalities.cxr.labels import FINDING_NAMES
from symile_clin.modalities.cxr.tables import CHEXPERT, DICOM_RECORDS, DICOM_STUDIES, METADATA
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows
from symile_clin.sources import paths
from symile_clin.sources.tables import TableSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    from torch import Tensor, nn

    from symile_clin.modalities.attribution import ByLayer


#: What a picture's file name ends in, by `CxrOptions.files`.
SUFFIXES: Final = {"jpg": ".jpg", "dicom": ".dcm"}


class CxrOptions(RoomOptions):
    """Keys of an X-ray modality in a cohort spec.

    Attributes:
        views: exact ViewPosition values that may be taken.
        labelled: "chosen" drops a sample whose chosen study has no CheXpert row (the paper's rule), "candidates" lets
            only images of labelled studies be chosen, "ignore" does not ask.
        short_side: pixels of the stored picture's short side, and of the square that encoders see.
        long_side: cap of its long side; centre-cropped beyond.
        files: "jpg" of MIMIC-CXR-JPG, or "dicom" of MIMIC-CXR; the tables are MIMIC-CXR-JPG's in either case.
        dicom: how a DICOM becomes grey: "mimic_jpg" as MIMIC-CXR-JPG was made, "voi" as a viewer shows it.
        stored: "own" arrays, or those of a release that was imported: cropped and normalised once and for all.
    """

    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("AP", "PA")
    labelled: Literal["chosen", "candidates", "ignore"] = "chosen"
    short_side: Annotated[int, Field(ge=16, le=2048)] = 320
    long_side: Annotated[int, Field(ge=16, le=4096)] = 400
    files: Literal["jpg", "dicom"] = "jpg"
    dicom: Literal["mimic_jpg", "voi"] = "mimic_jpg"
    stored: Stored = "own"

    @model_validator(mode="after")
    def _long_is_longer(self) -> CxrOptions:
        if self.long_side < self.short_side:
            raise ValueError("'long_side' is less than 'short_side'")
        return self

    @model_validator(mode="after")
    def _rendering_has_files(self) -> CxrOptions:
        if self.dicom != "mimic_jpg" and self.files != "dicom":
            raise ValueError(f"'dicom: {self.dicom}' needs 'files: dicom'")
        return self


@final
class CXR(Modality):
    """One chest X-ray per sample: a grey picture in the top left corner of a square, with its valid size as columns."""

    room: ClassVar[str] = "cxr"
    Options: ClassVar[type[RoomOptions]] = CxrOptions
    Encoder: ClassVar[type[EncoderOptions]] = encoder_options.Options
    tables: ClassVar[tuple[TableSpec, ...]] = (METADATA, CHEXPERT)
    synthetic_only: ClassVar[tuple[TableSpec, ...]] = (DICOM_RECORDS, DICOM_STUDIES)
    other_files: ClassVar[Mapping[str, str]] = {DICOM_RECORDS.source: "files=dicom"}
    synthetic_factors: ClassVar[int] = synthetic.FACTORS
    after_unreadable: ClassVar[Literal["next", "drop"]] = "drop"
    options: CxrOptions

    @property
    def columns(self) -> Mapping[str, str]:
        """Ids, time, view, path, the 14 CheXpert findings, and the picture's valid size."""
        own = {
            "dicom_id": "string", "study_id": "Int64", "time": "datetime64[us]", "view": "string", "path": "string",
        }  # fmt: skip
        return {
            **{f"{self.name}_{column}": dtype for column, dtype in own.items()},
            **dict.fromkeys(self._findings, "float64"),
            **dict.fromkeys(self.input_columns, "Int64"),
        }

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Valid height and width, for the crops."""
        return (f"{self.name}_height", f"{self.name}_width")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The image."""
        return (Choice("image", f"{self.name}_dicom_id", f"{self.name}_time"),)

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """`image` (1, long side, long side): portrait and landscape both fit. A release's is (3, side, side)."""
        if self.options.stored == "released":
            return {"image": ArraySpec("float32", (3, self.options.short_side, self.options.short_side))}
        return {"image": ArraySpec("uint8", (1, self.options.long_side, self.options.long_side))}

    @property
    def _findings(self) -> tuple[str, ...]:
        prefix = "chexpert" if self.name == self.room else f"{self.name}_chexpert"
        return tuple(f"{prefix}_{name}" for name in FINDING_NAMES.values())

    # --- cohort ---

    def events(self, tables: Tables) -> ir.Table:
        """Every image; of the wrong view, without a valid time or (if asked for) a label: not eligible."""
        refuse_released(self.name, self.options.stored)
        from symile_clin.modalities.cxr.events import xray_events

        return xray_events(
            tables.table(METADATA.name),
            tables.table(CHEXPERT.name),
            views=self.options.views,
            only_labelled=self.options.labelled == "candidates",
            suffix=SUFFIXES[self.options.files],
        )

    @property
    def reads_from(self) -> str | None:
        """MIMIC-CXR-JPG, or MIMIC-CXR."""
        return DICOM_RECORDS.source if self.options.files == "dicom" else METADATA.source

    def files(self, row: Row) -> tuple[str, ...]:
        """The image."""
        return (str(row["path"]),)

    @property
    def recordings(self) -> Recordings:
        """Study, image and file, and the picture; a release's may be another crop of the same."""
        ids = {"study": f"{self.name}_study_id", "image": f"{self.name}_dicom_id", "file": f"{self.name}_path"}
        released = self.options.stored == "released"
        return Recordings(ids, ("image",), "pictures of train were cropped at random" if released else "")

    @property
    def match_columns(self) -> tuple[str, ...]:
        """The view."""
        return (f"{self.name}_view",)

    def is_valid(self, row: Row, source: Path | None) -> Refusal | None:
        """A missing file is no candidate; only then is the chosen study looked up in CheXpert."""
        if source is not None:
            path = paths.inside(source, row["path"])
            if path is None:
                return Refusal(Reason.OUTSIDE)
            try:
                if not path.is_file():
                    return Refusal(Reason.MISSING)
            except OSError as error:  # a folder that may not be looked into
                return Refusal(Reason.UNREADABLE, error.strerror or "")
        if self.options.labelled == "chosen" and not row["labelled"]:
            return Refusal(Reason.UNLABELLED, "the chosen study is not in CheXpert", then="drop")
        return None

    def read(self, row: Row, source: Path) -> dict[str, NDArray[Any]] | Refusal:
        """The picture, and its valid height and width."""
        path = paths.inside(source, row["path"])
        if path is None:
            return Refusal(Reason.OUTSIDE, then=self.after_unreadable)
        picture = self._decode(path, self.options.files, row)
        if isinstance(picture, Refusal):
            return replace(picture, then=self.after_unreadable)
        return self._stored(picture)

    def _decode(self, path: Path, files: Literal["jpg", "dicom"], row: Row) -> NDArray[np.uint8] | Refusal:
        short_side, long_side = self.options.short_side, self.options.long_side
        if files == "jpg":
            from symile_clin.modalities.cxr.preprocess import read_xray

            return read_xray(path, short_side=short_side, long_side=long_side)
        from symile_clin.modalities.cxr.dicom_reader import read_dicom

        return read_dicom(
            path, rendering=self.options.dicom, subject_id=row.get("subject_id"), study_id=row.get("study_id"),
            short_side=short_side, long_side=long_side,
        )  # fmt: skip

    def _stored(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """A picture in the top left corner of its square, and its valid size."""
        height, width = picture.shape
        image = np.zeros((1, self.options.long_side, self.options.long_side), np.uint8)
        image[0, :height, :width] = picture
        sizes = {column: np.array(size) for column, size in zip(self.input_columns, (height, width), strict=True)}
        return {"image": image, **sizes}

    def collect(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Ids, time, view, path and labels of the chosen images."""
        names = {"dicom_id": "dicom_id", "study_id": "study_id", "event_time": "time", "view": "view", "path": "path"}
        renamed = {column: f"{self.name}_{name}" for column, name in names.items()}
        renamed |= dict(zip(FINDING_NAMES.values(), self._findings, strict=True))
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
        """A black square."""
        return {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.arrays.items()}

    def summaries(self, samples: pd.DataFrame) -> list[Summary]:
        """Images per view, and the share of samples in which each finding is positive."""
        views = samples[f"{self.name}_view"].value_counts().sort_index()
        positive = {finding: float((samples[column] == 1).mean())
                    for finding, column in zip(FINDING_NAMES, self._findings, strict=True)}  # fmt: skip
        return [
            Summary(f"{self.name}: images per view", {str(view): float(n) for view, n in views.items()}),
            Summary(f"{self.name}: share of samples with the CheXpert finding", positive),
        ]

    # --- synthetic patients ---

    def write_synthetic(
        self, patient: SyntheticPatient, source: Path, rng: np.random.Generator, options: SyntheticOptions
    ) -> TableRows:
        """A chest phantom per study, and its rows of metadata and CheXpert."""
        return synthetic.write(patient, source, rng, options, name=self.name)

    def synthetic_tables(self) -> TableRows:
        """None: MIMIC-CXR has no dictionaries."""
        return synthetic.static_tables()

    # --- evaluation ---

    def read_query(self, path: Path, state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:  # noqa: ARG002  nothing is fitted
        """A JPEG of MIMIC-CXR-JPG, or a DICOM if it is called .dcm, by the rules of `read`.

        Whose picture it is, a cohort knows from its tables; here nobody says, and a DICOM's ids are not looked at.
        """
        picture = self._decode(path, "dicom" if path.suffix.lower() == SUFFIXES["dicom"] else "jpg", {})
        if isinstance(picture, Refusal):
            raise refused(path, picture)
        stored = self._stored(picture)
        if self.options.stored == "released":
            from symile_clin.modalities.cxr.encoder import released_input

            height, width = picture.shape
            stored["image"] = released_input(stored["image"], height=height, width=width, side=self.options.short_side)
            stored |= dict.fromkeys(self.input_columns, np.array(self.options.short_side))
        return stored

    def groups(self, samples: pd.DataFrame) -> dict[str, pd.Series[Any]]:
        """The view; null where the cohort does not tell it."""
        return {"view": samples.reindex(columns=self.match_columns)[self.match_columns[0]]}

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame:
        """CheXpert's findings in the study's report; a study that CheXpert lacks has no state at all."""
        named = dict(zip(self._findings, FINDING_NAMES.values(), strict=True))
        known = {column: name for column, name in named.items() if column in samples}
        return samples[list(known)].rename(columns=known).astype("float64")

    # --- training and pictures ---

    def to_input(self, arrays: Mapping[str, Tensor], draws: Tensor | None) -> Tensor:
        """(b, 3, short side, short side), cropped where `draws` say, in the centre without; a release's as it is."""
        from symile_clin.modalities.cxr.encoder import to_input

        if self.options.stored == "released":
            return arrays["image"]
        height, width = (arrays[column] for column in self.input_columns)
        return to_input(arrays["image"], height=height, width=width, side=self.options.short_side, draws=draws)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Three equal channels."""
        return (3, self.options.short_side, self.options.short_side)

    @property
    def augmentation_draws(self) -> int:
        """Two, of the crop's place; a release's pictures are cropped already."""
        return 0 if self.options.stored == "released" else 2

    def encoder(self, dim: int, options: EncoderOptions) -> nn.Module:
        """(b, 3, short side, short side) to (b, dim)."""
        from symile_clin.modalities.cxr.encoder import build

        return build(dim, options)

    def render(self, arrays: Arrays, row: Row) -> NDArray[np.uint8]:
        """The valid part of the picture, grey as RGB."""
        if self.options.stored == "released":
            from symile_clin.modalities.cxr.encoder import undo_normalisation

            return undo_normalisation(arrays["image"])
        height, width = (int(row[column]) for column in self.input_columns)
        grey = arrays["image"][0, :height, :width]
        return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)

    @property
    def attribution(self) -> ByLayer:
        """Over the square that encoders see."""
        from symile_clin.modalities.cxr.attribution import XrayAttribution

        return XrayAttribution(self, self.options.short_side)
