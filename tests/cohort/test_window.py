"""The interval join against pandas, row by row, on random tables full of ties and borders."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from symile_clin.cohort.window import rank_events
from symile_clin.rng import stream

Take = Literal["earliest", "latest", "nearest"]
START = datetime(2150, 1, 1)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


def random_tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Few patients, few distinct times, many of them exactly on or a microsecond beside a border."""
    rng = stream(seed, "test", "window")
    index = pd.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(12)],
            "subject_id": rng.integers(0, 4, 12),
            "index_time": [START + int(rng.integers(0, 4)) * 24 * HOUR for _ in range(12)],
        }
    )
    offsets = [-24 * HOUR, 24 * HOUR, 72 * HOUR, 0 * HOUR, 30 * HOUR]
    nudges = [-MICROSECOND, timedelta(0), timedelta(0), MICROSECOND]
    times = [
        START + int(rng.integers(0, 4)) * 24 * HOUR + offsets[rng.integers(5)] + nudges[rng.integers(4)]
        for _ in range(80)
    ]
    events = pd.DataFrame(
        {
            "subject_id": rng.integers(0, 5, 80),
            "event_time": times,
            "event_id": rng.permutation(80),
            "key": rng.integers(0, 3, 80),
            "payload": rng.normal(size=80),
        }
    )
    return index, events


def oracle(
    index: pd.DataFrame, events: pd.DataFrame, *, start: timedelta, end: timedelta, include_start: bool,
    include_end: bool, take: Take,
) -> pd.DataFrame:  # fmt: skip
    rows = []
    for _, sample in index.iterrows():
        per_key: dict[int, list[pd.Series]] = {}
        for _, event in events.iterrows():
            if event["subject_id"] != sample["subject_id"]:
                continue
            distance = event["event_time"] - sample["index_time"]
            after = distance >= start if include_start else distance > start
            before = distance <= end if include_end else distance < end
            if after and before:
                per_key.setdefault(event["key"], []).append(event)
        for found in per_key.values():
            found.sort(key=lambda one: one["event_id"])
            found.sort(key=lambda one: one["event_time"], reverse=take == "latest")
            if take == "nearest":
                found.sort(key=lambda one: abs(one["event_time"] - sample["index_time"]))
            for rank, event in enumerate(found, start=1):
                rows.append({"sample_id": sample["sample_id"], **event, "rank": rank})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("take", ["earliest", "latest", "nearest"])
@pytest.mark.parametrize("include_start", [False, True])
@pytest.mark.parametrize("include_end", [False, True])
def test_ranks_are_those_of_the_row_by_row_join(take: Take, include_start: bool, include_end: bool) -> None:
    for seed, (start, end) in enumerate([(24, 72), (-24, 24)]):
        index, events = random_tables(seed)
        window: dict[str, Any] = {"start": start * HOUR, "end": end * HOUR}
        window |= {"include_start": include_start, "include_end": include_end}
        expected = oracle(index, events, **window, take=take)
        shuffled = events.sample(frac=1, random_state=seed)
        ranked = rank_events(_table(index), _table(shuffled), **window, take=take)
        found = _run(ranked)
        assert len(expected) > 20
        order = ["sample_id", "key", "rank"]
        columns = [*order, "event_id", "event_time", "subject_id", "payload"]
        pd.testing.assert_frame_equal(
            found.sort_values(order)[columns].reset_index(drop=True),
            expected.sort_values(order)[columns].reset_index(drop=True),
            check_dtype=False,
        )


@pytest.mark.parametrize(
    ("take", "order"), [("earliest", [2, 5, 1, 9]), ("latest", [9, 1, 2, 5]), ("nearest", [2, 5, 1, 9])]
)
def test_ties_by_hand(take: Take, order: list[int]) -> None:
    """5 and 2 at −1 h, 1 at +1 h, 9 at +2 h: equal times go by id, and equal distances by time first."""
    index = pd.DataFrame({"sample_id": ["a"], "subject_id": [1], "index_time": [START]})
    times = [START - HOUR, START + 2 * HOUR, START + HOUR, START - HOUR]
    events = pd.DataFrame({"subject_id": 1, "event_time": times, "event_id": [5, 9, 1, 2], "key": 0})
    ranked = rank_events(
        _table(index), _table(events), start=-3 * HOUR, end=3 * HOUR, include_start=True, include_end=True, take=take
    )
    assert _run(ranked.order_by("rank"))["event_id"].tolist() == order


def test_text_ids_order_as_bytes() -> None:
    index = pd.DataFrame({"sample_id": ["a"], "subject_id": [1], "index_time": [START]})
    events = pd.DataFrame({"subject_id": 1, "event_time": START, "event_id": ["b", "B", "a", "10", "9"], "key": 0})
    ranked = rank_events(
        _table(index), _table(events), start=-HOUR, end=HOUR, include_start=True, include_end=True, take="earliest"
    )
    assert _run(ranked.order_by("rank"))["event_id"].tolist() == ["10", "9", "B", "a", "b"]


def _run(ranked: ibis.Table) -> pd.DataFrame:
    """Rows of an expression, by an engine that is closed again."""
    engine = ibis.duckdb.connect()
    try:
        frame: pd.DataFrame = engine.to_pyarrow(ranked).to_pandas()
        return frame
    finally:
        engine.disconnect()


def _table(frame: pd.DataFrame) -> ibis.Table:
    times = {name: "datetime64[us]" for name in frame.columns if name.endswith("_time")}
    assert np.isin(list(times), frame.columns).all()
    return ibis.memtable(pa.Table.from_pandas(frame.astype(times), preserve_index=False))
