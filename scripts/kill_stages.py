"""Kill stages at random moments and see whether the next run finishes them to the same bytes.

    python scripts/kill_stages.py --stage build --kills 50
    python scripts/kill_stages.py --stage all --kills 50 --minutes 5

The stages are those of tests/faults/stages.py, on tiny data, as the command line runs them; `build-2` also has worker
processes. Each is run once undisturbed. Then, again and again, it is started in a process group of its own that gets
SIGKILL at a random moment of the time that the undisturbed one took. What has a final name then must be what it was
before or what the undisturbed stage made, checkpoints must load, and the next run must come to the same bytes, what a
clock decides apart, with nothing left over. `--signals` sends SIGTERM, SIGINT and SIGUSR1 to trainings, too. Prints one
line a kill and one figure a stage; leaves with 1 on any difference.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults.points import Session  # noqa: E402
from tests.faults.test_kills import Scenes, nothing_partial  # noqa: E402

KILLED = (
    "synth",
    "build",
    "build-2",
    "rebuild",
    "train",
    "checkpoint",
    "embed",
    "embed npz",
    "index",
    "eval",
    "report",
)
POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def main() -> int:
    """Run the experiment; 0 if every stage came to what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=[*KILLED, "all"], default="all")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, help="At most so long a stage, whatever --kills says.")
    parser.add_argument("--signals", action="store_true", help="Polite signals to trainings, too.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stages = KILLED if options.stage == "all" else (options.stage,)
    with tempfile.TemporaryDirectory() as folder, Session() as session:
        scenes = Scenes(session, Path(folder))
        return max([experiment(stage, session, scenes, options) for stage in stages])


def experiment(stage: str, session: Session, scenes: Scenes, options: argparse.Namespace) -> int:
    """Kill one stage many times; 1 if anything was different."""
    draw = random.Random(f"{options.seed} {stage}")
    scene = scenes.of(stage)
    longest = max(timed(stage, session, scenes) for _ in range(2))
    killed = faster = different = 0
    began = time.monotonic()
    while killed < options.kills and (options.minutes is None or time.monotonic() - began < 60 * options.minutes):
        scenes.restart(scene)
        number = draw.choice((*POLITE, signal.SIGKILL)) if options.signals and stage == "train" else signal.SIGKILL
        moment = draw.uniform(0.0, longest)
        done = session.run(stage, scene.folder, after=(moment, number))
        if done.code == 0:
            faster += 1
        else:
            killed += 1
        try:
            nothing_partial(scene)
            scenes.again(scene)
        except AssertionError as error:
            different += 1
            verdict = f"DIFFERENT: {error}"
        else:
            verdict = "same"
        print(f"{stage}: {number.name} after {moment:.2f} s, {done.code}: {verdict}", flush=True)
    print(f"{stage}: {killed} kills ({faster} runs were faster), {different} differ; {longest:.2f} s long", flush=True)
    return 1 if different else 0


def timed(stage: str, session: Session, scenes: Scenes) -> float:
    """Seconds that a stage takes when nothing disturbs it."""
    scenes.restart(scenes.of(stage))
    began = time.monotonic()
    done = session.run(stage, scenes.of(stage).folder)
    if done.code:
        raise SystemExit(done.output)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
