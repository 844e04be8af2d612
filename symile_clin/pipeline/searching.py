"""`symile-clin index` and `symile-clin search`: embeddings of a cohort on disk, and questions to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from symile_clin import files
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import ConfigError
from symile_clin.evaluation.embed import embed_batches
from symile_clin.evaluation.page import write_page
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.runs import cohort_of, home_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Trained, open_trained
from symile_clin.progress import Progress
from symile_clin.schema import BEST, CHECKPOINTS_DIR, INDEX_DIR, ROW, RUNS_ROOT, SAMPLE_ID, Split
from symile_clin.search.index import Index, identity, open_index, write_index
from symile_clin.search.question import Answer, Query, check_question
from symile_clin.search.results import described, results
from symile_clin.search.searcher import Searcher
from symile_clin.training.checkpoint import WEIGHTS

#: Folder of the index of the run's own cohort.
OWN: Final = "own"
#: How a row is named where a sample's id could be the same number.
BY_ROW: Final = "row:"


@dataclass(frozen=True)
class Indexed:
    """An index.

    Attributes:
        made: false where it was there already.
    """

    run: str
    cohort: str
    directory: Path
    samples: int
    made: bool

    def text(self) -> str:
        """What was done, and where it is."""
        done = "Embedded" if self.made else "There is an index already of"
        return f"{done} {self.samples:,} samples of cohort {self.cohort} by run {self.run}: {self.directory}"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {**vars(self), "directory": str(self.directory)}


def index(*, run: str | None = None, cohort: Path | None = None, device: str = "auto", progress: Progress) -> Indexed:
    """Embed a whole cohort once, so that it can be searched; nothing is done where that has been done.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on.
        device: that encodes: "auto", "cpu", "cuda", ...

    Raises:
        NotFoundError: no finished run, or no cohort.
        MismatchError: a checkpoint that does not fit the cohort.
        TrainingError: embeddings that are not finite.
        DiskError: no room for them.
    """
    opened = open_run(Path(RUNS_ROOT), run)
    trained = open_trained(opened, cohort_of(opened, cohort), device=device)
    found, made = indexed(trained, progress=progress)
    return Indexed(
        run=opened.name,
        cohort=trained.cohort.name,
        directory=found.path,
        samples=int(found.manifest["samples"]),
        made=made,
    )


def indexed(trained: Trained, *, progress: Progress) -> tuple[Index, bool]:
    """A run's index of a cohort, and whether it had to be made."""
    cohort, names = trained.cohort, list(trained.modalities)
    path = trained.run.path / INDEX_DIR / (OWN if trained.trained_here else cohort.name)
    of = identity(
        cohort=cohort,
        names=names,
        dim=trained.model.dim,
        objective=trained.config.objective["name"],
        run=trained.run.name,
        checkpoint=files.sha256(trained.run.path / CHECKPOINTS_DIR / BEST / WEIGHTS),
    )
    there = open_index(path, of)
    if there is not None:
        return there, False
    progress.say(f"Embedding the {len(cohort.samples):,} samples of cohort {cohort.path} into {path}.")
    dataset = CohortDataset(cohort, trained.modalities, cohort.samples[ROW].to_numpy(dtype=np.int64, copy=True))
    batches = embed_batches(
        model=trained.model, dataset=dataset, batch_size=BATCH_SIZE, device=trained.device, progress=progress
    )
    return write_index(path, cohort=cohort, of=of, batches=batches), True


def open_searcher(trained: Trained, found: Index, *, with_files: bool = True) -> Searcher:
    """A searcher over an index; files are read as the run's training samples were.

    Args:
        with_files: whether there will be files, for which the run's own cohort has to be there.

    Raises:
        NotFoundError: it is gone.
        MismatchError: another one has its place.
    """
    own = trained.cohort if trained.trained_here or not with_files else home_of(trained.run)
    readers = modalities_of(own.spec)
    return Searcher(
        model=trained.model,
        objective=trained.objective,
        index=found,
        cohort=trained.cohort,
        readers=readers,
        states={name: own.state(name) for name in readers} if with_files else {},
        device=trained.device,
    )


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        answer: with the hits.
        lines: what one has to know to read `table`.
        table: a line for each hit.
        page: where the pictures are; None if none were asked for.
    """

    run: str
    objective: str
    cohort: str
    answer: Answer
    query: Query
    lines: Sequence[str]
    table: pd.DataFrame
    page: Path | None

    def text(self) -> str:
        """The table, and what one has to know to read it."""
        decimals = max(0, 5 - math.floor(math.log10(np.abs(self.answer.hits.scores).max() or 1)))
        shown = self.table.to_string(index=False, float_format=lambda score: f"{score:.{decimals}f}")
        where = f"\nPictures of single patients in {self.page}" if self.page else ""
        return f"{self.lines[0]}\n{shown}\n" + "\n".join(self.lines[1:]) + where

    def record(self) -> dict[str, Any]:
        """The same for programs; a row for files, of which there is none, is null."""
        answer = self.answer
        return {
            "run": self.run,
            "objective": self.objective,
            "cohort": self.cohort,
            "target": answer.target,
            "query": list(answer.query),
            "row": self.query.row,
            "absent": list(answer.absent),
            "method": answer.method or None,
            "candidates": answer.candidates,
            "level_with_last": answer.hits.level,
            "seconds": {"encode": self.query.seconds, "search": answer.seconds},
            "page": None if self.page is None else str(self.page),
            "hits": [
                {str(key): None if pd.isna(value) else value for key, value in hit.items()}
                for hit in self.table.astype(object).to_dict(orient="records")
            ],
        }


def search(
    *,
    run: str | None = None,
    cohort: Path | None = None,
    target: str | None = None,
    query: Mapping[str, Path] | None = None,
    sample: str | None = None,
    with_modalities: Sequence[str] | None = None,
    k: int = 10,
    split: Split | None = None,
    exclude_own: bool = False,
    with_ids: bool = False,
    html: Path | None = None,
    device: str = "auto",
    progress: Progress,
) -> Searched:
    """Find the samples of a cohort whose `target` fits best what is asked with; it is indexed first, if need be.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on.
        target: modality to find; None takes what the cohort's candidate lists are of.
        query: files by modality, as one patient's.
        sample: instead, a sample of the cohort: its sample_id, its row, or "row:" and its row.
        with_modalities: of the sample; None takes all that it has but the target.
        k: how many.
        split: only find samples of this one.
        exclude_own: leave out the sample, and all others of its patient.
        with_ids: show subject_id and hadm_id.
        html: write a page with pictures of query and hits here, which is patient-level; an older one is replaced.
        device: that encodes: "auto", "cpu", "cuda", ...

    Raises:
        ConfigError: no query, or one that cannot be meant.
        NotFoundError: no finished run, or no cohort.
        SourceError: a file that is missing, or that a cohort would refuse, too.
        MismatchError: a checkpoint that does not fit the cohort.
        TrainingError: embeddings that are not finite.
    """
    if not query and sample is None:
        raise ConfigError("there is nothing to ask with", remedy="Give --query NAME=PATH, or --sample")
    if query and (sample is not None or with_modalities is not None or exclude_own):
        raise ConfigError(
            "files and a sample are asked with at once",
            remedy="Give --query alone: --sample, --with and --exclude-own are for samples of the cohort",
        )
    opened = open_run(Path(RUNS_ROOT), run)
    trained = open_trained(opened, cohort_of(opened, cohort), device=device)
    data = trained.cohort
    wanted = target or str(data.spec["candidates"]["target"])
    row = None if sample is None else row_of(data, sample)
    names = list(trained.modalities)
    others = [name for name in names if name != wanted]
    # before anything is embedded
    check_question(names, asked=query or (others if with_modalities is None else with_modalities), target=wanted, k=k)
    found, _ = indexed(trained, progress=progress)
    searcher = open_searcher(trained, found, with_files=bool(query))
    asked = searcher.read(query or {}) if row is None else searcher.sample(row, with_modalities, target=wanted)
    answer = searcher.search(asked, target=wanted, k=k, split=split, exclude_own=exclude_own)
    lines = described(answer, asked, k=k)
    table = results(answer, asked, searcher=searcher, cohort=data, target=trained.modalities[wanted], with_ids=with_ids)
    if html is not None:
        from symile_clin.report.search_page import search_page

        page = search_page(
            answer,
            asked,
            lines=lines,
            table=table,
            run=opened.name,
            cohort=data,
            modalities=trained.modalities,
            readers=searcher.readers,
        )
        write_page(html, page, patient_level=True)
    return Searched(
        run=opened.name,
        objective=trained.config.objective["name"],
        cohort=data.name,
        answer=answer,
        query=asked,
        lines=lines,
        table=table,
        page=html,
    )


def row_of(cohort: Cohort, sample: str) -> int:
    """The row of a sample that is named by its id, or by its row.

    Raises:
        ConfigError: no such sample, or a number that is the id of one and the row of another.
    """
    rows = len(cohort.samples)
    ids = np.flatnonzero((cohort.samples[SAMPLE_ID].astype("string") == sample).fillna(False).to_numpy())
    number = sample.removeprefix(BY_ROW)
    row = int(number) if number.isdecimal() and int(number) < rows else None
    if sample.startswith(BY_ROW) or not len(ids):
        if row is None:
            raise ConfigError(
                f"cohort {cohort.name} has no sample '{sample}'",
                expected=f"a sample_id of it, or a row: 0 to {rows - 1}",
            )
        return row
    if row is not None and row != ids[0]:
        raise ConfigError(
            f"'{sample}' is the sample_id of row {ids[0]}, and a row, too",
            remedy=f"Write {BY_ROW}{ids[0]} or {BY_ROW}{row}",
        )
    return int(ids[0])
