"""Commands one after the other in one process, as a notebook would call them; run by test_privacy.py.

Usage: python -m tests.faults.canary_session FILE. FILE is JSON: a list of command lines. What each printed and
returned, and every text that was put on a figure, goes to FILE with the ending .said.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from symile_clin import cli


def main() -> None:
    """Run the commands."""
    import matplotlib.text

    written: set[str] = set()
    Text: Any = matplotlib.text.Text
    set_text = Text.set_text

    def noted(self: Any, text: Any) -> None:
        written.add(str(text))
        set_text(self, text)

    Text.set_text = noted
    file = Path(sys.argv[1])
    said = []
    for command in json.loads(file.read_text()):
        os.umask(0)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = cli.run(command)
        said.append({"command": command, "code": code, "output": output.getvalue(), "umask": os.umask(0)})
    file.with_suffix(".said").write_text(json.dumps({"commands": said, "figures": sorted(written)}))


if __name__ == "__main__":
    main()
