"""Which samples have a modality by a key of theirs, instead of by events in a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import pandas as pd

from symile_clin.cohort.attrition import Attrition, Refused
from symile_clin.cohort.choose import Chosen, records
from symile_clin.cohort.index import FURTHER_COLUMN
from symile_clin.cohort.spec import INDEX_KEYS
from symile_clin.errors import CohortError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import INDEX_ROW, Linked, as_text
from symile_clin.schema import EVENT_ID, EVENT_TIME, KEY, RANK, SAMPLE_ID

IN_COHORT: Final = "in the cohort"
OF_NO_SAMPLE: Final = "of no sample of the cohort"


def further_keys(modalities: Mapping[str, Modality]) -> tuple[str, ...]:
    """Columns of a named index table, or "index_row", by which modalities are linked, beside those of every sample."""
    own = {column for one in modalities.values() if not isinstance(one, Linked) for column in one.columns}
    keys = [one.key for one in modalities.values() if isinstance(one, Linked) and one.key not in {*own, *INDEX_KEYS}]
    return tuple(dict.fromkeys(keys))


def key_column(modality: Linked, columns: Iterable[str]) -> str | None:
    """Which of some columns holds a modality's key; None if it is another's, chosen later."""
    return next((column for column in (modality.key, FURTHER_COLUMN + modality.key) if column in columns), None)


def link(modality: Linked, samples: pd.DataFrame, column: str, attrition: Attrition) -> Chosen:
    """The events that samples find by their key; one event may be of several samples.

    Args:
        samples: those that are still in.
        column: of `samples`, with the key.

    Raises:
        CohortError: no sample finds any, or rows are counted and their number is another.
    """
    rows = modality.rows()
    if modality.key == INDEX_ROW and len(rows) != attrition.possible:
        raise CohortError(
            f"{modality.paths[0]} has {len(rows):,} rows, and the index table has {attrition.possible:,}",
            expected="as many, as row i belongs to row i",
            remedy="Give the file's keys with 'ids' if its rows are others",
        )
    known = rows[rows[EVENT_ID].notna()].set_index(EVENT_ID)
    values = as_text(samples[column], what=f"values of {modality.key}")
    keys = pd.Series(values, index=samples[SAMPLE_ID], dtype="string")
    found = keys[keys.isin(known.index)]
    if not len(found):
        raise CohortError(
            f"none of {len(samples):,} samples has a {modality.key} that is in {modality.paths[-1]}",
            remedy=f"Check modalities.{modality.name}.key, and that the file is of these samples",
        )
    events = pd.DataFrame(
        {
            SAMPLE_ID: found.index,
            EVENT_ID: found.to_numpy(),
            "fault": known["fault"].loc[found].to_numpy(),
            KEY: 0,
            RANK: 1,
            EVENT_TIME: pd.array([pd.NaT] * len(found), dtype="datetime64[us]"),
        }
    ).astype({SAMPLE_ID: "string", EVENT_ID: "string"})
    refused = events["fault"] != ""
    reasons = dict.fromkeys(samples[SAMPLE_ID], f"no row of its {modality.key}")
    for row in records(events[refused]):
        refusal = modality.is_valid(row, None)
        if refusal is not None:
            attrition.refuse(modality.name, row, refusal)
            reasons[row[SAMPLE_ID]] = str(refusal.reason)
    taken = events[~refused].reset_index(drop=True)
    has = set(taken[SAMPLE_ID])
    return Chosen(taken, {sample: why for sample, why in reasons.items() if sample not in has})


def count_linked(
    modality: Linked, *, samples: pd.DataFrame, chosen: pd.DataFrame, refused: Iterable[Refused]
) -> pd.DataFrame:
    """Count each event once, as `events.count_events` does: in the cohort, refused, or of no sample."""
    rows = modality.rows()
    taken = set(chosen.loc[chosen[SAMPLE_ID].isin(samples[SAMPLE_ID]), EVENT_ID])
    gone = {str(one.event_id): f"refused: {one.refusal.reason}" for one in refused if one.modality == modality.name}
    counts = Counter({IN_COHORT: 0, OF_NO_SAMPLE: 0})
    for key in rows[EVENT_ID]:
        if pd.isna(key):
            counts[f"not eligible: no {modality.key}"] += 1
        else:
            counts[IN_COHORT if key in taken else gone.get(key, OF_NO_SAMPLE)] += 1
    return pd.DataFrame(
        [(modality.name, reason, events) for reason, events in counts.items()], columns=["modality", "reason", "events"]
    )
