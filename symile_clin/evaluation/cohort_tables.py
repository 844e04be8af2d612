"""What is in a cohort, as small tables."""

from __future__ import annotations

import pandas as pd

from symile_clin.modalities.base import Summary
from symile_clin.schema import AGE, GENDER, SPLIT, SPLITS, SUBJECT_ID


def table_text(table: pd.DataFrame) -> str:
    """A table as aligned text: words to the left, numbers to the right with separators."""
    numeric = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table.columns}
    cells = {name: [number(value) if numeric[name] else str(value) for value in table[name]] for name in table.columns}
    widths = {name: max(len(text) for text in [str(name), *cells[name]]) for name in cells}

    def line(texts: dict[str, str]) -> str:
        padded = (
            text.rjust(widths[name]) if numeric[name] else text.ljust(widths[name]) for name, text in texts.items()
        )
        return "  ".join(padded).rstrip()

    rows = [{name: cells[name][i] for name in cells} for i in range(len(table))]
    return "\n".join([line({name: str(name) for name in cells}), *map(line, rows)])


def split_table(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples, patients, sexes and ages of each split and of all."""
    parts = [(split, samples[samples[SPLIT] == split]) for split in SPLITS] + [("all", samples)]
    rows = [
        {
            "split": name,
            "samples": len(part),
            "subjects": part[SUBJECT_ID].nunique(),
            **{f"sex {sex}": int((part[GENDER] == sex).sum()) for sex in sorted(samples[GENDER].dropna().unique())},
            **({"median age": float(part[AGE].median())} if samples[AGE].notna().any() else {}),
        }
        for name, part in parts
    ]
    return pd.DataFrame(rows)


def summary_table(summary: Summary) -> pd.DataFrame:
    """A modality's summary: what, and its value."""
    return pd.DataFrame({"": list(summary.values), "value": list(summary.values.values())})


def number(value: float) -> str:
    """A count with separators, or a measure with three digits or so."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
