"""`symile-clin report`: an evaluated run in, one page with all that is known of it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import BATCH_SIZE, Trained, open_trained
from symile_clin.progress import Progress
from symile_clin.report.compose import write_report
from symile_clin.schema import AUDIT_DIR, EVAL_DIR, INFORMATION_DIR, PROBES_DIR, RUNS_ROOT, Split
from symile_clin.tracking import Artifact

#: Measurements of other commands that the page shows if they are there.
SHOWN: Final = (PROBES_DIR, AUDIT_DIR, INFORMATION_DIR)


@dataclass(frozen=True)
class Report:
    """A written page."""

    run: str
    path: Path
    synthetic: bool

    def text(self) -> str:
        """Where it is, and what may be done with it."""
        whose = "synthetic patients" if self.synthetic else "REAL patients, one by one: it must not leave this machine"
        return f"Report of run {self.run}: {self.path}\nIt opens in any browser and shows {whose}."

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {"run": self.run, "path": str(self.path), "bytes": self.path.stat().st_size, "patient_level": True}


def report(
    *,
    run: str | None = None,
    cohort: Path | None = None,
    split: Split = "test",
    map_method: Literal["pca", "umap"] = "pca",
    device: str = "auto",
    progress: Progress,
) -> Report:
    """Write eval/<split>/report.html of an evaluated run, from what `eval` and other commands left.

    Args:
        run: a run's name or directory; None takes the one that finished last.
        cohort: a cohort directory; None takes the one the run was trained on.
        map_method: flattens embeddings to a map; "umap" needs the extra.
        device: that traces scores back to their inputs: "auto", "cpu", "cuda", ...

    Raises:
        NotFoundError: no finished run, no cohort, or it was not evaluated.
        MismatchError: a checkpoint or an evaluation that does not fit the cohort.
        ConfigError: "umap" is not installed.
    """
    opened = open_run(Path(RUNS_ROOT), run)
    trained = open_trained(opened, cohort_of(opened, cohort), device=device)
    page = report_of(trained, split=split, map_method=map_method, progress=progress)
    return Report(run=opened.name, path=page.path, synthetic=trained.cohort.synthetic)


def report_of(
    trained: Trained, *, split: Split, map_method: Literal["pca", "umap"] = "pca", progress: Progress
) -> Artifact:
    """The page of an opened run; it shows single patients."""
    progress.say(f"Writing the report of run {trained.run.path} on the {split} split of cohort {trained.cohort.path}.")
    path = write_report(
        run=trained.run.name,
        run_directory=trained.run.path,
        config=trained.run.config,
        manifest=trained.run.manifest,
        model=trained.model,
        objective=trained.objective,
        cohort=trained.cohort,
        trained_here=trained.trained_here,
        modalities=trained.modalities,
        split=split,
        directory=trained.directory(EVAL_DIR, split),
        measured={kind: trained.directory(kind, split) for kind in SHOWN},
        map_method=map_method,
        batch_size=BATCH_SIZE,
        device=trained.device,
        progress=progress,
    )
    return Artifact(path, True)
