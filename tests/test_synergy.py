"""What Symile is for: on the demo cohort it finds what no pair of modalities tells, and pairwise CLIP cannot.

Three seeds, the default demo preset for both objectives, everything through the program's own commands.
"""

import subprocess
from pathlib import Path

import pytest

from symile_clin.data.store import open_cohort
from symile_clin.evaluation.bootstrap import paired_difference
from symile_clin.evaluation.ranked import Ranked, read_ranked
from symile_clin.rng import stream
from symile_clin.schema import SUBJECT_ID
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


def _ranked(session: Path, run: str) -> Ranked:
    found = read_ranked(session / "runs" / run / "eval" / "test" / "ranks.parquet")
    return next(one for one in found if one.target == "cxr" and one.protocol == "candidates")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_symile_beats_pairwise_clip_and_the_pairs_ceiling(session: Path, seed: int) -> None:
    symile, clip = (_trained(session, objective, seed) for objective in ("symile", "clip"))
    ours, theirs = _ranked(session, symile), _ranked(session, clip)
    assert ours.query == theirs.query == ("ecg", "labs")
    assert (ours.query_row == theirs.query_row).all()
    subjects = open_cohort(session / COHORT).samples[SUBJECT_ID].to_numpy()[ours.query_row]
    hits = [one.ranks.recall_at(1) for one in (ours, theirs)]
    difference = paired_difference(hits[0], hits[1], subjects, rng=stream(0, "synergy"))
    metrics = run_metrics(session, symile)
    print(f"seed {seed}: Symile {metrics[TARGET]:.3f}, difference {difference}")
    assert difference.low > 0
    assert metrics[f"{TARGET}_ci_low"] > metrics[f"{TARGET}_ceiling_pairs"]
