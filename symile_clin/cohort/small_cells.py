"""A cohort's attrition as it may be shown to others: nobody can tell how many there are of a few patients."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

#: Counts of fewer patients are withheld.
SMALLEST_CELL: Final = 10
#: In the place of a small count.
HIDDEN: Final = f"<{SMALLEST_CELL}"
#: In the place of another, from which and the total a small one would follow.
WITHHELD: Final = "withheld"


def shared_attrition(table: pd.DataFrame) -> pd.DataFrame:
    """attrition.csv without small cells.

    Its rows add up. So what is withheld must be of enough patients together: else the next smallest row (the first of
    equal ones) goes, too, and where there is none the first one, of all index events.

    Args:
        table: see `Attrition.table`.
    """
    patients = table["subjects"].to_numpy(dtype="int64")
    steps = np.arange(1, len(table) - 1)
    small = steps[patients[steps] < SMALLEST_CELL]
    large = steps[patients[steps] >= SMALLEST_CELL]
    others = [*large[np.argsort(patients[large], kind="stable")], 0]
    withheld = others[:1] if 0 < patients[small].sum() < SMALLEST_CELL else []
    shown = table.astype({"samples": object, "subjects": object})
    shown.loc[small, ["samples", "subjects"]] = HIDDEN
    shown.loc[withheld, ["samples", "subjects"]] = WITHHELD
    return shown
