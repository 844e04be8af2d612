"""Answers kept between builds: never wrong, never in the way."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from symile_clin.cohort.answers import Answers
from symile_clin.cohort.build import Assembled, assemble
from symile_clin.cohort.workers import Workers
from symile_clin.modalities.base import Modality, Reason, Refusal, Row
from symile_clin.modalities.registry import ROOMS
from symile_clin.progress import Quiet
from tests.cohort.tree import ADMITTED, HOUR, Tree, open_catalog, tiny_spec, waveform, write_record

REFUSED = Refusal(Reason.TRUNCATED, "12 bytes", "drop")


def test_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    given = {f"{number:064x}": REFUSED if number % 3 else None for number in range(1200)}
    Answers(tmp_path / "a.sqlite").keep(given)
    assert Answers(tmp_path / "a.sqlite").find([*given, "unknown"]) == given
    assert (tmp_path / "a.sqlite").stat().st_mode & 0o077 == 0


def test_what_may_pass_is_asked_again(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "a.sqlite")
    answers.keep({"a": Refusal(Reason.DIED), "b": Refusal(Reason.UNREADABLE), "c": None})
    assert answers.find(["a", "b", "c"]) == {"c": None}


@pytest.mark.parametrize("damage", ["noise", "cut", "other format", "not a refusal"])
def test_a_damaged_file_is_thrown_away(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.sqlite"
    answers = Answers(path)
    answers.keep({f"{number:064x}": REFUSED for number in range(500)})
    match damage:
        case "noise":
            path.write_bytes(os.urandom(1 << 16))
        case "cut":
            path.write_bytes(path.read_bytes()[:5000])
        case "other format":
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA user_version = 99")
        case _:
            with sqlite3.connect(path) as database:
                database.execute('UPDATE answer SET refusal = \'{"reason": "fine"}\'')
    assert answers.find([f"{number:064x}" for number in range(500)]) == {}
    answers.keep({"b": None})
    assert answers.find(["b"]) == {"b": None}


class Asked:
    """Counts which records a build opens to ask for validity."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: Counter[str] = Counter()
        ask = ROOMS["ecg"].is_valid

        def counted(modality: Modality, row: Row, source: Path | None) -> Refusal | None:
            self.paths[row["path"]] += 1
            return ask(modality, row, source)

        monkeypatch.setattr(ROOMS["ecg"], "is_valid", counted)

    def pop(self) -> dict[str, int]:
        """What was asked since the last time."""
        found, self.paths = dict(self.paths), Counter()
        return found


def test_an_unchanged_record_is_not_opened_again_and_a_changed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path)
    for number in range(4):
        tree.complete(10_000_001 + number, 20_000_001 + number)
    tree.ecg(10_000_001, 41_000_000, ADMITTED - HOUR, signal=waveform() * 0)  # refused; the next one is taken
    roots = tree.write()
    asked = Asked(monkeypatch)

    def build(number: int, *overrides: str) -> Assembled:
        spec = tiny_spec(*overrides)
        with open_catalog(roots, tmp_path / "cache") as catalog, Workers(1) as workers:
            arguments: dict[str, Any] = {"work": tmp_path / f"work{number}", "answers": tmp_path / "cache" / "a.sqlite"}
            return assemble(
                spec, spec.make_modalities(ROOMS), catalog=catalog, workers=workers, progress=Quiet(), **arguments
            )

    first = build(1)
    assert sorted(asked.pop().values()) == [1] * 5
    again = build(2, "modalities.ecg.window.end=23h")
    assert asked.pop() == {}
    assert again.samples.equals(first.samples)
    assert again.attrition.quarantine().equals(first.attrition.quarantine())
    changed = str(first.samples["ecg_path"][2])
    signal = waveform(5)
    signal[7, 3] = -32768
    write_record(roots["mimic_ecg"] / changed, signal)
    third = build(3, "require=[cxr, labs]")
    assert asked.pop() == {changed: 1}
    assert third.samples["ecg_present"].tolist() == [True, True, False, True]
    assert str(tmp_path) not in (tmp_path / "cache" / "a.sqlite").read_bytes().decode("latin1")
    assert b"10000001" not in (tmp_path / "cache" / "a.sqlite").read_bytes()
