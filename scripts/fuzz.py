"""Feed readers of untrusted files with bytes that nobody would write, for as long as there is time.

    python scripts/fuzz.py --minutes 60
    python scripts/fuzz.py --minutes 5 --target header --keep /tmp/found

What must hold of any bytes is in tests/fuzz/targets.py. Where atheris is installed (`pip install --group fuzz`), inputs
are bred by the lines they reach, in a process for each target; elsewhere hypothesis makes them. Inputs that broke
something are kept, and so is the corpus, with which the next run goes on. Prints executions and findings by target;
leaves with 1 if there was any finding.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("header", "spec", "config", "join", "image", "csv", "path")
#: Libraries whose branches count as reached, too.
INSTRUMENTED = ("symile_clin", "yaml", "pydicom", "wfdb.io.header", "wfdb.io._header", "wfdb.io.record")
SECONDS_PER_INPUT = 20
MEGABYTES = 3000
LONGEST = 20_000  #: bytes of an input
#: The last line of a traceback, or of what libFuzzer ends with.
SAID = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Warning)\b.*$|^==\d+== ?ERROR.*$", re.MULTILINE)


def main() -> int:
    """Fuzz one target after the other; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of all targets together")
    parser.add_argument("--target", choices=NAMES, action="append", help="may be repeated; all by default")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="where corpus and findings go")
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], help="atheris where it is installed")
    parser.add_argument("--inside", choices=NAMES, help=argparse.SUPPRESS)  # the process that atheris takes over
    arguments, others = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    if arguments.inside:
        return _taken_over(arguments.inside, others)
    if others:
        parser.error(f"unknown arguments {' '.join(others)}")
    guided = importlib.util.find_spec("atheris") is not None and arguments.engine != "hypothesis"
    if arguments.engine == "atheris" and not guided:
        parser.error("atheris is not installed")
    targets = arguments.target or list(NAMES)
    print(f"{'target':8} {'engine':10} {'seconds':>8} {'executions':>11} {'findings':>9}")
    total = 0
    for target in targets:
        started = time.monotonic()
        folder = arguments.keep.resolve() / target
        folder.mkdir(parents=True, exist_ok=True)
        run = _by_coverage if guided else _by_properties
        executions, findings = run(target, folder, started + 60 * arguments.minutes / len(targets))
        spent = time.monotonic() - started
        name = "atheris" if guided else "hypothesis"
        print(f"{target:8} {name:10} {spent:8.0f} {executions:11,} {len(findings):9}", flush=True)
        for finding in findings:
            print(f"         {finding}")
        total += len(findings)
    return 1 if total else 0


def _by_coverage(target: str, folder: Path, deadline: float) -> tuple[int, list[str]]:
    """Executions and findings of processes, each of which ends with its first finding."""
    corpus, found = folder / "corpus", folder / "findings"
    for place in (corpus, found):
        place.mkdir(exist_ok=True)
    from tests.fuzz.targets import seeds

    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    executions = 0
    findings: list[str] = []
    while (left := int(deadline - time.monotonic())) >= 1:
        command = [
            sys.executable, __file__, "--inside", target, str(corpus), f"-artifact_prefix={found}/",
            f"-max_total_time={left}", f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={MEGABYTES}",
            f"-max_len={LONGEST}", "-print_final_stats=1", "-verbosity=1",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
        counted = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        steps = re.findall(r"^#(\d+)\s", done.stderr, flags=re.MULTILINE)
        executions += int(counted[1]) if counted else int(steps[-1]) if steps else 0
        if done.returncode == 0:
            continue
        text = done.stdout + done.stderr
        (folder / f"log-{len(findings)}.txt").write_text(text)
        said = re.findall(
            r"^(?:\w+\.)*\w*(?:Error|Exception|Warning)\b.*$|^==\d+== ?ERROR.*$", text, flags=re.MULTILINE
        )
        findings.append(f"{said[-1] if said else f'exit code {done.returncode}'} ({folder}/log-{len(findings)}.txt)")
        if len(findings) == 20 or (not counted and not steps):
            break
    return executions, findings


def _taken_over(target: str, arguments: list[str]) -> int:
    """Give the process to libFuzzer; it does not come back."""
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()
    return 0


def _by_properties(target: str, folder: Path, deadline: float) -> tuple[int, list[str]]:
    """Executions and findings of hypothesis, with another seed for each thousand examples."""
    from hypothesis import HealthCheck, given, seed, settings

    from tests.fuzz.strategies import files_of
    from tests.fuzz.targets import TARGETS

    executions, number = 0, 0
    findings: list[str] = []
    check = TARGETS[target]

    class Over(BaseException):
        """There is no time left."""

    def counted(data: bytes) -> None:
        nonlocal executions
        if time.monotonic() > deadline:
            raise Over
        executions += 1
        try:
            check(data)
        except Exception:
            (folder / "last").write_bytes(data)  # of what hypothesis shows, the smallest is the last
            raise

    while time.monotonic() < deadline and len(findings) < 20:
        number += 1
        run: Callable[[], None] = seed(number)(
            settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
                given(files_of(target))(counted)
            )
        )
        try:
            run()
        except Over:
            break
        except Exception as error:
            kept = folder / f"finding-{len(findings)}"
            (folder / "last").replace(kept)
            findings.append(f"{type(error).__name__}: {str(error)[:200]} ({kept})")
    return executions, findings


if __name__ == "__main__":
    sys.exit(main())
