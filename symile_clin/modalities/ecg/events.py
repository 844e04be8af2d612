"""ECGs as timed events: every record of the record list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

if TYPE_CHECKING:
    import ibis.expr.types as ir


def ecg_events(records: ir.Table) -> ir.Table:
    """Every record as an event.

    Returns:
        subject_id, event_time, event_id (the study), key, eligible, ineligible_reason, and the payload study_id and
        path (of the WFDB record, relative to the source, without extension).
    """
    reason = ibis.cases(
        (records.subject_id.isnull() | records.study_id.isnull(), "incomplete id"),
        (records.path.isnull(), "no path"),
        (records.ecg_time.isnull(), "no valid time"),
        else_=ibis.null("string"),
    )
    return records.select(
        subject_id=records.subject_id,
        event_time=records.ecg_time,
        event_id=records.study_id,
        key=ibis.literal(0, "int64"),
        eligible=reason.isnull(),
        ineligible_reason=reason,
        study_id=records.study_id,
        path=records.path,
    )
