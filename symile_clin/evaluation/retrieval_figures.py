"""The figures of an evaluation's own question: the cohort's target from all other modalities over its fixed lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from symile_clin.evaluation import figures
from symile_clin.evaluation.ablation import contributions
from symile_clin.evaluation.bootstrap import RESAMPLES, Interval, resample_clusters, resample_queries
from symile_clin.evaluation.measures import patient_stream, query_stream
from symile_clin.evaluation.ranked import Ranked
from symile_clin.schema import Split

RANK_HISTOGRAM: Final = "rank_histogram.png"
BOOTSTRAP_DISTRIBUTION: Final = "bootstrap_distribution.png"
CONTRIBUTIONS: Final = "contributions.png"

#: What an accuracy is drawn against: metric -> words.
REFERENCES: Final[Mapping[str, str]] = {
    "recall_at_1_chance": "chance",
    "recall_at_1_ceiling_pairs": "perfect model of pairs",
    "recall_at_1_ceiling": "perfect model of all together",
}


def draw(
    folder: Path, metrics: Mapping[str, float], *, full: Ranked, split: Split, bootstrap: int | None, seed: int
) -> None:
    """Draw the ranks, the accuracy over resamples of patients, and what each modality contributes.

    Args:
        metrics: as in metrics.json.
        full: where the truth stood.
        bootstrap: B of the paper's resampling of queries, drawn beside; None leaves it out.
        seed: of the resampling.
    """
    own = {name.removeprefix(f"{split}/{full.target}/"): value for name, value in metrics.items()}
    accuracy = Interval(own["recall_at_1"], own["recall_at_1_ci_low"], own["recall_at_1_ci_high"])
    hits = full.ranks.recall_at(1)
    figures.rank_histogram(
        folder / RANK_HISTOGRAM,
        ranks=full.ranks,
        candidates_n=int(full.n_candidates.max()),
        target=full.target,
        accuracy=accuracy,
    )
    figures.bootstrap_distribution(
        folder / BOOTSTRAP_DISTRIBUTION,
        means=resample_clusters(hits, full.patient, RESAMPLES, patient_stream(seed)),
        accuracy=accuracy,
        references={label: own[name] for name, label in REFERENCES.items() if name in own},
        paper=None if bootstrap is None else resample_queries(hits, bootstrap, query_stream(seed)),
    )
    figures.contribution_bars(
        folder / CONTRIBUTIONS,
        contributions=contributions(metrics, split=split, target=full.target, query=full.query),
        target=full.target,
        recall=accuracy.estimate,
        chance=own["recall_at_1_chance"],
    )
