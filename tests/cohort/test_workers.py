"""The process pool: results in order, failures that surface, and light processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from symile_clin.cohort import workers
from symile_clin.cohort.workers import CHUNK, Workers
from symile_clin.errors import SourceError, WorkerError

PROGRAM = """
import sys
from functools import partial
from symile_clin.cohort.opening import ask_valid
from symile_clin.cohort.spec import load_spec
from symile_clin.cohort import workers
from symile_clin.cohort.workers import Workers
from symile_clin.modalities.registry import ROOMS
from tests.cohort.test_workers import heavy_modules

if __name__ == "__main__":
    workers.WORTH_STARTING_SECONDS = 0.0
    modality = load_spec("demo", (), ROOMS).make_modalities(ROOMS)["cxr"]
    with Workers(2) as pool:
        print(sorted(set(list(pool.map(partial(heavy_modules, modality), range(200)))[32:])))
"""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes start however little there is to do."""
    monkeypatch.setattr(workers, "WORTH_STARTING_SECONDS", 0.0)


def process_ids(items: Sequence[int]) -> list[int]:
    return [os.getpid() for _ in items]


def square(items: Sequence[int]) -> list[int]:
    return [item**2 for item in items]


def fail(items: Sequence[int]) -> list[int]:
    raise SourceError("no file", expected="one", remedy=f"Look at {items[0]}")


def die_at_negative(items: Sequence[int]) -> list[int]:
    """Like a decoder that crashes: no exception, no process."""
    results = []
    for item in items:
        workers.begin_item()
        if item < 0:
            os._exit(9)
        results.append(item**2)
    return results


def hang_at_negative(items: Sequence[int]) -> list[int]:
    for item in items:
        workers.begin_item()
        if item < 0:
            time.sleep(600)
    return square(items)


def heavy_modules(_modality: object, items: Sequence[int]) -> list[str]:
    heavy = [name for name in ("torch", "duckdb", "ibis", "mlflow", "matplotlib") if name in sys.modules]
    return [",".join(heavy) or "none" for _ in items]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order(count: int) -> None:
    items = list(range(10 * CHUNK + 3))
    with Workers(count) as pool:
        assert list(pool.map(square, items)) == [item**2 for item in items]
        assert list(pool.map(square, [])) == []


def test_little_work_starts_no_process() -> None:
    with Workers(2) as pool:
        assert set(pool.map(process_ids, range(3 * CHUNK))) == {os.getpid()}


@pytest.mark.usefixtures("eager")
def test_much_work_goes_to_other_processes() -> None:
    with Workers(2) as pool:
        found = list(pool.map(process_ids, range(20 * CHUNK)))
        assert os.getpid() not in found[CHUNK:]
        assert set(pool.map(process_ids, range(3))) <= set(found)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_crosses_the_process_border_whole(count: int) -> None:
    with Workers(count) as pool, pytest.raises(SourceError, match=r"no file\. Expected one\. Look at 0"):
        list(pool.map(fail, range(3 * CHUNK)))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("bad", [[40], [5, 6, 130], [CHUNK - 1, 255]])
def test_items_that_kill_their_process_are_found_and_all_others_unharmed(bad: list[int]) -> None:
    items = [-number if number in bad else number for number in range(256)]
    with Workers(2, cautious=True) as pool:
        found = list(pool.map(die_at_negative, items, died=lambda item: item))
        assert found == [item if item < 0 else item**2 for item in items]
        assert list(pool.map(square, range(300))) == [item**2 for item in range(300)]  # the pool goes on


@pytest.mark.usefixtures("eager")
def test_an_item_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SECONDS_PER_ITEM", 1.0)
    items = [1, 2, -3, 4]
    with Workers(2, cautious=True) as pool:
        assert list(pool.map(hang_at_negative, items, chunk=4, died=lambda _: 0)) == [1, 4, 0, 16]


@pytest.mark.usefixtures("eager")
def test_a_death_that_nothing_answers_for_is_one_line() -> None:
    with Workers(2, cautious=True) as pool, pytest.raises(WorkerError, match="a worker process died"):
        list(pool.map(die_at_negative, [1, -1]))


def test_a_cautious_pool_never_works_in_this_process() -> None:
    with Workers(1, cautious=True) as pool:
        assert os.getpid() not in set(pool.map(process_ids, range(3)))


def test_worker_processes_import_neither_torch_nor_the_table_engine() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "['none']"
