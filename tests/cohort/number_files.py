"""A room whose files are numbers; by itself, so that processes start soon."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from symile_clin.modalities.base import ArraySpec, Reason, Refusal, RoomOptions, Row


class Numbers:
    """A room as far as reading goes: a file holds a number, or what to do to the process that reads it."""

    room, name, options = "numbers", "numbers", RoomOptions()
    after_unreadable = "drop"
    arrays: ClassVar = {"value": ArraySpec("int64", (2,)), "later": ArraySpec("int8", (), fitted=True)}

    def files(self, row: Row) -> tuple[str, ...]:
        """The file that the row names."""
        return (row["path"],)

    def read(self, row: Row, source: Path) -> dict[str, Any] | Refusal:
        """The number and 7, and half of it; or what the file asks for."""
        text = (source / row["path"]).read_text()
        match text:
            case "die":
                os._exit(9)
            case "hang":
                time.sleep(600)
            case "refuse":
                return Refusal(Reason.TRUNCATED, "short", "drop")
            case "forbid" if "forbidden" in os.environ:
                return Refusal(Reason.UNREADABLE, "Permission denied", "drop")
            case "forbid":
                text = "4"
            case "vanish":
                (source / row["path"]).unlink()
                text = "3"
        return {"value": np.array([int(text), 7]), "numbers_half": np.array(int(text) / 2)}
