"""`symile-clin xor`: the paper's synthetic experiment, from a preset to a figure and a tracked run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_clin import __version__, files
from symile_clin.errors import ConfigError
from symile_clin.experiments import xor_report
from symile_clin.experiments.settings import EXPERIMENT, XorConfig, load_xor_config
from symile_clin.experiments.xor import XorResult, run_xor
from symile_clin.pipeline.runs import new_run_directory
from symile_clin.pipeline.tracked import EXPERIMENT as TRACKED_IN
from symile_clin.progress import Progress
from symile_clin.schema import CONFIG, RUNS_ROOT, TRACKING_URI
from symile_clin.strict import dump_yaml
from symile_clin.tracking import NullTracker, Tracker, start_run

RESULTS = "results.json"
TABLE = "results.csv"
FIGURE = "xor.png"


@dataclass(frozen=True)
class XorOutcome:
    """A finished experiment.

    Attributes:
        results: all numbers, as in results.json.
        table: the accuracies for a terminal.
    """

    directory: Path
    results: Mapping[str, Any]
    table: str

    def text(self) -> str:
        """The accuracies and where the rest is."""
        shown = [name for name in (FIGURE, TABLE, RESULTS) if (self.directory / name).exists()]
        return f"{self.table}\n{self.results['seconds']:.0f} s; {', '.join(shown)} in {self.directory}"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {"directory": str(self.directory), **self.results}


def xor(
    *,
    preset: str | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    tracking_uri: str | None = TRACKING_URI,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> XorOutcome:
    """Train objectives on XOR vectors; write their accuracies beside the information terms.

    Args:
        preset: a config's name or file; None takes the paper's, xor.
        out: where the results go; None numbers them in runs/.
        overrides: `key=value` settings that win over the preset.
        workers: processes; None takes one per core. Their number changes no figure.
        tracking_uri: MLflow store; None records nothing.
        allow_remote_tracking: `tracking_uri` may be a server or a database elsewhere.

    Raises:
        NotFoundError: no such preset.
        ConfigError: settings that make no sense, or an `out` that is in use.
        TrainingError: a loss or gradient that is not finite.
    """
    config = load_xor_config(preset or EXPERIMENT, overrides=overrides)
    count = len(config.p) * len(config.objectives) * len(config.seeds)
    started = time.monotonic()
    with _directory(config, out) as (directory, temporary):
        progress.say(
            f"Training {count} models with preset {config.preset}: {config.variables} variables of {config.bits} bits, "
            f"{len(config.p)} values of p, seeds {', '.join(map(str, config.seeds))}."
        )
        tracker = _tracker(config, directory, tracking_uri, allow_remote_tracking, progress)
        try:
            files.write_text(temporary / CONFIG, dump_yaml(config.model_dump(mode="json")))
            result = run_xor(**config.model_dump(exclude={"preset", "experiment"}), workers=workers, progress=progress)
            seconds = round(time.monotonic() - started, 1)
            results = {"preset": config.preset, "version": __version__, "seconds": seconds, **xor_report.record(result)}
            files.write_json(temporary / RESULTS, results)
            files.write_text(temporary / TABLE, xor_report.csv_text(result))
            if len(config.p) > 1:
                title = f"{config.variables} vectors of {config.bits} bits, {len(config.seeds)} seeds"
                xor_report.draw(temporary / FIGURE, result, title=title, target=config.target)
        except BaseException as error:
            tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
            raise
    _track(tracker, config, result, directory)
    return XorOutcome(directory=directory, results=results, table=xor_report.table(result))


@contextmanager
def _directory(config: XorConfig, out: Path | None) -> Iterator[tuple[Path, Path]]:
    """What will hold the results, and where to fill it."""
    if out is None:
        with new_run_directory(Path(RUNS_ROOT), None, default=config.preset.replace("_", "-")) as new:
            yield new
        return
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty", remedy="Choose another --out")
    with files.atomic_directory(out) as folder:
        yield out, folder


def _tracker(config: XorConfig, directory: Path, uri: str | None, allow_remote: bool, progress: Progress) -> Tracker:
    if uri is None:
        return NullTracker()
    return start_run(
        uri=uri,
        experiment=TRACKED_IN,
        run_name=directory.name,
        tags={"kind": EXPERIMENT, "preset": config.preset, "patients": "none"},
        allow_remote=allow_remote,
        progress=progress,
    )


def _track(tracker: Tracker, config: XorConfig, result: XorResult, directory: Path) -> None:
    """Accuracies as curves over 100 p, so that MLflow draws them."""
    settings = config.model_dump(mode="json")
    tracker.params({key: value for key, value in settings.items() if key not in ("preset", "experiment")})
    for one in result.accuracies:
        name = f"test/{config.target}/{one.objective}/accuracy"
        found = {name: one.interval.estimate, f"{name}_ci_low": one.interval.low, f"{name}_ci_high": one.interval.high}
        tracker.metrics(found, step=round(100 * one.p))
    for file in (CONFIG, RESULTS, TABLE, FIGURE):
        if (directory / file).exists():
            tracker.artifact(directory / file, patient_level=False)
    tracker.finish()
