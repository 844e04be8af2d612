"""Laboratory values as timed events: every row of labevents."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import ibis

if TYPE_CHECKING:
    import ibis.expr.types as ir

#: The greatest number that is finite; ibis' isinf is always false on PySpark.
LARGEST: Final = sys.float_info.max


def lab_events(labevents: ir.Table, *, items: Sequence[int]) -> ir.Table:
    """Every lab event, keyed by its item.

    Args:
        items: itemids that may be taken.

    Returns:
        subject_id, event_time (charttime), event_id (labevent_id), key (itemid), eligible, ineligible_reason, and the
        payload valuenum. hadm_id is left out: it is often empty or another admission's.
    """
    value = labevents.valuenum
    reason = ibis.cases(
        (~labevents.itemid.isin(list(items)).fill_null(False), "other item"),
        (labevents.subject_id.isnull() | labevents.labevent_id.isnull(), "incomplete id"),
        (value.isnull() | value.isnan() | (value.abs() > LARGEST), "no numeric value"),
        (labevents.charttime.isnull(), "no valid time"),
        else_=ibis.null("string"),
    )
    return labevents.select(
        subject_id=labevents.subject_id,
        event_time=labevents.charttime,
        event_id=labevents.labevent_id,
        key=labevents.itemid,
        eligible=reason.isnull(),
        ineligible_reason=reason,
        valuenum=value,
    )
