"""Synthetic chest X-rays: studies, films with planted findings, and the tables and files of MIMIC-CXR-JPG."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from symile_clin.modalities.cxr import phantom
from symile_clin.modalities.cxr.grey import published_grey
from symile_clin.modalities.cxr.tables import CHEXPERT, DICOM_RECORDS, DICOM_STUDIES, METADATA
from symile_clin.modalities.synthetic_ids import scattered_id
from symile_clin.modalities.synthetic_patient import SyntheticOptions, SyntheticPatient, TableRows

FACTORS: Final = 4  #: enlarged heart, perihilar edema, pleural effusion, upper right consolidation

# How much films differ for other reasons.
NOISE: Final = 0.008
TILT: Final = 0.02  #: standard deviation, radians
ZOOM: Final = 0.03
SHIFT: Final = 0.03  #: in half-widths of the film

# Studies of an admission: hours after admittime, and how often there is one.
STUDIES: Final = (
    (-6.0, 20.0, 0.20),  # on admission, before the window
    (24.3, 71.5, 0.93),
    (24.3, 71.5, 0.15),  # a second one in the window
    (74.0, 160.0, 0.15),
)
#: Views of a study's images, and how often. Two images of one study share its time.
VIEWS: Final = (
    (("AP",), 0.66),
    (("PA",), 0.07),
    (("PA", "LATERAL"), 0.10),
    (("PA", "LL"), 0.05),
    (("AP", "AP"), 0.05),
    (("LATERAL",), 0.04),
    (("",), 0.03),
)
SHARE_LANDSCAPE: Final = 0.15
SHARE_UNCERTAIN: Final = 0.08  #: of positive labels
SHARE_MONOCHROME1: Final = 0.2
WHITE: Final = 4095  #: of 12 bits
DARKEST, BRIGHTEST = 100, 3900


def write(
    patient: SyntheticPatient, source: Path, rng: np.random.Generator, options: SyntheticOptions, *, name: str
) -> TableRows:
    """Write one patient's X-rays below `source`; the rows of their tables.

    Args:
        patient: whose admissions' `factors[name]` are shown.
        source: root of MIMIC-CXR-JPG; DICOM files go to its sibling `mimic-cxr`.
    """
    metadata: list[dict[str, Any]] = []
    chexpert: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    studies: list[dict[str, Any]] = []
    folder = f"files/p{patient.subject_id // 1_000_000}/p{patient.subject_id}"
    # What shows the findings draws from spawned streams, so that nothing else can depend on them.
    for admission in patient.admissions:
        findings = admission.factors[name]
        for time in _study_times(rng, admission.admittime):
            study_id = scattered_id(50_000_000, patient.index, len(studies))
            ids = {"subject_id": patient.subject_id, "study_id": study_id}
            studies.append({**ids, "path": f"{folder}/s{study_id}.txt"})
            views = VIEWS[rng.choice(len(VIEWS), p=[share for _, share in VIEWS])][0]
            for view in views:
                dicom_id = "-".join(f"{part:08x}" for part in rng.integers(0, 1 << 32, 5))
                film = _film(rng.spawn(1)[0], findings, patient.nuisance[:4], view, full_size=options.full_size)
                path = f"{folder}/s{study_id}/{dicom_id}"
                fault = rng.random() / options.dirt if options.dirt else 1.0
                inverted = bool(rng.random() < SHARE_MONOCHROME1)
                stored = WHITE - film if inverted else film
                _write_jpg(source / f"{path}.jpg", stored, inverted=inverted, fault=fault)
                if options.dicom:
                    from symile_clin.modalities.cxr.dicom import write_dicom

                    write_dicom(
                        source.parent / "mimic-cxr" / f"{path}.dcm",
                        stored, dicom_id=dicom_id, subject_id=patient.subject_id, study_id=study_id, time=time,
                        view=view, inverted=inverted,
                    )  # fmt: skip
                    records.append({**ids, "dicom_id": dicom_id, "path": f"{path}.dcm"})
                metadata.append({**ids, "dicom_id": dicom_id, **_describe(view, views, time, film)})
            labels = {**ids, **_labels(rng.spawn(1)[0], findings)}
            copies = 0 if rng.random() < 0.6 * options.dirt else 2 if rng.random() < 0.5 * options.dirt else 1
            chexpert.extend([labels] * copies)
    tables = {METADATA.name: metadata, CHEXPERT.name: chexpert}
    return tables | ({DICOM_RECORDS.name: records, DICOM_STUDIES.name: studies} if options.dicom else {})


def static_tables() -> TableRows:
    """No rows without a patient."""
    return {}


def _study_times(rng: np.random.Generator, admittime: datetime) -> list[datetime]:
    hours = [rng.uniform(first, last) for first, last, share in STUDIES if rng.random() < share]
    # to the millisecond, as StudyTime is
    return [admittime + timedelta(milliseconds=round(float(hour) * 3_600_000)) for hour in hours]


def _describe(view: str, views: Sequence[str], time: datetime, film: NDArray[np.uint16]) -> dict[str, Any]:
    """Columns of the metadata table; StudyTime is a number, so its leading zeros are lost."""
    procedure = "CHEST (PA AND LAT)" if "PA" in views else "CHEST (PORTABLE AP)"
    meaning = {"AP": "antero-posterior", "PA": "postero-anterior", "": ""}.get(view, "lateral")
    return {
        "PerformedProcedureStepDescription": procedure,
        "ViewPosition": view,
        "Rows": film.shape[0],
        "Columns": film.shape[1],
        "StudyDate": int(f"{time:%Y%m%d}"),
        "StudyTime": round(int(f"{time:%H%M%S}") + time.microsecond / 1e6, 3),
        "ProcedureCodeSequence_CodeMeaning": procedure,
        "ViewCodeSequence_CodeMeaning": meaning,
        "PatientOrientationCodeSequence_CodeMeaning": "Erect" if "PA" in views else "",
    }


def _labels(rng: np.random.Generator, findings: Sequence[int]) -> dict[str, float | None]:
    """CheXpert labels that agree with what is shown: 1.0, seldom -1.0; 0.0 or no mention where it is not."""
    enlarged, edema, effusion, consolidation = findings
    shown = {
        "Cardiomegaly": enlarged,
        "Pleural Effusion": effusion,
        "Consolidation": consolidation,
        "Edema": edema,
        "Lung Opacity": consolidation or edema,
        "Pneumothorax": 0,
        "Fracture": 0,
    }
    labels: dict[str, float | None] = {}
    for finding, present in shown.items():
        if present:
            labels[finding] = -1.0 if rng.random() < SHARE_UNCERTAIN else 1.0
        else:
            labels[finding] = 0.0 if rng.random() < 0.3 else None
    labels["Pneumonia"] = -1.0 if consolidation and rng.random() < 0.6 else None
    labels["Atelectasis"] = 1.0 if effusion and rng.random() < 0.4 else None
    labels["No Finding"] = None if any(findings) else 1.0
    return labels


def _film(
    rng: np.random.Generator, findings: Sequence[int], habitus: Sequence[float], view: str, *, full_size: bool
) -> NDArray[np.uint16]:
    """One film of 12 bits; bright is dense."""
    long, short = (3050, 2500) if full_size else (624, 512)
    rows, columns = (short, long) if rng.random() < SHARE_LANDSCAPE else (long, short)
    draw = phantom.lateral if view in ("LATERAL", "LL") else phantom.frontal
    image = phantom.place(
        draw(rng, findings, habitus),
        rows=rows,
        columns=columns,
        tilt=float(rng.normal(0, TILT)),
        zoom=(float(rng.normal(1, ZOOM)), float(rng.normal(1, ZOOM))),
        shift=(float(rng.normal(0, SHIFT)), float(rng.normal(0, SHIFT))),
    )
    image = image + np.float32(NOISE) * rng.standard_normal(image.shape, dtype=np.float32)
    film: NDArray[np.uint16] = np.clip(image * BRIGHTEST + DARKEST, DARKEST, BRIGHTEST).astype(np.uint16)
    # The marker names the patient's side it lies on; the patient's left is on the image's right.
    on_right = bool(rng.random() < 0.5)
    marker = _marker("L" if on_right else "R", short // 22)
    top, margin = round(rows * rng.uniform(0.03, 0.09)), round(columns * rng.uniform(0.04, 0.08))
    left = columns - margin - marker.shape[1] if on_right else margin
    film[top : top + marker.shape[0], left : left + marker.shape[1]][marker] = BRIGHTEST
    return film


@functools.cache
def _marker(letter: str, size: int) -> NDArray[np.bool_]:
    """The lead letter that tells the side."""
    image = Image.new("L", (size, size + size // 3))
    ImageDraw.Draw(image).text((size // 6, 0), letter, fill=255, font=ImageFont.load_default(size))
    return np.asarray(image) > 127


def _write_jpg(path: Path, stored: NDArray[np.uint16], *, inverted: bool, fault: float) -> None:
    """Write the film, or leave it out or cut it short, each in half of the faulty cases (`fault` below 1)."""
    if fault < 0.5:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(published_grey(stored, inverted=inverted)).save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    path.write_bytes(data[: len(data) // 3] if fault < 1 else data)
