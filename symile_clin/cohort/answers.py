"""Answers about files that were opened before, kept between builds: whether an event may be used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Final

from symile_clin.modalities.base import Reason, Refusal

FORMAT: Final = 1
#: What may be different the next time, though the file is the same.
PASSING: Final = frozenset({Reason.DIED, Reason.UNREADABLE})
#: Keys of one question; SQLite takes no more than some hundreds of parameters everywhere.
BATCH: Final = 500


class Answers:
    """Refusals, or that there are none, by `opening.identify`: digests only, no path and no id.

    Only the process that builds reads and writes it. It is never needed: a file that is damaged or of another format is
    thrown away.

    Args:
        path: of the SQLite file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def find(self, keys: Sequence[str]) -> dict[str, Refusal | None]:
        """The answers that are known."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            with closing(self._open(self._path)) as database:
                return dict(_found(database, keys))
        except sqlite3.OperationalError:  # locked
            return {}
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
            self._path.unlink(missing_ok=True)
            return {}

    def keep(self, answers: Mapping[str, Refusal | None]) -> None:
        """Add answers, all at once. A disk or file that does not take them costs nothing but time later."""
        if self._path is None or not answers:
            return
        rows = [
            (key, json.dumps(None if answer is None else asdict(answer)))
            for key, answer in answers.items()
            if answer is None or answer.reason not in PASSING
        ]
        try:
            with closing(self._open(self._path)) as database, database:
                database.executemany("INSERT OR REPLACE INTO answer VALUES (?, ?)", rows)
        except sqlite3.OperationalError:  # locked, or no room
            return
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        """The database.

        Raises:
            sqlite3.DatabaseError: it is not one of this format.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=30)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            database.close()
            raise sqlite3.DatabaseError("another format")
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, refusal TEXT) WITHOUT ROWID")
            database.execute(f"PRAGMA user_version = {FORMAT}")
        path.chmod(0o600)
        return database


def _found(database: sqlite3.Connection, keys: Sequence[str]) -> Iterable[tuple[str, Refusal | None]]:
    for start in range(0, len(keys), BATCH):
        some = keys[start : start + BATCH]
        marks = ",".join("?" * len(some))
        for key, stored in database.execute(f"SELECT key, refusal FROM answer WHERE key IN ({marks})", some):
            refusal = json.loads(stored)
            yield (
                key,
                None if refusal is None else Refusal(Reason(refusal["reason"]), refusal["detail"], refusal["then"]),
            )
