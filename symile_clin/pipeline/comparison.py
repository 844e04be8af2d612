"""`symile-clin compare`: evaluated runs in, differences with intervals and tests out, beside the runs and in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from symile_clin import files
from symile_clin.errors import ConfigError
from symile_clin.evaluation import comparison_tables as tables
from symile_clin.evaluation.comparison import compare_groups
from symile_clin.evaluation.comparison_figure import comparison_figure
from symile_clin.evaluation.comparison_page import comparison_page
from symile_clin.evaluation.measures import MEANS
from symile_clin.evaluation.page import write_page
from symile_clin.evaluation.ranked import ListProtocol
from symile_clin.evaluation.scored_runs import doubts, group_runs
from symile_clin.pipeline.evaluated import default_way, open_evaluated
from symile_clin.pipeline.reserved import new_directory
from symile_clin.pipeline.runs import open_run
from symile_clin.pipeline.tracked_comparison import track_comparison
from symile_clin.progress import Progress
from symile_clin.schema import COMPARISONS_ROOT, RUNS_ROOT, TRACKING_URI, Split
from symile_clin.strict import nearest

TABLE: Final = "compare.csv"
RESULTS: Final = "compare.json"
FIGURE: Final = "compare.png"
PAGE: Final = "compare.html"

_LONGEST_NAME: Final = 60  # of one side in a folder's


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        results: all numbers, as in compare.json.
        table: the same for a terminal.
    """

    directory: Path
    results: Mapping[str, Any]
    table: str

    def text(self) -> str:
        """The table and where the files are."""
        return f"{self.table}\n{PAGE}, {FIGURE}, {TABLE} and {RESULTS} in {self.directory}"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {"directory": str(self.directory), **self.results}


def compare(
    *,
    runs: Sequence[str],
    cohort: Path | None = None,
    split: Split = "test",
    metric: str = "recall_at_1",
    protocol: ListProtocol = "candidates",
    query: str | None = None,
    target: str | None = None,
    all_pairs: bool = False,
    name: str | None = None,
    tracking_uri: str | None = TRACKING_URI,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> Compared:
    """Compare evaluated runs, query by query; the first run's config is the reference.

    Args:
        runs: names or directories. Runs whose config differs in nothing but the seed are taken together.
        cohort: directory of the cohort that they were evaluated on; None takes each run's own.
        metric: a mean over queries.
        protocol: what each query was ranked against.
        query: what was asked with, names joined by "+"; None takes all modalities but the target.
        target: what was retrieved; None takes the evaluation's own.
        all_pairs: also compare the others with each other.
        name: of the folder in comparisons/; None makes one from the runs.
        tracking_uri: MLflow store; None records nothing.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: a run that is not there, or was not evaluated on this split or not asked in this way.
        MismatchError: runs that were scored on different queries.
        ConfigError: fewer than two runs, one named twice, or a name that is taken.
    """
    if metric not in MEANS:
        raise ConfigError(f"no metric '{metric}' is a mean over queries", remedy=nearest(metric, MEANS).capitalize())
    found = [
        open_evaluated(
            open_run(Path(RUNS_ROOT), run), cohort, split=split, target=target, protocol=protocol, query=query
        )
        for run in runs
    ]
    groups = group_runs([one.scored for one in found])
    compared = compare_groups(groups, metric=metric, all_pairs=all_pairs)
    noted = doubts(groups)
    if split == "val":
        noted.append("The val split chose each run's checkpoint, so its values flatter; the test split decides.")
    synthetic = all(bool(one.about["synthetic"]) for one in found)
    with _new_directory(name, [group.label for group in groups]) as (directory, folder):
        results = {"name": directory.name, "synthetic": synthetic, **tables.record(compared, noted)}
        files.write_json(folder / RESULTS, results)
        files.write_text(folder / TABLE, tables.differences_frame(compared).to_csv(index=False))
        comparison_figure(folder / FIGURE, compared)
        page = comparison_page(
            compared,
            name=directory.name,
            picture=(folder / FIGURE).read_bytes(),
            doubts=noted,
            methods={one.run.name: str(one.about["method"]) for one in found},
            synthetic=synthetic,
        )
        write_page(folder / PAGE, page, patient_level=False)
    table = tables.text(compared, noted)
    if tracking_uri is not None:
        track_comparison(
            tracking_uri,
            compared,
            runs=[one.run for one in found],
            name=directory.name,
            files=[directory / file for file in (TABLE, RESULTS, FIGURE, PAGE)],
            default=default_way(found[0]),
            synthetic=synthetic,
            allow_remote_tracking=allow_remote_tracking,
            progress=progress,
        )
    return Compared(directory=directory, results=results, table=table)


def _new_directory(name: str | None, labels: Sequence[str]) -> AbstractContextManager[tuple[Path, Path]]:
    """A new folder in comparisons/: of that name, or made from the groups' and numbered if taken."""
    more = f"-and-{len(labels) - 2}-more" if len(labels) > 2 else ""
    second, first = (re.sub(r"[^\w.-]+", "-", label)[:_LONGEST_NAME].strip(".-") or "run" for label in labels[:2])
    default = f"{first}-vs-{second}{more}"
    return new_directory(
        Path(COMPARISONS_ROOT),
        name,
        defaults=chain([default], (f"{default}-{number}" for number in count(2))),
        kind="comparison",
        taken="Choose another --name",
    )
