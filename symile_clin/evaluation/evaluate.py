"""The evaluation of one split: encode once, rank, report, draw; all into one directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.data.candidates import CandidateLists
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.evaluation import figures
from symile_clin.evaluation.ablation import ablation_report, contribution_table, contributions, smaller_queries
from symile_clin.evaluation.absence import absence_lines, absence_report, stand_ins
from symile_clin.evaluation.bootstrap import RESAMPLES, Interval, resample_clusters, resample_queries
from symile_clin.evaluation.ceiling import ceilings
from symile_clin.evaluation.embed import embed
from symile_clin.evaluation.gallery import choose_examples, gallery
from symile_clin.evaluation.report import (
    other_subjects_report,
    patient_stream,
    query_prefix,
    query_stream,
    retrieval_report,
    table,
)
from symile_clin.evaluation.retrieval import Ranks, Scores, rank, score_lists
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.rng import stream
from symile_clin.schema import EMBEDDINGS, METRICS, QUERY_ROW, RANKS, ROW, SUBJECT_ID, Split, present_column
from symile_clin.tracking import Artifact

RANK_HISTOGRAM: Final = "rank_histogram.png"
BOOTSTRAP_DISTRIBUTION: Final = "bootstrap_distribution.png"
CONTRIBUTIONS: Final = "contributions.png"
GALLERY: Final = "gallery.png"
GALLERY_QUERIES: Final = 5

#: What an evaluation leaves in its directory, and whether it shows single patients.
PATIENT_LEVEL: Final[Mapping[str, bool]] = {
    METRICS: False,
    RANK_HISTOGRAM: False,
    BOOTSTRAP_DISTRIBUTION: False,
    CONTRIBUTIONS: False,
    RANKS: True,
    EMBEDDINGS: True,
    GALLERY: True,
}

#: What an accuracy is drawn against: metric -> words.
REFERENCES: Final[Mapping[str, str]] = {
    "recall_at_1_chance": "chance",
    "recall_at_1_ceiling_pairs": "perfect model of pairs",
    "recall_at_1_ceiling": "perfect model of all together",
}


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        metrics: as in metrics.json.
        artifacts: the files in its directory.
        table: the same as lines for a terminal.
    """

    metrics: Mapping[str, float]
    artifacts: tuple[Artifact, ...]
    table: str


def evaluate_split(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    split: Split,
    target: str,
    bootstrap: int | None,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    directory: Path,
    progress: Progress,
) -> Evaluation:
    """Retrieve `target` from all other modalities over a split's fixed candidate lists, and write what came out.

    Then again without each of them, to see what it contributes.

    Args:
        model: on `device`.
        objective: the one that the model was trained with.
        bootstrap: B of the paper's resampling of queries; None leaves it out.
        seed: of resampling and of the choice of pictures.
        directory: gets metrics.json, ranks.parquet, embeddings.npz and the figures; replaced whole.

    Raises:
        NotFoundError: the split has no candidate lists.
        CohortError: its queries are of fewer than two patients, or no training sample has what the model needs in place
            of what queries lack.
        TrainingError: an embedding or score is not finite.
    """
    lists = cohort.candidates(split)
    elsewhere = cohort.candidates(split, other_subjects=True)
    query = tuple(name for name in modalities if name != target)
    subjects = cohort.samples[SUBJECT_ID].to_numpy()

    dataset = CohortDataset(cohort, modalities, cohort.rows(split))
    encoded = embed(model=model, dataset=dataset, batch_size=batch_size, device=device, progress=progress)
    absent = stand_ins(
        model=model,
        names=query,
        cohort=cohort,
        modalities=modalities,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )

    def scored(lists: CandidateLists) -> Scores:
        return score_lists(
            objective, encoded.embeddings, dataset.rows, lists, target, present=encoded.present, stand_ins=absent
        )

    scores = scored(lists)
    ranks = rank(scores)

    candidates_n = scores.shape[1]
    clusters = subjects[lists.query_row]
    metrics = retrieval_report(
        ranks=ranks,
        clusters=clusters,
        candidates_n=candidates_n,
        bootstrap=bootstrap,
        seed=seed,
        split=split,
        target=target,
    )
    metrics |= other_subjects_report(
        ranks=rank(scored(elsewhere)),
        clusters=subjects[elsewhere.query_row],
        candidates_n=elsewhere.listed.sum(axis=1),
        seed=seed,
        split=split,
        target=target,
        query=query,
    )
    metrics |= absence_report(
        present=encoded.present, queries=np.isin(dataset.rows, lists.query_row), split=split, target=target
    )
    subsets = smaller_queries(query)
    metrics |= ablation_report(
        objective=objective,
        encoded=encoded,
        rows=dataset.rows,
        lists=lists,
        clusters=clusters,
        stand_ins=absent,
        recall=ranks.recall_at(1),
        query=query,
        subsets=subsets,
        seed=seed,
        split=split,
        target=target,
    )
    metrics |= _reachable(cohort, lists, subsets=subsets, modalities=modalities, split=split, target=target)
    contributed = contributions(metrics, split=split, target=target, query=query)

    examples = choose_examples(
        cohort=cohort,
        modalities=modalities,
        lists=lists,
        scores=scores,
        ranks=ranks,
        target=target,
        count=GALLERY_QUERIES,
        rng=stream(seed, "gallery"),
    )
    with files.atomic_directory(directory) as folder:
        files.write_json(folder / METRICS, metrics)
        _write_ranks(folder / RANKS, lists.query_row, ranks)
        _write_embeddings(folder / EMBEDDINGS, {ROW: dataset.rows, **encoded.embeddings})
        gallery(folder / GALLERY, examples=examples, target=target)
        for name in (name for name, patient_level in PATIENT_LEVEL.items() if patient_level):
            (folder / name).chmod(0o600)
        own = {name.removeprefix(f"{split}/{target}/"): value for name, value in metrics.items()}
        accuracy = Interval(own["recall_at_1"], own["recall_at_1_ci_low"], own["recall_at_1_ci_high"])
        figures.rank_histogram(
            folder / RANK_HISTOGRAM, ranks=ranks, candidates_n=candidates_n, target=target, accuracy=accuracy
        )
        hits = ranks.recall_at(1)
        figures.bootstrap_distribution(
            folder / BOOTSTRAP_DISTRIBUTION,
            means=resample_clusters(hits, clusters, RESAMPLES, patient_stream(seed)),
            accuracy=accuracy,
            references={label: own[name] for name, label in REFERENCES.items() if name in own},
            paper=None if bootstrap is None else resample_queries(hits, bootstrap, query_stream(seed)),
        )
        figures.contribution_bars(
            folder / CONTRIBUTIONS,
            contributions=contributed,
            target=target,
            recall=accuracy.estimate,
            chance=own["recall_at_1_chance"],
        )
    lines = [
        table(metrics, split=split, target=target, query=query),
        *absence_lines(metrics, split=split, target=target, stand_ins=absent),
        contribution_table(contributed, method=absent.method(query)),
    ]
    return Evaluation(
        metrics=metrics,
        artifacts=tuple(Artifact(directory / name, patient_level) for name, patient_level in PATIENT_LEVEL.items()),
        table="\n".join(lines),
    )


def _reachable(
    cohort: Cohort,
    lists: CandidateLists,
    *,
    subsets: Collection[Sequence[str]],
    modalities: Mapping[str, Modality],
    split: Split,
    target: str,
) -> dict[str, float]:
    """What a perfect model would reach on these lists, from all modalities and from fewer; for synthetic cohorts."""
    if cohort.truth is None or cohort.planted is None or cohort.planted["target"] != target:
        return {}
    present = {name: cohort.samples[present_column(name)].to_numpy(dtype=np.bool_) for name in modalities}
    found = ceilings(truth=cohort.truth, planted=cohort.planted, lists=lists, present=present)
    metrics = {f"{split}/{target}/{name}": value for name, value in found.items()}
    for subset in subsets:
        left = {name: here & (name in subset or name == target) for name, here in present.items()}
        reached = ceilings(truth=cohort.truth, planted=cohort.planted, lists=lists, present=left)
        metrics[f"{query_prefix(split, target, subset)}recall_at_1_ceiling"] = reached["recall_at_1_ceiling"]
    return metrics


def _write_ranks(path: Path, query_row: NDArray[np.int64], ranks: Ranks) -> None:
    columns = {QUERY_ROW: query_row, "n_greater": ranks.n_greater, "n_tied": ranks.n_tied}
    pd.DataFrame(columns).to_parquet(path, index=False)


def _write_embeddings(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)
