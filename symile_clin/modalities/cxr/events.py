"""X-rays as timed events: every image of the metadata table, with its study's CheXpert labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import ibis

from symile_clin.modalities.cxr.labels import FINDING_NAMES

if TYPE_CHECKING:
    import ibis.expr.types as ir

#: Five groups of eight hexadecimal digits; anything else must not become part of a path.
DICOM_ID: Final = r"^[0-9a-f]{8}(-[0-9a-f]{8}){4}$"
#: Asked for, too: on some engines, `$` lets a line feed pass.
DICOM_ID_LENGTH: Final = 44


def xray_events(
    metadata: ir.Table, chexpert: ir.Table, *, views: Sequence[str], only_labelled: bool, suffix: str
) -> ir.Table:
    """Every image as an event.

    Args:
        views: exact values of ViewPosition that may be taken.
        only_labelled: images of studies without a CheXpert row are not eligible.
        suffix: of the images' files.

    Returns:
        subject_id, event_time, event_id, key, eligible, ineligible_reason, and the payload dicom_id, study_id, view,
        path (relative to the source), labelled, and one column per finding. Several images of one study share a time:
        event_id orders them by study, then image.
    """
    images = metadata.mutate(event_time=study_time(metadata.StudyDate, metadata.StudyTime))
    joined = images.left_join(_one_label_per_study(chexpert), "study_id")
    subject, study = joined.subject_id.cast("string"), joined.study_id.cast("string")
    labelled = joined.labelled.fill_null(False)
    well_formed = joined.dicom_id.re_search(DICOM_ID) & (joined.dicom_id.length() == DICOM_ID_LENGTH)
    reason = ibis.cases(
        (joined.subject_id.isnull() | joined.study_id.isnull() | joined.dicom_id.isnull(), "incomplete id"),
        (~well_formed, "malformed id"),
        (~joined.ViewPosition.isin(list(views)).fill_null(False), "other view"),
        (joined.event_time.isnull(), "no valid time"),
        (~labelled & only_labelled, "no label"),
        else_=ibis.null("string"),
    )
    return joined.select(
        subject_id=joined.subject_id,
        event_time=joined.event_time,
        event_id=study.lpad(12, "0") + "/" + joined.dicom_id,
        key=ibis.literal(0, "int64"),
        eligible=reason.isnull(),
        ineligible_reason=reason,
        dicom_id=joined.dicom_id,
        study_id=joined.study_id,
        view=joined.ViewPosition,
        path="files/p" + subject.substr(0, 2) + "/p" + subject + "/s" + study + "/" + joined.dicom_id + suffix,
        labelled=labelled,
        **{name: joined[name] for name in FINDING_NAMES.values()},
    )


def study_time(date: ir.IntegerValue, clock: ir.FloatingValue) -> ir.TimestampValue:
    """StudyDate (21800506) and StudyTime (213014.531, leading zeros lost) as a timestamp, null where they are none.

    The fraction of a second is cut off, as in the paper: 405.0 is 00:04:05, and 24 h and half a second is 24 h.
    """
    # NaN by name: Parquet's column statistics leave it out, so an engine may take any range for granted
    usable = ~clock.isnan() & clock.between(0, 23_59_60)
    whole = usable.ifelse(clock, ibis.null("float64")).floor()
    day, second = date.cast("string"), whole.cast("string").lpad(6, "0")
    text = (
        day.substr(0, 4) + "-" + day.substr(4, 2) + "-" + day.substr(6, 2)
        + " " + second.substr(0, 2) + ":" + second.substr(2, 2) + ":" + second.substr(4, 2)
    )  # fmt: skip
    possible = date.between(1000_01_01, 9999_12_31) & (whole <= 23_59_59)
    return possible.ifelse(text, ibis.null("string")).try_cast("timestamp(6)")


def _one_label_per_study(chexpert: ir.Table) -> ir.Table:
    """CheXpert with one row per study: a repeated study must not repeat the sample."""
    values = [chexpert[column] for column in ("subject_id", *FINDING_NAMES)]
    # nulls last by name: engines differ in where they put them
    order = [key for value in values for key in (value.isnull(), value)]
    first = ibis.row_number().over(group_by=chexpert.study_id, order_by=order)
    ranked = chexpert.mutate(_place=first)
    return ranked.filter(ranked._place == 0).select(
        "study_id", labelled=ibis.literal(True), **{name: ranked[finding] for finding, name in FINDING_NAMES.items()}
    )
