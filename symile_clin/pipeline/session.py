"""`symile-clin demo`: the whole way on synthetic patients, each step by the command it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from symile_clin.pipeline.cohorts import BuildResult, build_cohort
from symile_clin.pipeline.evaluation import evaluate
from symile_clin.pipeline.trained import Measured
from symile_clin.pipeline.training import TrainResult, train
from symile_clin.progress import Progress
from symile_clin.schema import REPORT, TRACKING_URI


@dataclass(frozen=True)
class DemoResult:
    """What the three steps gave."""

    build: BuildResult
    training: TrainResult
    evaluation: Measured

    def text(self) -> str:
        """The retrieval table and where to look next."""
        return (
            f"{self.evaluation.text()}\n\n"
            f"Cohort    {self.build.path}: symile-clin cohort describe\n"
            f"Run       {self.training.run}\n"
            f"Report    {self.evaluation.directory / REPORT}\n"
            "Compare   symile-clin train --objective clip && symile-clin eval --bootstrap 10, then symile-clin compare"
        )

    def record(self) -> Mapping[str, Any]:
        """The three steps' records."""
        return {
            "cohort": self.build.record(),
            "train": self.training.record(),
            "eval": self.evaluation.record(),
        }


def demo(
    *,
    device: str = "auto",
    tracking_uri: str | None = TRACKING_URI,
    log_patient_level: bool = False,
    allow_remote_tracking: bool = False,
    progress: Progress,
) -> DemoResult:
    """Build the demo cohort, train its preset, evaluate it with the paper's ten bootstrap resamples."""
    tracking: dict[str, Any] = {
        "tracking_uri": tracking_uri,
        "log_patient_level": log_patient_level,
        "allow_remote_tracking": allow_remote_tracking,
    }
    progress.say("1 of 3: symile-clin cohort build --demo")
    build = build_cohort(demo=True, progress=progress, **tracking)
    progress.say("2 of 3: symile-clin train")
    training = train(cohort=build.path, device=device, progress=progress, **tracking)
    progress.say("3 of 3: symile-clin eval --bootstrap 10")
    evaluation = evaluate(run=training.run.name, bootstrap=10, device=device, progress=progress, **tracking)
    return DemoResult(build=build, training=training, evaluation=evaluation)
