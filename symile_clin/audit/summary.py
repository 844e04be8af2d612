"""Counts of an audit as metrics, and its first lines as words for a terminal. Neither holds an id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pandas as pd

from symile_clin.audit.listed import IDENTICAL, MIX_UP, UNLIKE, first_rows
from symile_clin.schema import ROW, SPLIT, Split

#: Shares above which mix-ups are counted: a sample put together at random is above the first as often as below it.
FIT_BETTER: Final = (0.5, 0.9)
#: Shares above which the unlike are counted; of usual inputs a tenth and a hundredth are.
LESS_UNUSUAL: Final = (0.9, 0.99)


def metrics_of(lines: pd.DataFrame, *, splits: Sequence[Split]) -> dict[str, float]:
    """One flat object: `<split>/audit/<kind>[/<modality>]/<metric>`, kind in mix_up, unlike, identical.

    `n` lines, `share_mean`, and `n_share_above_<threshold>` of them; of mix-ups also `n_evidence_above_0`, those whose
    own modalities are less likely to be of one patient than to be mixed up. Of identical values only `n`.
    """
    metrics: dict[str, float] = {}
    for split in splits:
        here = lines[lines[SPLIT] == split]
        mixed = here[here["kind"] == MIX_UP]
        metrics |= _counts(mixed, f"{split}/audit/mix_up", FIT_BETTER)
        metrics[f"{split}/audit/mix_up/n_evidence_above_0"] = float((mixed["score"] > 0).sum())
        for name, unlike in here[here["kind"] == UNLIKE].groupby("modality", sort=False):
            metrics |= _counts(unlike, f"{split}/audit/unlike/{name}", LESS_UNUSUAL)
        for name in here["modality"].unique():
            if "+" not in name:
                same = here[(here["kind"] == IDENTICAL) & (here["modality"] == name)]
                metrics[f"{split}/audit/identical/{name}/n"] = float(len(same))
    return metrics


def _counts(lines: pd.DataFrame, prefix: str, thresholds: Sequence[float]) -> dict[str, float]:
    above = {f"{prefix}/n_share_above_{one:g}": float((lines["share"] > one).sum()) for one in thresholds}
    mean = {f"{prefix}/share_mean": float(lines["share"].mean())} if len(lines) else {}
    return {f"{prefix}/n": float(len(lines)), **above, **mean}


def table(
    lines: pd.DataFrame,
    listed: Mapping[str, pd.DataFrame],
    *,
    splits: Sequence[Split],
    left_out: Sequence[str],
    reference: int,
) -> str:
    """The first lines of each kind.

    Args:
        left_out: modalities that too few samples have to say what is usual.
        reference: samples that did not train the model, of which shares of the unlike are.
    """
    counts = lines.groupby("kind").size()
    rows = lines[lines["kind"].isin([MIX_UP, UNLIKE])].groupby(SPLIT)[ROW].nunique()
    said = " and ".join(f"{split} ({int(rows.get(split, 0)):,} samples)" for split in splits)
    words = [f"Audit of {said}. What is listed is a question, not a verdict; nothing was dropped."]
    words += _mix_ups(listed[MIX_UP], int(counts.get(MIX_UP, 0)))
    words += _unlike(listed[UNLIKE], int(counts.get(UNLIKE, 0)), reference)
    words += [f"  {name}: too few train or val samples have it to say what is usual" for name in left_out]
    words += _identical(listed[IDENTICAL], int(counts.get(IDENTICAL, 0)))
    if "train" in splits:
        words.append("The model was trained on the train split: it may have learned mix-ups there by heart.")
    return "\n".join(words)


def _mix_ups(listed: pd.DataFrame, total: int) -> Iterator[str]:
    yield f"Possible mix-ups, {len(listed):,} of {total:,} samples: the share of other patients' data that fit better"
    yield f"  {'split':5}  {'row':>7}  {'share':>6}  {'nats':>6}  suspected"
    for line in listed.to_dict("records"):
        suspected = f"{line['suspected']} ({line['suspicion']:.2f})" if line["suspected"] else "cannot be told"
        yield (f"  {line[SPLIT]:5}  {line[ROW]:7}  {line['share']:6.3f}  {line['score']:6.2f}  {suspected}")


def _unlike(listed: pd.DataFrame, total: int, reference: int) -> Iterator[str]:
    yield f"Unlike the training data, {len(listed):,} of {total:,} inputs; share of {reference:,} in val less unlike"
    width = max([8, *map(len, listed["modality"])])
    yield f"  {'split':5}  {'row':>7}  {'modality':{width}}  {'share':>6}  score"
    for line in listed.to_dict("records"):
        name = line["modality"]
        yield f"  {line[SPLIT]:5}  {line[ROW]:7}  {name:{width}}  {line['share']:6.3f}  {line['score']:.3f}"


def _identical(listed: pd.DataFrame, total: int) -> Iterator[str]:
    if not total:
        yield "Identical stored values under several patients: none."
        return
    yield f"Identical stored values under several patients, {len(listed):,} of {total:,} inputs:"
    for line in listed.to_dict("records"):
        yield f"  {line[SPLIT]:5}  {line[ROW]:7}  {line['modality']}, the same as row {first_rows(line['same_as'])}"
