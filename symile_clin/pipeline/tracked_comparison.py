"""A comparison in the tracking store: a parent run with everything, and a child for each difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from symile_clin.evaluation import comparison_tables as tables
from symile_clin.evaluation.comparison import Comparison
from symile_clin.evaluation.measures import query_prefix
from symile_clin.pipeline.runs import Run
from symile_clin.pipeline.tracked import open_tracker
from symile_clin.progress import Progress

#: A label of a group may not fill the name of a metric, which MLflow limits to 250 characters.
_LONGEST_LABEL: Final = 60


def track_comparison(
    tracking_uri: str,
    compared: Comparison,
    *,
    runs: Sequence[Run],
    name: str,
    files: Sequence[Path],
    default: bool,
    synthetic: bool,
    allow_remote_tracking: bool,
    progress: Progress,
) -> None:
    """Record values and differences; the runs that were compared stay where they are, the parent lists their ids.

    Args:
        runs: those that were compared, in the order in which they were named.
        name: of the comparison.
        files: of its folder; none shows single patients.
        default: whether it was asked in the way whose metrics have the short names.

    Raises:
        TrackingError: the store is not allowed.
    """
    one = compared.values[0].group.runs[0]
    labels = [_shorter(place, value.group.label) for place, value in enumerate(compared.values)]
    asked = query_prefix(one.split, one.ranked.target, one.ranked.query, one.ranked.protocol)
    metric = (f"{one.split}/{one.ranked.target}/" if default else asked) + compared.metric
    ids = {run.name: run.tracked_as or "not tracked" for run in runs}
    common: dict[str, Any] = {
        "cohort_name": one.cohort[0],
        "cohort_hash": one.cohort[1],
        "synthetic": synthetic,
        "log_patient_level": False,
        "allow_remote_tracking": allow_remote_tracking,
        "progress": progress,
    }
    tags = {"split": one.split, "metric": compared.metric, "target": one.ranked.target, "protocol": one.ranked.protocol}
    parent = open_tracker(
        tracking_uri,
        kind="compare",
        run_name=name,
        tags={**tags, "compared_runs": ", ".join(ids), "compared_run_ids": ", ".join(ids.values())},
        description=f"{tables.markdown(compared)}\n\nCompared runs, by their ids here: "
        + "; ".join(f"{run} `{run_id}`" for run, run_id in ids.items()),
        **common,
    )
    for label, value in zip(labels, compared.values, strict=True):
        numbers = {"": value.percentile.estimate, "_ci_low": value.percentile.low, "_ci_high": value.percentile.high}
        if value.seed_sd is not None:
            numbers["_seed_sd"] = value.seed_sd
        parent.metrics({f"{metric}{suffix}/{label}": number for suffix, number in numbers.items()})
    for difference in compared.differences:
        first, second = labels[difference.first], labels[difference.second]
        numbers = tables.difference_metrics(difference)
        parent.metrics({f"{metric}_{key}/{first} minus {second}": number for key, number in numbers.items()})
        child = open_tracker(
            tracking_uri,
            kind="comparison",
            run_name=f"{first} minus {second}",
            tags={**tags, "first": first, "second": second},
            parent_run_id=parent.run_id,
            **common,
        )
        child.metrics({f"{metric}_{key}": number for key, number in numbers.items()})
        child.finish()
    for file in files:
        parent.artifact(file, patient_level=False)
    parent.finish()


def _shorter(place: int, label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{tables.letter(place)} {label[:_LONGEST_LABEL]}"
