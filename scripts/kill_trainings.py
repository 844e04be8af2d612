"""Stop or kill trainings at random moments and see whether the ones gone on with come to the same bytes.

    python scripts/kill_trainings.py --kills 50

Synthetic patients are made a cohort and trained on once, undisturbed. Then, again and again: a training (of its own
process group) is sent a random one of SIGTERM, SIGINT, SIGUSR1 and SIGKILL at a random moment, the first three to the
group, and gone on with, perhaps to be sent another, until it ends by itself. Both checkpoints' weights and every line
of metrics.jsonl but for the waiting times must be what they were. Prints one line a training, and the figure; leaves
with 1 on any difference. A checkpoint is written after every step here, so that kills meet them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-c", "import sys; from symile_clin.cli import main; main()"]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL)
FOLDERS = {"--mimic-iv": "mimic-iv", "--mimic-cxr": "mimic-cxr-jpg", "--mimic-ecg": "mimic-iv-ecg"}


def main() -> int:
    """Run the experiment; 0 if every training came to what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=0, help="Of the trainings.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="Stop after so long, whatever --kills says.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        return experiment(options)


def experiment(options: argparse.Namespace) -> int:
    """Train, then kill, go on, compare."""
    draw = random.Random(options.seed)
    _call("synth", "tree", "--patients", str(options.patients))
    roots = [part for option, name in FOLDERS.items() for part in (option, f"tree/{name}")]
    sizes = ["--set", "splits.val=15", "--set", "candidates.n=4", "--no-tracking"]
    _call("cohort", "build", "demo", *roots, *sizes)
    settings = (
        f"training.epochs={options.epochs}",
        "training.batch_size=8",
        f"training.workers={options.workers}",
        "training.checkpoint_minutes=1.0e-6",
    )
    new = ["train", "--no-tracking", *(part for setting in settings for part in ("--set", setting))]
    started = time.monotonic()
    _call(*new, "--name", "whole")
    took = time.monotonic() - started
    expected = content(Path("runs/whole"))
    print(f"undisturbed: {took:.1f} s, {len(expected['log'])} epochs", flush=True)
    sent = dict.fromkeys(SIGNALS, 0)
    trainings = different = 0
    while sum(sent.values()) < options.kills and (
        options.minutes is None or time.monotonic() - started < 60 * options.minutes
    ):
        shutil.rmtree("runs/killed", ignore_errors=True)
        arguments, told = [*new, "--name", "killed"], []
        while True:
            process = subprocess.Popen(
                [*PROGRAM, *arguments, "--quiet"], start_new_session=True, stderr=subprocess.DEVNULL
            )
            until = time.monotonic() + draw.uniform(0.0, 1.2 * took)
            while process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            if process.poll() is None:
                number = draw.choice(SIGNALS)
                if number == signal.SIGKILL:
                    process.kill()
                else:
                    os.killpg(process.pid, number)  # its own group: started by this script
                sent[number] += 1
                told.append(number.name.removeprefix("SIG"))
            code = process.wait()
            if code == 0:
                break
            if Path("runs/killed/started.json").exists():  # else it had not begun, or took itself away again
                arguments = ["train", "--no-tracking", "--resume", "--name", "killed"]
            elif not told:
                raise SystemExit(f"a training that was left alone failed with {code}")
            else:
                shutil.rmtree("runs/killed", ignore_errors=True)
                arguments = [*new, "--name", "killed"]
        same = content(Path("runs/killed")) == expected
        trainings, different = trainings + 1, different + (not same)
        print(f"{trainings}: {' '.join(told) or 'was faster'}: {'same' if same else 'DIFFERENT'}", flush=True)
    kinds = ", ".join(f"{count} {number.name}" for number, count in sent.items())
    print(f"{sum(sent.values())} signals ({kinds}) to {trainings} trainings: {different} differ")
    return 1 if different else 0


def content(run: Path) -> dict[str, Any]:
    """What a run came to, without what a wall clock decides."""
    found: dict[str, Any] = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*.safetensors")}
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {**found, "log": [{key: value for key, value in line.items() if "data_wait" not in key} for line in lines]}


def _call(*arguments: str) -> None:
    subprocess.run([*PROGRAM, *arguments, "--quiet"], check=True)


if __name__ == "__main__":
    sys.exit(main())
