"""Points at which code touches the disk: found by an audit hook, and struck there by a kill or a full disk.

A `Point` is a place in the code, an event that Python's audit hooks tell of (`open` for writing, `os.rename`, ...) and
the number of times it was there before: threads may change the order of all events, but not of those at one place.
Every stage runs in a process of its own, forked from one that has everything imported (`Session`), in a working
directory that is watched; what lies elsewhere is not. C++ and Rust write without telling (pyarrow given a path,
safetensors, SQLite, DuckDB): what is before and after each of their files is a point, and for their middles there is
`Fault.torn` and scripts/kill_stages.py.

    with Session() as session:
        clean = session.run("synth", folder)
        for point in clean.points:
            session.run("synth", another_folder, Fault.kill(point))

Where a stage takes long, one run goes through all of its points: at each, a fork of the process is killed in its place,
and what it leaves in the folder is copied (`Session.run(..., copies=)`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, NamedTuple, Self

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = f"{ROOT / 'symile_clin'}{os.sep}"
#: Events with the number of the argument that is the path that changes, and of the folder's descriptor, if any.
EVENTS: Final[Mapping[str, tuple[int, int | None]]] = {
    "open": (0, None),
    "os.mkdir": (0, 2),
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.truncate": (0, None),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.chmod": (0, 2),
    "sqlite3.connect": (0, None),
}
#: What gives a final name to something.
NAMES: Final = frozenset({"os.rename", "exchange"})
#: What takes room, and so fails for as long as a disk is full.
GROWS: Final = frozenset({"open", "os.mkdir", "os.link", "os.symlink"})
WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Seconds after which a stage is taken for hung: its process gets SIGALRM.
PATIENCE: Final = 240
#: A thread of pyarrow's allocator, which knows of forks.
JEMALLOC: Final = "jemalloc_bg_thd"
#: Python passes this signal over; here it ends the process.
TOO_LARGE: Final = signal.SIGXFSZ


class Point(NamedTuple):
    """One moment of a stage.

    Attributes:
        event: audit event; `sync` is an `open` for an fsync, `exchange` two paths that change places in one step.
        place: frames of the package from the innermost to the first that is not files.py's, as `file:line function`.
        occurrence: how often this event has been at this place before.
    """

    event: str
    place: str
    occurrence: int


class Seen(NamedTuple):
    """A point that was come to.

    Attributes:
        path: that was about to change, relative to the working directory, with `PID` for the process' own number.
        bytes: of the file there.
        thread: number of the thread, 0 for the first.
    """

    point: Point
    path: str
    bytes: int
    thread: int


class Fault(NamedTuple):
    """What happens, and when.

    Attributes:
        kind: `kill` is SIGKILL just before the operation. `full` is OSError(ENOSPC) instead of the operation, and
            instead of whatever takes room later, but it never forbids removing. `torn` ends the process in the middle
            of the next write that would make a file larger than `bytes`.
        point: where.
        bytes: see `torn`.
    """

    kind: Literal["kill", "full", "torn"]
    point: Point
    bytes: int = 0

    @classmethod
    def kill(cls, point: Point) -> Fault:
        """SIGKILL."""
        return cls("kill", point)

    @classmethod
    def full(cls, point: Point) -> Fault:
        """No space left on the device from now on."""
        return cls("full", point)

    @classmethod
    def torn(cls, point: Point, size: int) -> Fault:
        """A process that dies within the write that passes `size` bytes."""
        return cls("torn", point, size)


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        code: exit code, or the negative number of the signal that ended it.
        output: stdout and stderr.
        seen: the points that it came to, in order.
        copies: by point at which a fork of it was killed (the first at each place, and each that gives a name), the
            name of the copy of what that one left; points between which nothing changed have the same.
        seconds: of processor time that it took.
    """

    code: int
    output: str
    seen: tuple[Seen, ...]
    copies: Mapping[Point, str]
    seconds: float

    @property
    def points(self) -> list[Point]:
        """Of `seen`."""
        return [seen.point for seen in self.seen]

    @property
    def struck(self) -> bool:
        """Whether it was killed at a point or torn, and did not end by itself."""
        return self.code in (-signal.SIGKILL, -TOO_LARGE)


def ends(points: Iterable[Point]) -> list[Point]:
    """The first and the last occurrence of each event at each place, in the order of their first."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        kept = found.setdefault((point.event, point.place), [point])
        kept[1:] = [] if point == kept[0] else [point]
    return [point for kept in found.values() for point in kept]


def firsts(points: Iterable[Point]) -> list[Point]:
    """The first occurrence of each event at each place."""
    return [point for point in points if point.occurrence == 0]


class Session:
    """A process that has all imported and starts stages of tests/faults/stages.py in forked ones."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.points"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MPLBACKEND": "agg"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def run(
        self,
        stage: str,
        folder: Path,
        fault: Fault | None = None,
        *,
        copies: Path | None = None,
        given: Sequence[str] = (),
        after: tuple[float, int] | None = None,
    ) -> Outcome:
        """Run a stage in `folder`, to its end or to the fault.

        Args:
            copies: an empty folder for what forks leave that are killed at the points.
            given: entries of `folder` that no stage changes, and that are not copied.
            after: seconds, and the signal that the stage's process group gets then.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request: dict[str, Any] = {
            "stage": stage,
            "folder": str(folder.resolve()),
            "fault": fault,
            "given": list(given),
        }
        request["after"] = after
        request["copies"] = None if copies is None else str(copies.resolve())
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        assert line, "the process that starts stages has ended"
        reply = json.loads(line)
        notes = [(Point(*point), rest, copy) for (point, *rest), copy in reply.pop("notes")]
        seen = tuple(Seen(point, *rest) for point, rest, _ in notes)
        return Outcome(**reply, seen=seen, copies={point: copy for point, _, copy in notes if copy is not None})


class Watch:
    """The audit hook.

    Args:
        folder: what is below it is watched.
        fault: to strike, if any.
        notes: file descriptor that every point is written to before it is passed.
        copies: where to copy what forks leave that are killed, if they are to be.
        given: entries of the folder that are not copied.
    """

    def __init__(
        self, folder: Path, fault: Fault | None, notes: int, *, copies: Path | None = None, given: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._copies = copies
        self._given = frozenset(given)
        self._states: list[object] = []
        self._within = f"{folder}{os.sep}"
        self._fault = fault
        self._notes = notes
        self._counts: Counter[tuple[str, str]] = Counter()
        self._threads: dict[int, int] = {}
        self._lock = threading.RLock()
        self._is_full = self._is_limited = self._is_copying = False
        self._process = os.getpid()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """One event; most are none of ours."""
        if os.getpid() != self._process or self._is_copying:  # workers are their owner's affair
            return
        if event == "ctypes.dlsym" and arguments[1] == "renameat2":
            name, path = "exchange", self._within
        elif event in EVENTS:
            found = self._changes(event, arguments)
            if found is None:
                return
            name, path = found
        else:
            return
        with self._lock:
            place = _place(sys._getframe(1))
            point = Point(name, place, self._counts[name, place])
            self._counts[name, place] += 1
            thread = self._threads.setdefault(threading.get_ident(), len(self._threads))
            shown = path.removeprefix(self._within).replace(f".{self._process}.", ".PID.")
            seen = Seen(point, shown, _bytes(path), thread)
            is_due = self._copies is not None and (point.occurrence == 0 or name in NAMES)
            copy = self._kill_a_fork() if is_due else None
            if not self._is_limited:  # the notes are a file, too
                os.write(self._notes, f"{json.dumps([seen, copy])}\n".encode())
            self._strike(name, point, path)

    def _kill_a_fork(self) -> str:
        """The name of the copy of what a fork of this process leaves that is killed here."""
        assert self._copies is not None
        fork = os.fork()
        if fork == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == -signal.SIGKILL
        own = [path for path in self._folder.iterdir() if path.name not in self._given]
        state = sorted(
            (str(path), found.st_ino, found.st_size, found.st_mtime_ns)
            for top in own
            for path in (top, *top.rglob("*"))
            for found in [path.lstat()]
        )
        if not self._states or state != self._states[-1]:
            self._states.append(state)
            self._is_copying = True
            target = self._copies / str(len(self._states))
            target.mkdir()
            for path in own:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, target / path.name)
            self._is_copying = False
        return str(len(self._states))

    def _changes(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str] | None:
        """The event's name here and the path that it changes; None if it changes none that is watched."""
        number, folder = EVENTS[event]
        path = arguments[number]
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        path = os.fsdecode(path)
        if folder is not None and arguments[folder] != -1:
            path = str(Path(f"/proc/self/fd/{arguments[folder]}").readlink() / path)
        path = os.path.abspath(path)  # noqa: PTH100  pathlib's own would resolve nothing else
        if not path.startswith(self._within):
            return None
        if event == "open" and not arguments[2] & WRITES:
            return ("sync", path) if sys._getframe(2).f_code.co_name == "_sync" else None
        return event, path

    def _strike(self, name: str, point: Point, path: str) -> None:
        if self._is_full and name in GROWS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self._fault is None or point != self._fault.point:
            return
        if self._fault.kind == "kill":
            os.kill(self._process, signal.SIGKILL)
        elif self._fault.kind == "full":
            self._is_full = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        else:
            self._is_limited = True
            signal.signal(TOO_LARGE, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._fault.bytes, resource.RLIM_INFINITY))


def _place(frame: FrameType | None) -> str:
    """Where in the package an event comes from."""
    found, outside = [], ""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            file = code.co_filename.removeprefix(PACKAGE)
            found.append(f"{file}:{frame.f_lineno} {code.co_name}")
            if file != "files.py":
                break
        elif not found and not outside:
            outside = f"({Path(code.co_filename).name} {code.co_name})"
        frame = frame.f_back
    return " < ".join(found) or outside


def _bytes(path: str) -> int:
    try:
        found = os.stat(path)  # noqa: PTH116  a plain call: the hook is called in the middle of others
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _serve() -> None:
    """Read requests from stdin, fork a child for each, and print how it ended."""
    from tests.faults import stages

    stages.preload()
    replies, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        threads = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
        assert len([name for name in threads if name != JEMALLOC]) == 1, f"a fork would lose threads: {threads}"
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as notes:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            child = os.fork()
            if child == 0:
                _run(stages.STAGES[request["stage"]], request, output.fileno(), notes.fileno())
            if request["after"] is not None:
                _signal(child, *request["after"])
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # workers whose owner is dead
            output.seek(0)
            notes.seek(0)
            found = [json.loads(one) for one in notes.read().splitlines()]
            said = output.read().decode(errors="replace")
        print(json.dumps({"code": code, "output": said, "notes": found, "seconds": seconds}), file=replies, flush=True)


def _signal(child: int, seconds: float, number: int) -> None:
    """Send a signal to the group of a child after some time, unless it has ended."""
    time.sleep(seconds)
    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        with contextlib.suppress(ProcessLookupError):  # it has no group yet
            os.killpg(child, number)
            return
        os.kill(child, number)


def _run(stage: Any, request: Mapping[str, Any], output: int, notes: int) -> None:
    """One stage, in the forked process; never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(request["folder"])
        signal.alarm(PATIENCE)
        given = request["fault"]
        fault = None if given is None else Fault(given[0], Point(*given[1]), *given[2:])
        copies = None if request["copies"] is None else Path(request["copies"])
        folder = Path(request["folder"])
        sys.addaudithook(Watch(folder, fault, notes, copies=copies, given=request["given"]))
        stage.act()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
    os._exit(0)  # taking all apart that was imported takes seconds
