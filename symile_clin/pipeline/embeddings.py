"""`symile-clin embed`: a cohort's embeddings by a run, in one file for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from symile_clin.data.dataset import CohortDataset
from symile_clin.errors import ConfigError
from symile_clin.evaluation.embed import embed_batches
from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, open_trained
from symile_clin.progress import Progress
from symile_clin.schema import HADM_ID, ROW, RUNS_ROOT, SPLIT, SUBJECT_ID, Split, present_column
from symile_clin.search.embedding_file import SUFFIXES, write_embeddings


@dataclass(frozen=True)
class Written:
    """A file of embeddings.

    Attributes:
        present: samples that have each modality.
    """

    run: str
    cohort: str
    split: str
    path: Path
    samples: int
    dim: int
    present: dict[str, int]

    def text(self) -> str:
        """Counts, and where the file is."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.present.items())
        which = "all splits" if self.split == "all" else f"the {self.split} split"
        return (
            f"Embedded {self.samples:,} samples of {which} of cohort {self.cohort} by run {self.run} ({counts}), "
            f"{self.dim} numbers each: {self.path}, patient-level"
        )

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {**vars(self), "path": str(self.path)}


def embed(
    *,
    out: Path,
    run: str | None = None,
    cohort: Path | None = None,
    split: Split | Literal["all"] = "test",
    with_ids: bool = False,
    device: str = "auto",
    progress: Progress,
) -> Written:
    """Write the embeddings of every modality of a cohort's samples into one file.

    Args:
        out: a .parquet or .npz that is not there yet.
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on.
        split: "train", "val", "test", or "all".
        with_ids: also subject_id and hadm_id, by which the file can be joined with MIMIC's tables.
        device: that encodes: "auto", "cpu", "cuda", ...

    Raises:
        ConfigError: `out` is there already, or is neither kind of file; an empty split.
        NotFoundError: no finished run, or no cohort.
        MismatchError: a checkpoint that does not fit the cohort.
        TrainingError: embeddings that are not finite.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out} is no kind of file that is written", expected=f"one in {' or '.join(SUFFIXES)}")
    if out.exists():
        raise ConfigError(f"{out} is there already", remedy="Choose another name, or remove it")
    opened = open_run(Path(RUNS_ROOT), run)
    data = cohort_of(opened, cohort)
    trained = open_trained(opened, data, device=device)
    names = list(trained.modalities)
    chosen = data.samples if split == "all" else data.samples.iloc[data.rows(split)]
    if not len(chosen):
        raise ConfigError(f"cohort {data.name} has no sample in its {split} split", remedy="Take another --split")
    progress.say(f"Encoding {len(chosen):,} samples of cohort {data.path} by run {opened.path}, {trained.device}.")
    ids = [SUBJECT_ID, HADM_ID] if with_ids else []
    dataset = CohortDataset(data, trained.modalities, chosen[ROW].to_numpy(dtype="int64", copy=True))
    batches = embed_batches(
        model=trained.model, dataset=dataset, batch_size=BATCH_SIZE, device=trained.device, progress=progress
    )
    write_embeddings(
        out,
        samples=chosen[[ROW, SPLIT, *ids, *map(present_column, names)]],
        batches=batches,
        names=names,
        about={
            "run": opened.name,
            "objective": trained.config.objective["name"],
            "normalization": trained.objective.normalization,
            "dim": trained.model.dim,
            "cohort": {"name": data.name, "hash": data.hash},
            "split": split,
            "modalities": names,
        },
    )
    return Written(
        run=opened.name,
        cohort=data.name,
        split=split,
        path=out,
        samples=len(chosen),
        dim=trained.model.dim,
        present={name: int(chosen[present_column(name)].sum()) for name in names},
    )
