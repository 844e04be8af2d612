"""An engine's answer as a frame: the same types, whichever engine gave it."""

from __future__ import annotations

from typing import Final

import pandas as pd
import pyarrow as pa

#: Nulls stay nulls: integers and text have missing values of their own.
PANDAS_TYPES: Final = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype()}


def to_frame(answer: pa.Table) -> pd.DataFrame:
    """Integers become Int64, text string, times datetime64[us], numbers float64."""
    frame: pd.DataFrame = answer.to_pandas(types_mapper=PANDAS_TYPES.get)
    return frame
