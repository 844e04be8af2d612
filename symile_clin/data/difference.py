"""Two cohorts beside each other: which samples entered, left or changed, and which rule did it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from symile_clin.data.store import Cohort
from symile_clin.modalities.base import Choice, Modality
from symile_clin.schema import ATTRITION_SAMPLES, HADM_ID, RELEASES, SAMPLE_ID, SPLIT, SUBJECT_ID, TIES, present_column

NOT_INDEXED: Final = "not among its index events"
NOT_KEPT: Final = "not known: it has no attrition.parquet"
#: Numbers are equal that differ by no more than what reading and writing decimals may do to the last bit.
LAST_BIT: Final = 1e-12

#: What became of one choice of a sample that both cohorts have.
EQUAL: Final = "equal"
TIE: Final = "tie in time"
ANOTHER: Final = "another"
ONLY_A: Final = "only in A"
ONLY_B: Final = "only in B"
OUTCOMES: Final = (EQUAL, TIE, ANOTHER, ONLY_A, ONLY_B)


@dataclass(frozen=True)
class Difference:
    """What two cohorts differ in.

    Attributes:
        counts: samples and patients of each, samples in both and in one only, their Jaccard index; of admissions, too.
        settings: key of the specs -> value in A and in B, where these differ.
        sources: the same of what the manifests say about sources.
        only_a, only_b: step and reason by which the other cohort lost them, samples.
        splits: split in A, split in B, samples; of those whose split differs.
        choices: modality, what, and a count for each of `OUTCOMES`, over the samples in both.
        samples: one row per sample and difference, patient-level: sample_id, subject_id, difference, modality, what,
            detail.
    """

    counts: Mapping[str, float]
    settings: Mapping[str, tuple[Any, Any]]
    sources: Mapping[str, tuple[Any, Any]]
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    splits: pd.DataFrame
    choices: pd.DataFrame
    samples: pd.DataFrame


def difference(
    a: Cohort, b: Cohort, *, modalities_a: Mapping[str, Modality], modalities_b: Mapping[str, Modality]
) -> Difference:
    """Compare two cohorts sample by sample; samples are the same if their sample_id is.

    A choice that differs is explained by a tie if both events have one time, or if the events that a build keeps as
    level with its own (ties.parquet) hold the other's value.
    """
    in_a, in_b = a.samples[SAMPLE_ID].astype(str), b.samples[SAMPLE_ID].astype(str)
    both = pd.Index(in_a[in_a.isin(in_b)])
    gone, come = _why(a, b, in_a[~in_a.isin(in_b)]), _why(b, a, in_b[~in_b.isin(in_a)])
    left, right = _indexed(a.samples).loc[both], _indexed(b.samples).loc[both]
    rows = [gone.assign(difference=ONLY_A), come.assign(difference=ONLY_B)]
    moved = left[SPLIT].astype(str) != right[SPLIT].astype(str)
    pairs = pd.DataFrame({"a": left.loc[moved, SPLIT].astype(str), "b": right.loc[moved, SPLIT].astype(str)})
    rows.append(_of_both(left, moved.to_numpy(), "split", detail=(pairs["a"] + " → " + pairs["b"]).tolist()))
    choices = []
    ties = [_ties(cohort) for cohort in (a, b)]
    for name, modality in modalities_a.items():
        other = modalities_b.get(name)
        if other is None or other.room != modality.room:
            continue
        known = {choice.label: choice for choice in other.choices}
        for choice in (choice for choice in modality.choices if choice.label in known):
            outcome = _compare(left, right, name, choice, known[choice.label], ties)
            counted = {one: int((outcome == one).sum()) for one in OUTCOMES}
            choices.append({"modality": name, "what": choice.label, **counted})
            changed = (outcome != EQUAL) & (outcome != "")
            rows.append(_of_both(left, changed, "choice", detail=outcome[changed].tolist(), of=(name, choice.label)))
    columns = [SAMPLE_ID, SUBJECT_ID, "difference", "modality", "what", "detail"]
    return Difference(
        counts={
            "samples_a": len(in_a),
            "samples_b": len(in_b),
            "subjects_a": int(a.samples[SUBJECT_ID].nunique()),
            "subjects_b": int(b.samples[SUBJECT_ID].nunique()),
            "both": len(both),
            "only_a": len(gone),
            "only_b": len(come),
            "jaccard": len(both) / max(len(both) + len(gone) + len(come), 1),
            "split_changed": int(moved.sum()),
            **_admissions(a, b),
        },
        settings=_unlike(_rules(a), _rules(b)),
        sources=_unlike_sources(_sources(a), _sources(b)),
        only_a=_counted(gone),
        only_b=_counted(come),
        splits=pairs.groupby(["a", "b"]).size().rename("samples").reset_index(),
        choices=pd.DataFrame(choices, columns=["modality", "what", *OUTCOMES]),
        samples=pd.concat(rows, ignore_index=True).reindex(columns=columns).astype("string"),
    )


def _admissions(a: Cohort, b: Cohort) -> dict[str, float]:
    """Overlap of admissions, which may be one where samples are of other kinds."""
    of_a, of_b = (set(cohort.samples[HADM_ID].dropna().astype(int)) for cohort in (a, b))
    return {"admissions_both": len(of_a & of_b), "admissions_jaccard": len(of_a & of_b) / max(len(of_a | of_b), 1)}


def _indexed(samples: pd.DataFrame) -> pd.DataFrame:
    return samples.set_index(samples[SAMPLE_ID].astype(str))


def _why(cohort: Cohort, other: Cohort, gone: pd.Series[str]) -> pd.DataFrame:
    """Samples of `cohort` that `other` lacks: sample_id, subject_id, step and reason of `other`, and both as detail."""
    own = _indexed(cohort.samples)[SUBJECT_ID].loc[gone.tolist()]
    frame = pd.DataFrame({SAMPLE_ID: own.index, SUBJECT_ID: own.to_numpy()})
    path = other.path / ATTRITION_SAMPLES
    if path.is_file():
        book = pd.read_parquet(path, columns=[SAMPLE_ID, "step", "reason"])
        book = book.set_index(book[SAMPLE_ID].astype(str))[["step", "reason"]].astype("string")
        found = book.reindex(frame[SAMPLE_ID]).reset_index(drop=True)
        found = found.fillna({"step": "index events", "reason": NOT_INDEXED})
    else:
        found = pd.DataFrame({"step": "", "reason": NOT_KEPT}, index=frame.index)
    return frame.assign(step=found["step"], reason=found["reason"], detail=found["step"] + ": " + found["reason"])


def _counted(why: pd.DataFrame) -> pd.DataFrame:
    """Step, reason, samples; the most first."""
    counted = why.groupby(["step", "reason"]).size().rename("samples").reset_index()
    return counted.sort_values(["samples", "step", "reason"], ascending=[False, True, True], ignore_index=True)


def _of_both(
    samples: pd.DataFrame,
    which: NDArray[np.bool_],
    difference: str,
    *,
    detail: list[str],
    of: tuple[str, str] = ("", ""),
) -> pd.DataFrame:
    part = samples.loc[which]
    columns = {SAMPLE_ID: part.index, SUBJECT_ID: part[SUBJECT_ID].to_numpy(), "difference": difference}
    return pd.DataFrame({**columns, "modality": of[0], "what": of[1], "detail": detail})


def _compare(
    left: pd.DataFrame,
    right: pd.DataFrame,
    modality: str,
    choice_a: Choice,
    choice_b: Choice,
    ties: Sequence[Mapping[str, pd.DataFrame]],
) -> NDArray[np.str_]:
    """What became of one choice in each sample that both have; empty where neither has it."""
    a, b = left[choice_a.column], right[choice_b.column]
    present_a = (left[present_column(modality)] & a.notna()).to_numpy(dtype=bool)
    present_b = (right[present_column(modality)] & b.notna()).to_numpy(dtype=bool)
    outcome = np.full(len(left), "", dtype="<U12")
    outcome[present_a & ~present_b] = ONLY_A
    outcome[~present_a & present_b] = ONLY_B
    here = present_a & present_b
    outcome[here] = np.where(_same(a[here], b[here]), EQUAL, ANOTHER)
    level = np.zeros(len(left), dtype=bool)
    if choice_a.time is not None and choice_b.time is not None:
        level |= (left[choice_a.time] == right[choice_b.time]).to_numpy(dtype=bool, na_value=False)
    for own, theirs, column in ((ties[0], b, choice_a.column), (ties[1], a, choice_b.column)):
        level |= _among(own.get(column), theirs)
    outcome[level & (outcome == ANOTHER)] = TIE
    return outcome


def _same(a: pd.Series[Any], b: pd.Series[Any]) -> NDArray[np.bool_]:
    """Whether two columns without nulls are equal, place by place."""
    if pd.api.types.is_float_dtype(a.dtype) and pd.api.types.is_float_dtype(b.dtype):
        same: NDArray[np.bool_] = np.isclose(a.to_numpy(np.float64), b.to_numpy(np.float64), rtol=LAST_BIT, atol=0)
        return same
    return np.array([one == other for one, other in zip(a, b, strict=True)], dtype=bool)


def _ties(cohort: Cohort) -> dict[str, pd.DataFrame]:
    """Column -> sample_id and the values that events level with the chosen one would have given."""
    path = cohort.path / TIES
    if not path.is_file():
        return {}
    table = pd.read_parquet(path)
    table[SAMPLE_ID] = table[SAMPLE_ID].astype(str)
    return {
        str(column): table.loc[table[column].notna(), [SAMPLE_ID, column]].rename(columns={column: "value"})
        for column in table.columns
        if column != SAMPLE_ID
    }


def _among(ties: pd.DataFrame | None, values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Whether each sample's value is one of its ties."""
    if ties is None:
        return np.zeros(len(values), dtype=bool)
    level = ties[ties[SAMPLE_ID].isin(values.index[values.notna()])]
    match = _same(level["value"], values.loc[level[SAMPLE_ID]])
    found: NDArray[np.bool_] = values.index.isin(level.loc[match, SAMPLE_ID])
    return found


def _sources(cohort: Cohort) -> dict[str, str]:
    """What the manifest says about sources, one line each; times of change are left out."""
    manifest = cohort.manifest
    releases = {source: _release(told) for source, told in manifest.get("inputs", {}).get(RELEASES, {}).items()}
    if "source" in manifest:
        return {"made from": str(manifest["source"])}
    inputs = manifest.get("inputs", {})
    tables = {
        f"table {entry['table']}": ", ".join(
            f"{value:,} {key}" if isinstance(value, int) else str(value)
            for key, value in entry.items()
            if key not in ("table", "changed_ns")
        )
        for entry in inputs.get("tables", [])
    }
    made = ", ".join(releases.values()) or "tables"
    return {"made from": made, "program": str(inputs.get("version", "-")), **tables}


def _release(told: Mapping[str, Any]) -> str:
    if told.get("synthetic"):
        return f"synthetic {told['name']}"
    return f"{told['name']} {told.get('version') or '(version unknown)'}"


def _unlike_sources(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    """Line by line; of tables only where both cohorts were made from tables."""
    shared = a.keys() & b.keys() if "program" not in a or "program" not in b else a.keys() | b.keys()
    return {key: pair for key, pair in _unlike(a, b).items() if key in shared}


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)}


def _rules(cohort: Cohort) -> dict[str, Any]:
    """The spec, flat, without what changes no sample."""
    return {key: value for key, value in _flat(cohort.spec).items() if key not in ("name", "preset")}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
