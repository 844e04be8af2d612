"""The paper's cohort by loops over rows: independent of the table expressions, slow, and easy to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

DAY = timedelta(hours=24)
Rows = Sequence[Mapping[str, Any]]


def study_time(date: Any, clock: Any) -> datetime | None:
    """HHMMSS.ffffff with leading zeros lost; the fraction is cut off."""
    if date is None or clock is None:
        return None
    whole = math.floor(clock)
    hour, minute, second = whole // 10_000, whole // 100 % 100, whole % 100
    try:
        return datetime(date // 10_000, date // 100 % 100, date % 100, hour, minute, second)
    except ValueError:
        return None


def chosen_xray(admission: Mapping[str, Any], images: Rows, missing: set[str]) -> Mapping[str, Any] | None:
    """The earliest frontal image in (24 h, 72 h] whose file is there."""
    found = []
    for image in images:
        if image["subject_id"] != admission["subject_id"] or image["ViewPosition"] not in ("AP", "PA"):
            continue
        when = study_time(image["StudyDate"], image["StudyTime"])
        if when is None or image["dicom_id"] in missing:
            continue
        if admission["admittime"] + DAY < when <= admission["admittime"] + 3 * DAY:
            found.append((when, image["study_id"], image["dicom_id"], image))
    return min(found, key=lambda one: one[:3])[3] if found else None


def chosen_ecg(admission: Mapping[str, Any], records: Rows, unusable: set[int]) -> Mapping[str, Any] | None:
    """The earliest usable record in [-24 h, 24 h]."""
    found = [
        record
        for record in records
        if record["subject_id"] == admission["subject_id"]
        and -DAY <= record["ecg_time"] - admission["admittime"] <= DAY
        and record["study_id"] not in unusable
    ]
    return min(found, key=lambda one: (one["ecg_time"], one["study_id"])) if found else None


def chosen_labs(admission: Mapping[str, Any], events: Rows, items: Sequence[int]) -> dict[int, float]:
    """The earliest number of each item in [-24 h, 24 h]; hadm_id is not looked at."""
    found: dict[int, Mapping[str, Any]] = {}
    for event in events:
        if event["subject_id"] != admission["subject_id"] or event["itemid"] not in items:
            continue
        if event["valuenum"] is None or not -DAY <= event["charttime"] - admission["admittime"] <= DAY:
            continue
        before = found.get(event["itemid"])
        own = (event["charttime"], event["labevent_id"])
        if before is None or own < (before["charttime"], before["labevent_id"]):
            found[event["itemid"]] = event
    return {item: float(event["valuenum"]) for item, event in found.items()}


def paper_cohort(
    tables: Mapping[str, Rows], *, items: Sequence[int], missing: set[str], unusable: set[int]
) -> list[dict[str, Any]]:
    """Every sample: hadm_id, age, and what is chosen, in the order (subject_id, hadm_id).

    Args:
        missing: dicom_ids without a file.
        unusable: studies of records that are all zero, constant or with missing samples.
    """
    patients = {patient["subject_id"]: patient for patient in tables["patients"]}
    labelled = {row["study_id"] for row in tables["cxr_chexpert"]}
    samples = []
    for admission in sorted(tables["admissions"], key=lambda one: (one["subject_id"], one["hadm_id"])):
        xray = chosen_xray(admission, tables["cxr_metadata"], missing)
        if xray is None or xray["study_id"] not in labelled:  # only the chosen study is looked up
            continue
        ecg = chosen_ecg(admission, tables["ecg_records"], unusable)
        labs = chosen_labs(admission, tables["labevents"], items)
        if ecg is None or not labs:
            continue
        patient = patients[admission["subject_id"]]
        samples.append(
            {
                "hadm_id": admission["hadm_id"],
                "age": patient["anchor_age"] + admission["admittime"].year - patient["anchor_year"],
                "cxr_dicom_id": xray["dicom_id"],
                "cxr_time": study_time(xray["StudyDate"], xray["StudyTime"]),
                "ecg_study_id": ecg["study_id"],
                "ecg_time": ecg["ecg_time"],
                "labs": labs,
            }
        )
    return samples
