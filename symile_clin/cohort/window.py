"""The one interval join: which events lie in a sample's window, and in which order they may be taken."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, assert_never

import ibis

from symile_clin.schema import EVENT_ID, EVENT_TIME, INDEX_TIME, KEY, RANK, SAMPLE_ID, SUBJECT_ID

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MICROSECOND: Final = timedelta(microseconds=1)


def inside(
    index: ir.Table, events: ir.Table, *, start: timedelta, end: timedelta, include_start: bool, include_end: bool
) -> ir.BooleanValue:
    """The join condition: same patient, and index time + start <(=) event time <(=) index time + end.

    Exact to the microsecond. Events are matched on the patient and the time only, never on an admission's id, which is
    often missing or another's in MIMIC.
    """
    first = index[INDEX_TIME] + ibis.interval(microseconds=start // _MICROSECOND)
    last = index[INDEX_TIME] + ibis.interval(microseconds=end // _MICROSECOND)
    time = events[EVENT_TIME]
    after = time >= first if include_start else time > first
    before = time <= last if include_end else time < last
    return (index[SUBJECT_ID] == events[SUBJECT_ID]) & after & before


def rank_events(
    index: ir.Table,
    events: ir.Table,
    *,
    start: timedelta,
    end: timedelta,
    include_start: bool,
    include_end: bool,
    take: Literal["earliest", "latest", "nearest"],
) -> ir.Table:
    """Events in each sample's window, ranked 1, 2, ... within (sample_id, key) in the order `take` asks for.

    The order is total, so that it never hangs on the order of a file: ties in time are broken by event_id, and ties in
    distance ("nearest") by time, then event_id. Where a damaged table has an event_id twice, its payload decides.

    Args:
        index: sample_id, subject_id, index_time.
        events: subject_id, event_time, event_id, key and payload; only events that may be taken.

    Returns:
        sample_id, rank and the columns of `events`.
    """
    condition = inside(index, events, start=start, end=end, include_start=include_start, include_end=include_end)
    own = [events[name] for name in events.columns if name != SUBJECT_ID]
    joined = index.inner_join(events, condition).select(index[SAMPLE_ID], index[SUBJECT_ID], index[INDEX_TIME], *own)
    order: list[ir.Value] = [joined[EVENT_TIME], joined[EVENT_ID]]
    match take:
        case "earliest":
            pass
        case "latest":
            order[0] = joined[EVENT_TIME].desc()
        case "nearest":
            order.insert(0, joined[EVENT_TIME].delta(joined[INDEX_TIME], unit="microsecond").abs())
        case _:
            assert_never(take)
    payload = [joined[name] for name in events.columns if name not in (SUBJECT_ID, EVENT_TIME, EVENT_ID, KEY)]
    # nulls last by name: engines differ in where they put them
    order += [key for value in payload for key in (value.isnull(), value)]
    # row_number counts from 0
    rank = 1 + ibis.row_number().over(group_by=[joined[SAMPLE_ID], joined[KEY]], order_by=order)
    return joined.mutate(**{RANK: rank}).drop(INDEX_TIME)


def without_repeats(ranked: ir.Table) -> ir.Table:
    """Ranked events, each event_id once within (sample_id, key): the first of those that a damaged table repeats."""
    place = ibis.row_number().over(group_by=[ranked[SAMPLE_ID], ranked[KEY], ranked[EVENT_ID]], order_by=[ranked[RANK]])
    return ranked.mutate(_place=place).filter(lambda table: table["_place"] == 0).drop("_place")
