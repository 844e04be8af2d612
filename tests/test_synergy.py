"""What Symile is for: on the demo cohort it finds what no pair of modalities tells, and pairwise CLIP cannot.

Three seeds, the default demo preset for both objectives, everything through the program's own commands.
"""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from symile_clin.data.store import open_cohort
from symile_clin.evaluation.bootstrap import paired_difference
from symile_clin.evaluation.retrieval import Ranks
from symile_clin.rng import stream
from symile_clin.schema import QUERY_ROW, SUBJECT_ID
from tests.conftest import COMMAND
from tests.test_readme import run_metrics

COHORT = "data/cohorts/demo"
TARGET = "test/cxr/recall_at_1"


def _trained(session: Path, objective: str, seed: int) -> str:
    """The name of a run of the demo preset with this objective and seed, evaluated."""
    name = f"{objective}-seed-{seed}"
    train = ["train", "demo", "--cohort", COHORT, "--objective", objective, "--set", f"seed={seed}", "--name", name]
    for arguments in (train, ["eval", name]):
        subprocess.run([COMMAND, *arguments, "--no-tracking", "--quiet"], cwd=session, check=True, timeout=600)
    return name


def _ranks(session: Path, run: str) -> pd.DataFrame:
    return pd.read_parquet(session / "runs" / run / "eval" / "test" / "ranks.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_symile_beats_pairwise_clip_and_the_pairs_ceiling(session: Path, seed: int) -> None:
    symile, clip = (_trained(session, objective, seed) for objective in ("symile", "clip"))
    ours, theirs = _ranks(session, symile), _ranks(session, clip)
    pd.testing.assert_series_equal(ours[QUERY_ROW], theirs[QUERY_ROW])
    subjects = open_cohort(session / COHORT).samples[SUBJECT_ID].to_numpy()[ours[QUERY_ROW].to_numpy()]
    hits = [Ranks(run["n_greater"].to_numpy(), run["n_tied"].to_numpy()).recall_at(1) for run in (ours, theirs)]
    difference = paired_difference(hits[0], hits[1], subjects, rng=stream(0, "synergy"))
    metrics = run_metrics(session, symile)
    print(f"seed {seed}: Symile {metrics[TARGET]:.3f}, difference {difference}")
    assert difference.low > 0
    assert metrics[f"{TARGET}_ci_low"] > metrics[f"{TARGET}_ceiling_pairs"]
