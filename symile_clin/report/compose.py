"""report.html: all that is known of a run on a split, on one page. Shows single patients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.data.store import Cohort
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.evaluation.embed import Embedded
from symile_clin.evaluation.page import Section, render_page, write_page
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.report.attribution import attribution_section
from symile_clin.report.cohort_section import cohort_section
from symile_clin.report.curves import curves_section
from symile_clin.report.embedding_map import Method, embedding_map_section
from symile_clin.report.gallery_section import gallery_section
from symile_clin.report.headline import banner, headline_section
from symile_clin.report.measured_section import measured_parts
from symile_clin.report.provenance_section import provenance_section
from symile_clin.report.retrieval_section import retrieval_section
from symile_clin.schema import EMBEDDINGS, EVALUATION, METRICS, REPORT, ROW, Split, present_column


def write_report(
    *,
    run: str,
    run_directory: Path,
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
    model: MultimodalEncoder,
    objective: Objective,
    cohort: Cohort,
    trained_here: bool,
    modalities: Mapping[str, Modality],
    split: Split,
    directory: Path,
    measured: Mapping[str, Path],
    map_method: Method,
    batch_size: int,
    device: torch.device | str,
    progress: Progress,
) -> Path:
    """Write report.html beside an evaluation, from what it left; nothing is encoded again but what a picture needs.

    Args:
        run: its name.
        config: the run's resolved settings, plain.
        manifest: the run's manifest.json.
        model: on `device`.
        objective: the one that the model was trained with.
        trained_here: whether the run was trained on `cohort`.
        directory: of the evaluation; gets the page, readable by its owner only.
        measured: by kind of other measurements, where they would be.
        map_method: of the embedding map; "umap" needs the extra.

    Raises:
        NotFoundError: the split was not evaluated, or has no candidate lists.
        MismatchError: what the evaluation left is of another cohort.
        ConfigError: "umap" is not installed.
    """
    embedded, rows = read_embedded(directory, cohort, modalities, again=f"symile-clin eval {run} --split {split}")
    metrics = files.read_json(directory / METRICS)
    about = files.read_json(directory / EVALUATION) if (directory / EVALUATION).is_file() else {}
    target = str(cohort.spec["candidates"]["target"])
    seed = int(config["seed"])
    samples = cohort.samples.iloc[rows]
    asked = [name for name in modalities if name != target]
    lacking = [name for name in asked if not embedded.present[name].all()]
    sections = [
        headline_section(
            metrics, run=run, objective=objective.name, cohort=cohort, modalities=list(modalities), split=split,
            target=target, method=str(about.get("method", "")) if lacking else "",
        ),
        cohort_section(cohort, modalities),
        curves_section(
            run_directory, best=int(manifest["best"]["epoch"]), target=target, trained_here=trained_here
        ),
        retrieval_section(directory, target=target),
        gallery_section(
            model=model, objective=objective, embedded=embedded, rows=rows, lists=cohort.candidates(split),
            cohort=cohort, modalities=modalities, target=target, seed=seed, batch_size=batch_size, device=device,
            progress=progress,
        ),
        Section(
            "Other measurements", "measured",
            ["What other commands found out about this run.", *measured_parts(measured, run=run, split=split)],
        ),
        embedding_map_section(
            embedded=embedded, samples=samples, modalities=modalities, objective=objective, target=target, seed=seed,
            method=map_method,
        ),
        attribution_section(
            model=model, objective=objective, cohort=cohort, modalities=modalities, split=split, target=target,
            seed=seed, device=device,
        ),
        provenance_section(
            run=run, config=config, manifest=manifest, cohort=cohort, split=split, trained_here=trained_here
        ),
    ]  # fmt: skip
    page = render_page(
        f"{run} on {cohort.name}, {split} split",
        sections,
        subtitle=f"What a model trained with {objective.name} retrieves: {target} from {' + '.join(asked)}.",
        banner=banner(synthetic=cohort.synthetic),
    )
    write_page(directory / REPORT, page, patient_level=True)
    return directory / REPORT


def read_embedded(
    directory: Path, cohort: Cohort, modalities: Mapping[str, Modality], *, again: str
) -> tuple[Embedded, np.ndarray[Any, np.dtype[np.int64]]]:
    """The embeddings that an evaluation left, and the rows of their samples.

    Args:
        again: the command that makes them.

    Raises:
        NotFoundError: there are none.
        MismatchError: they are of other samples.
    """
    path = directory / EMBEDDINGS
    if not path.is_file() or not (directory / METRICS).is_file():
        raise NotFoundError(f"no evaluation in {directory}", remedy=f"Run {again}")
    try:
        # an open file: given a path, numpy leaves a damaged archive open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            whole = set(stored.files) == {ROW, *modalities}
            arrays = {name: stored[name] for name in stored.files} if whole else {}
    except Exception as error:  # a reader of hostile bytes may raise anything
        what = f"{path} cannot be read as embeddings ({type(error).__name__})"
        raise MismatchError(what, remedy=f"Run {again}") from None
    rows = arrays.pop(ROW, None)
    lengths = {len(one) for one in arrays.values()}
    if rows is None or not _are_rows(rows, len(cohort.samples)) or lengths != {len(rows)}:
        raise MismatchError(f"{path} is not of cohort {cohort.name}", remedy=f"Run {again}")
    present = {name: cohort.samples[present_column(name)].to_numpy(dtype=np.bool_)[rows] for name in modalities}
    return Embedded(embeddings=arrays, present=present), rows


def _are_rows(rows: NDArray[Any], samples: int) -> bool:
    """Whether an array is of rows that a cohort has."""
    return rows.ndim == 1 and rows.dtype.kind == "i" and (not len(rows) or 0 <= rows.min() <= rows.max() < samples)
