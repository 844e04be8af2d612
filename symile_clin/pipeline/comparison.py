"""`symile-clin compare`: evaluated runs in, differences with intervals and tests out, beside the runs and in MLflow."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin import files
from symile_clin.errors import ConfigError
from symile_clin.evaluation import comparison_tables as tables
from symile_clin.evaluation.comparison import Comparison, compare_groups
from symile_clin.evaluation.comparison_figure import comparison_figure
from symile_clin.evaluation.comparison_page import comparison_page
from symile_clin.evaluation.measures import MEANS, query_prefix
from symile_clin.evaluation.page import write_page
from symile_clin.evaluation.ranked import ListProtocol
from symile_clin.evaluation.scored_runs import doubts, group_runs
from symile_clin.pipeline.evaluated import Evaluated, open_evaluated
from symile_clin.pipeline.runs import open_run
from symile_clin.pipeline.tracked import open_tracker
from symile_clin.progress import Progress
from symile_clin.schema import COMPARISONS_ROOT, RUNS_ROOT, TRACKING_URI, Split
from symile_clin.strict import nearest

TABLE: Final = "compare.csv"
RESULTS: Final = "compare.json"
FIGURE: Final = "compare.png"
PAGE: Final = "compare.html"

_LONGEST_NAME: Final = 80
_LONGEST_LABEL: Final = 60


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
    directory = _reserve(name, [group.label for group in groups])
    results = {"name": directory.name, "synthetic": synthetic, **tables.record(compared, noted)}
    try:
        with files.atomic_directory(directory) as folder:
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
    except BaseException:
        if not (directory / RESULTS).exists():
            shutil.rmtree(directory, ignore_errors=True)  # only the reserved name
        raise
    table = tables.text(compared, noted)
    if tracking_uri is not None:
        _track(
            tracking_uri,
            compared,
            found=found,
            directory=directory,
            synthetic=synthetic,
            allow_remote_tracking=allow_remote_tracking,
            progress=progress,
        )
    return Compared(directory=directory, results=results, table=table)


def _reserve(name: str | None, labels: Sequence[str]) -> Path:
    """A new folder in comparisons/: of that name, or made from the groups' and numbered if taken."""
    root = Path(COMPARISONS_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    if name is not None:
        if not name or Path(name).name != name or name.startswith("."):
            raise ConfigError(
                f"--name {name!r} is not a plain name", remedy="Give one without slashes and leading dots"
            )
        try:
            (root / name).mkdir()
        except FileExistsError:
            raise ConfigError(
                f"there is a comparison called '{name}' already", remedy="Choose another --name"
            ) from None
        return root / name
    more = f"-and-{len(labels) - 2}-more" if len(labels) > 2 else ""
    default = re.sub(r"[^\w.-]+", "-", f"{labels[1]}-vs-{labels[0]}")[: _LONGEST_NAME - len(more)].lstrip(".") + more
    number = 1
    while True:
        path = root / (default if number == 1 else f"{default}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _track(
    tracking_uri: str,
    compared: Comparison,
    *,
    found: Sequence[Evaluated],
    directory: Path,
    synthetic: bool,
    allow_remote_tracking: bool,
    progress: Progress,
) -> None:
    """A parent run with all differences and the files, and a child for each, so that their numbers stand in columns."""
    one = compared.values[0].group.runs[0]
    labels = [_shorter(place, value.group.label) for place, value in enumerate(compared.values)]
    prefix = query_prefix(one.split, one.ranked.target, one.ranked.query, one.ranked.protocol) + compared.metric
    common: dict[str, Any] = {
        "cohort_name": one.cohort[0],
        "cohort_hash": one.cohort[1],
        "synthetic": synthetic,
        "log_patient_level": False,
        "allow_remote_tracking": allow_remote_tracking,
        "progress": progress,
    }
    tags = {"split": one.split, "metric": compared.metric, "protocol": one.ranked.protocol}
    ids = {evaluated.run.name: evaluated.run.tracked_as or "-" for evaluated in found}
    parent = open_tracker(
        tracking_uri,
        kind="compare",
        run_name=directory.name,
        tags={**tags, "compared_runs": ", ".join(ids), "compared_run_ids": ", ".join(ids.values())},
        **common,
    )
    for label, value in zip(labels, compared.values, strict=True):
        numbers = {"": value.percentile.estimate, "_ci_low": value.percentile.low, "_ci_high": value.percentile.high}
        if value.seed_sd is not None:
            numbers["_seed_sd"] = value.seed_sd
        parent.metrics({f"{prefix}{suffix}/{label}": number for suffix, number in numbers.items()})
    for difference in compared.differences:
        first, second = labels[difference.first], labels[difference.second]
        numbers = tables.difference_metrics(difference)
        parent.metrics({f"{prefix}_{key}/{first} minus {second}": number for key, number in numbers.items()})
        child = open_tracker(
            tracking_uri,
            kind="comparison",
            run_name=f"{first} minus {second}",
            tags={**tags, "first": first, "second": second},
            parent_run_id=parent.run_id,
            **common,
        )
        child.metrics({f"{prefix}_{key}": number for key, number in numbers.items()})
        child.finish()
    for file in (TABLE, RESULTS, FIGURE, PAGE):
        parent.artifact(directory / file, patient_level=False)
    parent.finish()


def _shorter(place: int, label: str) -> str:
    """A label that leaves room in the name of a metric, which MLflow limits to 250 characters."""
    return label if len(label) <= _LONGEST_LABEL else f"{tables.letter(place)} {label[:_LONGEST_LABEL]}"
