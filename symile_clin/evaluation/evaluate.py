"""The evaluation of one split: encode once, rank in every way, measure, draw; all into one directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from symile_clin import files
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError
from symile_clin.evaluation.ablation import shuffled_means
from symile_clin.evaluation.absence import absence_report, every_stand_ins, reference_rows
from symile_clin.evaluation.ceiling import reachable
from symile_clin.evaluation.embed import embed
from symile_clin.evaluation.found import Found
from symile_clin.evaluation.gallery import choose_examples, gallery
from symile_clin.evaluation.measures import (
    as_published,
    counted,
    drops,
    flat,
    marginalised_over,
    means_of,
    measured,
    tracked,
)
from symile_clin.evaluation.protocols import candidate_lists
from symile_clin.evaluation.ranked import DIGESTS, write_ranked
from symile_clin.evaluation.retrieval import score_lists
from symile_clin.evaluation.retrieval_figures import draw
from symile_clin.evaluation.retrieval_table import methods, screen, write_retrieval
from symile_clin.evaluation.seen import seen_report
from symile_clin.evaluation.subgroup_figure import FIGURE as SUBGROUP_FIGURE
from symile_clin.evaluation.subgroup_figure import subgroup_figure
from symile_clin.evaluation.subgroups import subgroup_lines, subgroup_report
from symile_clin.evaluation.ways import every_way
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.rng import stream
from symile_clin.schema import EMBEDDINGS, EVALUATION, METRICS, RANKS, RETRIEVAL, ROW, SUBGROUPS, Split
from symile_clin.tracking import Artifact

GALLERY: Final = "gallery.png"
GALLERY_QUERIES: Final = 5
#: Files that show single patients; all others that an evaluation leaves do not.
PATIENT_LEVEL: Final = (RANKS, EMBEDDINGS, GALLERY)


def evaluate_split(
    *,
    run: str,
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    split: Split,
    target: str,
    bootstrap: int | None,
    min_group: int,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    directory: Path,
    progress: Progress,
    trained_on: Collection[int] | None = (),
) -> Found:
    """Retrieve every modality from the others and from each part of them, under every protocol; write what came out.

    Args:
        run: name of the run, for evaluation.json.
        model: on `device`.
        objective: the one that the model was trained with.
        target: modality that the cohort's candidate lists were drawn for; what is reported first.
        bootstrap: B of the paper's resampling of queries; None leaves it out.
        min_group: patients that a group must have to be shown.
        seed: of resampling and of the choice of pictures.
        directory: gets the files that docs/evaluation.md lists; replaced whole.
        trained_on: subject_ids that the model was trained on, if in another cohort; None: not known.

    Raises:
        NotFoundError: the split has no candidate lists.
        CohortError: its queries are of fewer than two patients, or no training sample has what the model needs in place
            of what queries lack.
        TrainingError: an embedding or score is not finite.
    """
    lists = candidate_lists(cohort, split)
    dataset = CohortDataset(cohort, modalities, cohort.rows(split))
    samples = cohort.samples.iloc[dataset.rows]
    encoded = embed(model=model, dataset=dataset, batch_size=batch_size, device=device, progress=progress)
    asked, notes = _directions(model, cohort, list(modalities), first=target)
    absent = every_stand_ins(
        model=model,
        names=asked,
        cohort=cohort,
        modalities=modalities,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    ways = every_way(
        objective=objective,
        encoded=encoded,
        samples=samples,
        lists=lists,
        modalities=modalities,
        stand_ins=absent,
        progress=progress,
    )
    if "matched" not in lists:
        notes.append("matched lists are left out: the cohort has none")
    full = ways.one(target, "candidates", asked[target])
    if full is None or len(np.unique(full.patient)) < 2:
        raise CohortError(f"an interval needs queries of at least 2 patients; the {split} split has fewer")
    shuffles = shuffled_means(
        objective=objective,
        encoded=encoded,
        rows=dataset.rows,
        lists=lists["candidates"],
        stand_ins=absent[target],
        full=full,
    )
    means = [mean for one in ways.ranked for mean in means_of(one)]
    measures = measured([*means, *drops(ways.ranked), *shuffles], seed=seed)
    measures += [measure for one in ways.ranked for measure in counted(one)]

    metrics = flat(measures, split=split, full=asked)
    metrics |= marginalised_over(ways.ranked, split=split, full=asked, stand_ins=absent)
    metrics |= absence_report(
        present=encoded.present, queries=np.isin(dataset.rows, full.query_row), split=split, target=target
    )
    metrics |= seen_report(full, cohort.samples, trained_on, split=split)
    if trained_on is None:
        notes.append("whether the model was trained on these patients is not known: the cohort it had is gone")
    metrics |= reachable(cohort, lists["candidates"], modalities=modalities, split=split, target=target)
    groups = subgroup_report(
        full,
        samples=cohort.samples.iloc[full.query_row],
        modalities=modalities,
        split=split,
        seed=seed,
        min_group=min_group,
    )
    metrics |= groups.metrics
    if bootstrap is not None:
        metrics |= as_published(full, split=split, bootstrap=bootstrap, seed=seed)

    about = {
        "run": run,
        "objective": objective.name,
        "cohort": {"name": cohort.name, "hash": cohort.hash},
        "split": split,
        "target": target,
        "query": sorted(asked[target]),
        "seed": seed,
        "synthetic": cohort.synthetic,
        "min_group": min_group,
        "method": absent[target].method(asked[target]),
    }
    how = methods(ways.ranked, encoded=encoded, samples=samples, modalities=modalities, stand_ins=absent)
    examples = choose_examples(
        cohort=cohort,
        modalities=modalities,
        lists=lists["candidates"],
        scores=score_lists(
            objective,
            encoded.embeddings,
            dataset.rows,
            lists["candidates"],
            target,
            present=encoded.present,
            stand_ins=absent[target],
        ),
        ranks=full.ranks,
        target=target,
        count=GALLERY_QUERIES,
        rng=stream(seed, "gallery"),
    )
    with files.atomic_directory(directory) as folder:
        files.write_json(folder / METRICS, metrics)
        write_ranked(folder / RANKS, ways.ranked)
        digests = {name: files.sha256(folder / name) for name in (METRICS, RANKS)}
        files.write_json(folder / EVALUATION, {**about, DIGESTS: digests})
        write_retrieval(folder / RETRIEVAL, measures, methods=how)
        np.savez(folder / EMBEDDINGS, **{ROW: dataset.rows, **encoded.embeddings})  # type: ignore[arg-type]
        gallery(folder / GALLERY, examples=examples, target=target)
        groups.table.to_csv(folder / SUBGROUPS, index=False)
        subgroup_figure(folder / SUBGROUP_FIGURE, groups)
        draw(folder, metrics, full=full, split=split, bootstrap=bootstrap, seed=seed)
        for name in PATIENT_LEVEL:
            (folder / name).chmod(0o600)
        written = sorted(path.name for path in folder.iterdir())
    return Found(
        metrics=metrics,
        tracked=tracked(metrics, split=split, target=target),
        artifacts=tuple(Artifact(directory / name, name in PATIENT_LEVEL) for name in written),
        table=screen(
            metrics,
            measures,
            split=split,
            asked=asked,
            methods=how,
            stand_ins=absent[target],
            notes=[*notes, *ways.notes],
        )
        + "\n\n"
        + "\n".join(subgroup_lines(groups)),
    )


def _directions(
    model: MultimodalEncoder, cohort: Cohort, names: Sequence[str], *, first: str
) -> tuple[dict[str, list[str]], list[str]]:
    """By target, what it is asked for with, the cohort's own target first; and a line for each that cannot be asked."""
    found: dict[str, list[str]] = {}
    notes: list[str] = []
    for target in sorted(names, key=lambda name: name != first):
        query = [name for name in names if name != target]
        without = [name for name in query if model.placeholder(name) is None]
        if target != first and without:
            try:
                reference_rows(cohort, without)
            except CohortError as error:
                notes.append(f"{target} from {' + '.join(query)}: left out, {error}")
                continue
        found[target] = query
    return found, notes
