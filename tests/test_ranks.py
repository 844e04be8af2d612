"""What processes exchange: rows in order, sums, what the first one found, and the end of one of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from symile_clin.errors import ConfigError, WorkerError
from symile_clin.ranks import ALONE, Ranks, launched
from tests.processes import in_processes


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 3, 7, 12])
def test_parts_cover_all_rows_in_order_and_differ_by_at_most_one(size: int, n: int) -> None:
    parts = [list(range(n))[Ranks(rank, size).mine(n)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert [len(part) for part in parts] == Ranks(0, size).sizes(n)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _exchange(ranks: Ranks) -> dict[str, Any]:
    looked: list[int] = []

    def find() -> str:
        looked.append(ranks.rank)
        return f"found by {ranks.rank}"

    def fail() -> str:
        raise ConfigError("found nothing", remedy="Look elsewhere")

    rows = torch.arange(14).reshape(7, 2)
    failed = ""
    try:
        ranks.first(fail)
    except ConfigError as error:
        failed = f"{error} {error.exit_code}"
    mine = rows[ranks.mine(7)].float().requires_grad_()
    return {
        "rows": ranks.gather(rows[ranks.mine(7)], 7),
        "flags": ranks.gather(rows[ranks.mine(7), 0] % 3 == 0, 7),
        "few": ranks.gather(torch.tensor([5.0])[ranks.mine(1)], 1),
        "has gradient": ranks.gather(mine, 7).requires_grad or ranks.sum(mine.sum()).requires_grad,
        "sum": ranks.sum(torch.tensor([1.0, float(ranks.rank)])),
        "of a transposed one": ranks.sum(torch.arange(6.0).reshape(2, 3).T),
        "max": ranks.max(torch.tensor([ranks.rank, -ranks.rank])),
        "first": ranks.first(find),
        "looked": looked,
        "failed": failed,
    }


@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_processes_come_to_the_same(size: int) -> None:
    found = in_processes(size, _exchange) if size > 1 else [_exchange(ALONE)]
    for rank, one in enumerate(found):
        assert one["rows"].tolist() == torch.arange(14).reshape(7, 2).tolist()
        assert one["flags"].tolist() == [True, False, False] * 2 + [True]
        assert one["few"].tolist() == [5.0]
        assert not one["has gradient"]
        assert one["sum"].tolist() == [size, sum(range(size))]
        assert torch.equal(one["of a transposed one"], size * torch.arange(6.0).reshape(2, 3).T)
        assert one["max"].tolist() == [size - 1, 0]
        assert one["first"] == "found by 0"
        assert one["looked"] == [0] * (rank == 0)
        assert one["failed"] == "found nothing. Look elsewhere. 2"


def _lose_the_second(ranks: Ranks, said: Path) -> None:
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        ranks.sum(torch.ones(3))
    except WorkerError as error:
        said.write_text(str(error))


def test_a_process_that_dies_ends_the_others_with_words(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="process 1 ended without a word"):
        in_processes(2, _lose_the_second, tmp_path / "said")
    text = (tmp_path / "said").read_text()
    assert text.startswith("another process of this training has ended or does not answer (")
    assert "train --resume" in text


@pytest.mark.parametrize("size", [None, "1", ""])
def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch, size: str | None) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert launched() == ALONE


def test_a_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "6", "RANK": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 6 but MASTER_PORT is not set"):
        launched()
    monkeypatch.setenv("MASTER_PORT", "1")
    assert launched() == Ranks(rank=4, size=6)
