"""Events that only an id kept from being chosen: ties in time, and what they would have given."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from symile_clin.cohort.choose import Chooser
from symile_clin.modalities.base import Modality
from symile_clin.schema import KEY, SAMPLE_ID


def tied_values(parts: Mapping[str, tuple[Modality, Chooser, pd.DataFrame]]) -> pd.DataFrame:
    """What samples.parquet would hold had an event at the very time of the chosen one been taken.

    Another tool's cohort may have taken it: a difference that this table explains is no error of either.

    Args:
        parts: modality, its chooser and the events that samples take, by name.

    Returns:
        One row per event: sample_id, and the columns that show a modality's choice, all but the event's own null.
    """
    frames = [pd.DataFrame({SAMPLE_ID: pd.Series(dtype="string")})]
    for modality, chooser, chosen in parts.values():
        columns = [choice.column for choice in modality.choices]
        empty = {column: pd.Series(dtype=modality.columns[column]) for column in columns}
        frames.append(pd.DataFrame(empty))
        level = chooser.level_with(chosen)
        place = level.groupby([SAMPLE_ID, KEY]).cumcount()
        for number in range(int(place.max()) + 1 if len(place) else 0):
            one_each = level[place == number]
            values = modality.collect(one_each)[columns].rename_axis(SAMPLE_ID).reset_index()
            dtypes = {column: modality.columns[column] for column in columns}
            frames.append(values.astype({SAMPLE_ID: "string", **dtypes}))
    return pd.concat(frames, ignore_index=True)
