"""Synthetic X-rays as MIMIC-CXR holds them: 12-bit DICOM, some with inverted greys."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def write_dicom(
    path: Path,
    stored: NDArray[np.uint16],
    *,
    dicom_id: str,
    subject_id: int,
    study_id: int,
    time: datetime,
    view: str,
    inverted: bool,
) -> None:
    """Write one film's 12-bit values, (rows, columns), as they are; `inverted`: MONOCHROME1, 0 is the brightest."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[dicom_id])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[str(study_id)])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[str(study_id), dicom_id])
    dataset.PatientID, dataset.StudyID = str(subject_id), str(study_id)
    dataset.Modality, dataset.ViewPosition = "DX", view
    dataset.StudyDate, dataset.StudyTime = f"{time:%Y%m%d}", f"{time:%H%M%S}.{time.microsecond // 1000:03d}"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PixelData = stored.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
