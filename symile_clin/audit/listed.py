"""What an audit found, one line per sample, modality and kind of doubt, and which of the lines are shown first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.audit.mismatch import Mismatch
from symile_clin.audit.unlike import Values
from symile_clin.schema import ROW, SPLIT

#: A sample whose modalities may not belong together, and what each of them by itself adds to that.
MIX_UP: Final = "mix-up"
MISMATCH: Final = "mismatch"
#: An input far from the training data; the same stored values under several patients.
UNLIKE: Final = "unlike"
IDENTICAL: Final = "identical"

#: Columns of audit.csv. `suspicion` is the chance that `suspected` (of a mix-up), or `modality`, is the wrong one.
COLUMNS: Final = (ROW, SPLIT, "modality", "kind", "score", "share", "suspected", "suspicion", "same_as")
#: A modality is named as the suspected one where it is likelier than all others together.
NAMED_FROM: Final = 0.5


def mix_up_lines(found: Mismatch, rows: NDArray[np.int64], *, split: str) -> pd.DataFrame:
    """One line per sample, and one per modality of it; none of samples with nothing to compare."""
    scored = found.scored
    chance = np.where(np.isnan(found.suspicion), 0.0, found.suspicion)
    first = chance.argmax(axis=1)
    largest = chance[np.arange(len(rows)), first]
    whole = pd.DataFrame(
        {
            ROW: rows,
            "modality": ["+".join(name for name, it in zip(found.names, line, strict=True) if it)
                         for line in ~np.isnan(found.share)],
            "kind": MIX_UP,
            "score": found.mean_evidence,
            "share": found.mean_share,
            "suspected": np.where(largest > NAMED_FROM, np.array(found.names)[first], ""),
            "suspicion": np.where(largest > NAMED_FROM, largest, np.nan),
        }
    )[scored]  # fmt: skip
    single = [
        pd.DataFrame(
            {
                ROW: rows,
                "modality": name,
                "kind": MISMATCH,
                "score": found.evidence[:, column],
                "share": found.share[:, column],
                "suspicion": found.suspicion[:, column],
            }
        )[~np.isnan(found.share[:, column])]
        for column, name in enumerate(found.names)
    ]
    return _lines([whole, *single], split=split)


def unlike_lines(name: str, rows: NDArray[np.int64], scores: Values, shares: Values, *, split: str) -> pd.DataFrame:
    """One line per sample that has a modality."""
    frame = pd.DataFrame({ROW: rows, "modality": name, "kind": UNLIKE, "score": scores, "share": shares})
    return _lines([frame], split=split)


def identical_lines(
    name: str, rows: NDArray[np.int64], same: Mapping[int, tuple[int, ...]], *, split: str
) -> pd.DataFrame:
    """One line per sample of `rows` whose values of a modality another patient's sample has, too."""
    here = [row for row in rows.tolist() if row in same]
    frame = pd.DataFrame(
        {
            ROW: np.array(here, dtype=np.int64),
            "modality": name,
            "kind": IDENTICAL,
            "score": [float(len(same[row])) for row in here],
            "same_as": [" ".join(map(str, same[row])) for row in here],
        }
    )
    return _lines([frame], split=split)


def foremost(lines: pd.DataFrame, kind: str, top: int) -> pd.DataFrame:
    """The first lines of a kind: largest share first, then largest score."""
    return (
        lines[lines["kind"] == kind]
        .sort_values(["share", "score", ROW], ascending=[False, False, True], kind="stable")
        .head(top)
    )


def first_rows(same_as: str, count: int = 3) -> str:
    """The first rows of `same_as`, and how many more there are."""
    rows = same_as.split()
    more = f" and {len(rows) - count:,} more" if len(rows) > count else ""
    return ", ".join(rows[:count]) + more


def _lines(frames: list[pd.DataFrame], *, split: str) -> pd.DataFrame:
    whole = pd.concat([frame.assign(**{SPLIT: split}) for frame in frames], ignore_index=True)
    for column, empty in (("share", np.nan), ("suspicion", np.nan), ("suspected", ""), ("same_as", "")):
        whole[column] = whole[column].fillna(empty) if column in whole else empty
    return whole[list(COLUMNS)]
