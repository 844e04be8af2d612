"""What other commands measured of the run: their figures and tables, as they left them."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pandas as pd
from PIL import Image

from symile_clin import files
from symile_clin.evaluation.page import Block, Details, Missing, Part, Picture, Table
from symile_clin.schema import AUDIT_DIR, INFORMATION_DIR, PROBES_DIR

#: Longer tables are cut, and say so.
LONGEST: Final = 60
#: Lines up to which a table is shown open.
OPEN: Final = 12
#: Bytes from which a figure is made smaller: to so many pixels across, and to so many colours.
LARGE: Final = 400_000
WIDEST: Final = 2_000
COLORS: Final = 128

#: Kind of measurement -> title, how to read it, the command that makes it.
KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    PROBES_DIR: (
        "Probes",
        "How well a linear model reads each finding off the embeddings, and which findings queries retrieve without "
        "being told of any: an interval that holds 0.5 (AUROC) or the finding's share (AUPRC) is no evidence.",
        "probe",
    ),
    AUDIT_DIR: (
        "Audit",
        "Samples worth a second look: those whose own parts fit worse than almost all mismatched ones, and inputs far "
        "from the training data. A suspicion is not a finding; look at the source before anything is left out.",
        "audit",
    ),
    INFORMATION_DIR: (
        "Information",
        "What modalities tell of each other, in nats: a lower bound is safe, an estimate may be off either way, and a "
        "difference of bounds bounds nothing.",
        "information",
    ),
}


def measured_parts(directories: Mapping[str, Path], *, run: str, split: str) -> list[Part]:
    """A part for each kind of measurement.

    Args:
        directories: by kind, where it would be.
    """
    return [_part(kind, directories[kind], run=run, split=split) for kind in KINDS if kind in directories]


def _part(kind: str, directory: Path, *, run: str, split: str) -> Part:
    title, reading, command = KINDS[kind]
    blocks: list[Block] = []
    if directory.is_dir():
        for path in sorted(directory.glob("*.png")):
            words = f"{title}: {_words(path)}"
            blocks.append(Picture(_small(path), f"{words}. The numbers are in the tables.", words, width=1000))
        for path in sorted(directory.glob("*.csv")):
            blocks.append(_shown(pd.read_csv(path), f"{title}: {_words(path)}"))
        if not any(directory.glob("*.csv")):
            for path in sorted(directory.glob("*.json")):
                table = metrics_table(files.read_json(path))
                if len(table):
                    blocks.append(_shown(table, f"{title}: {_words(path)}"))
    if not blocks:
        return Part(title, [Missing(f"nothing was measured yet. Run symile-clin {command} {run} --split {split}.")])
    return Part(title, [reading, *blocks])


def metrics_table(metrics: Any) -> pd.DataFrame:
    """A flat object of metrics, one line for each, with its interval."""
    if not isinstance(metrics, dict):
        return pd.DataFrame()
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    suffixed = {name for name in numbers if any(name.startswith(f"{other}_") for other in numbers)}
    lines = []
    for name in (name for name in numbers if name not in suffixed):
        low, high = numbers.get(f"{name}_ci_low"), numbers.get(f"{name}_ci_high")
        interval = "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
        words = " · ".join(name.split("/")[2:] or [name]).replace("_", " ")
        lines.append({"": words, "value": float(numbers[name]), "95 % interval": interval})
    return pd.DataFrame(lines)


def _shown(table: pd.DataFrame, words: str) -> Block:
    short = table.head(LONGEST)
    short.columns = [str(name).replace("_", " ") for name in short.columns]
    cut = (
        f" The first {LONGEST:,} of {len(table):,} lines; the rest is in the run's folder."
        if len(table) > LONGEST
        else ""
    )
    shown = Table(short, f"{words}.{cut}", small=True)
    return shown if len(short) <= OPEN else Details(f"{words}, {len(short):,} lines", [shown])


def _small(path: Path) -> bytes:
    """A PNG's bytes; of a large one those of a picture that is no larger than a page shows it, of few colours."""
    data = path.read_bytes()
    if len(data) <= LARGE:
        return data
    written = BytesIO()
    with Image.open(path) as image:
        image.thumbnail((WIDEST, 100 * WIDEST))
        image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(written, "PNG")
    return min(data, written.getvalue(), key=len)


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
