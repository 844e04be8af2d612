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

import torch._dynamo  # noqa: F401  the longest of the imports of a training

from symile_clin import cli
from symile_clin.pipeline import train  # noqa: F401  and the others

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
    began = time.monotonic()
    if _wait(_start(*new, "--name", "whole")):
        raise SystemExit("the undisturbed training failed")
    took = time.monotonic() - began
    expected = content(Path("runs/whole"))
    print(f"undisturbed: {took:.1f} s, {len(expected['log'])} epochs", flush=True)
    sent = dict.fromkeys(SIGNALS, 0)
    trainings = different = 0
    while sum(sent.values()) < options.kills and (
        options.minutes is None or time.monotonic() - began < 60 * options.minutes
    ):
        arguments, told = [*new, "--name", "killed"], []
        while True:
            process = _start(*arguments)
            time.sleep(draw.uniform(0.0, took))
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                number = draw.choice(SIGNALS)
                # its own group: started by this script
                (os.kill if number == signal.SIGKILL else os.killpg)(process, number)
                sent[number] += 1
                told.append(number.name.removeprefix("SIG"))
            if _wait(process) == 0:
                break
            if not told:
                raise SystemExit("a training that was left alone failed")
            if Path("runs/killed/started.json").exists():
                arguments = ["train", "--no-tracking", "--resume", "--name", "killed"]
            else:  # it had not begun, or took itself away again
                shutil.rmtree("runs/killed", ignore_errors=True)
                arguments = [*new, "--name", "killed"]
        same = content(Path("runs/killed")) == expected
        trainings, different = trainings + 1, different + (not same)
        print(f"{trainings}: {' '.join(told) or 'was faster'}: {'same' if same else 'DIFFERENT'}", flush=True)
        shutil.rmtree("runs/killed")
    kinds = ", ".join(f"{count} {number.name}" for number, count in sent.items())
    print(f"{sum(sent.values())} signals ({kinds}) to {trainings} trainings: {different} differ")
    return 1 if different else 0


def _start(*arguments: str) -> int:
    """Start a command in a forked process and a session of its own: the imports are there already."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.argv = ["symile-clin", *arguments, "--quiet"]
    code = 1
    try:
        cli.main()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        os._exit(code)


def _wait(process: int) -> int:
    """What it left with."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def content(run: Path) -> dict[str, Any]:
    """What a run came to, without what a wall clock decides."""
    found: dict[str, Any] = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*.safetensors")}
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {**found, "log": [{key: value for key, value in line.items() if "data_wait" not in key} for line in lines]}


def _call(*arguments: str) -> None:
    subprocess.run([*PROGRAM, *arguments, "--quiet"], check=True)


if __name__ == "__main__":
    sys.exit(main())
