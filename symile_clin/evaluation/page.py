"""A self-contained HTML page: sections of words, tables and pictures, in one file that loads nothing.

Pictures travel inside the page as data URIs; its content policy forbids everything else, scripts included. All text is
escaped.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import jinja2
import pandas as pd
from markupsafe import Markup
from pandas.api.types import is_numeric_dtype

from symile_clin import __version__, files

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_SHORT: Final = 24  #: letters of a cell that is not worth breaking
NOTHING: Final = "–"  #: what a cell without a value shows


@dataclass(frozen=True)
class Picture:
    """A PNG or SVG with its words.

    Attributes:
        data: the file's bytes.
        alt: what it shows, for those who cannot see it; never empty.
        caption: shown below.
        width: CSS pixels at most; None for as wide as the place allows.
        least: CSS pixels below which it is moved sideways instead of made smaller.
        mark: "true" frames the picture that is the truth; its caption must say so, too.
    """

    kind: ClassVar[str] = "picture"
    data: bytes
    alt: str
    caption: str = ""
    width: int | None = None
    least: int | None = None
    mark: Literal["", "true"] = ""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        form = "image/png" if self.data.startswith(_PNG) else "image/svg+xml"
        return f"data:{form};base64,{base64.b64encode(self.data).decode()}"

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of a PNG in its own pixels, so that a page does not jump while it is read."""
        if not self.data.startswith(_PNG):
            return None
        return int.from_bytes(self.data[16:20], "big"), int.from_bytes(self.data[20:24], "big")


@dataclass(frozen=True)
class Table:
    """A frame as a table; its first column heads the lines.

    Attributes:
        caption: what it holds, and how to read it.
        decimals: of a column of floats, where not 3.
        marked: positions of lines to set off; a cell of theirs must say why.
        small: in small print, for many lines.
        numeric: columns of text that are set like numbers, such as values with their intervals.
    """

    kind: ClassVar[str] = "table"
    frame: pd.DataFrame
    caption: str
    decimals: Mapping[str, int] = field(default_factory=dict)
    marked: Collection[int] = ()
    small: bool = False
    numeric: Collection[str] = ()

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Name of each column, and how it is set: numbers to the right, short words in one line."""
        longest = [max(map(len, column), default=0) for column in zip(*self.lines, strict=True)] or [0]
        longest += [0] * len(self.frame.columns)  # of a table without lines
        found = []
        for place, name in enumerate(self.frame.columns):
            numeric = name in self.numeric or is_numeric_dtype(self.frame.dtypes.iloc[place])
            found.append((str(name), "number" if numeric else "short" if longest[place] <= _SHORT else ""))
        return found

    @property
    def lines(self) -> list[list[str]]:
        """Cells as text, line by line."""
        return [
            [
                _cell(value, self.decimals.get(str(name), 3))
                for name, value in zip(self.frame.columns, line, strict=True)
            ]
            for line in self.frame.itertuples(index=False, name=None)
        ]


@dataclass(frozen=True)
class Facts:
    """Names with their values, such as what was evaluated on what."""

    kind: ClassVar[str] = "facts"
    values: Mapping[str, str]


@dataclass(frozen=True)
class Headline:
    """One large number with its interval and what it is to be read against."""

    kind: ClassVar[str] = "headline"
    value: str
    words: str


@dataclass(frozen=True)
class Missing:
    """Why something is not shown."""

    kind: ClassVar[str] = "missing"
    text: str


@dataclass(frozen=True)
class Part:
    """Blocks under a smaller heading of their own; kept on one printed page where they fit."""

    kind: ClassVar[str] = "part"
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class SideBySide:
    """Blocks next to each other, below each other where the page is narrow.

    Attributes:
        wide_first: the first takes most of the width.
    """

    kind: ClassVar[str] = "side_by_side"
    blocks: Sequence[Block]
    wide_first: bool = False


@dataclass(frozen=True)
class Stack:
    """Blocks below each other, as one of several that are side by side."""

    kind: ClassVar[str] = "stack"
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Strip:
    """Pictures in a line, all of one width."""

    kind: ClassVar[str] = "strip"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Details:
    """Blocks that a reader opens by a click.

    Attributes:
        printed: whether they are in print, opened; not where they only repeat a figure.
    """

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]
    printed: bool = True


@dataclass(frozen=True)
class Code:
    """Text as it is typed or stored."""

    kind: ClassVar[str] = "code"
    text: str


#: What a section is made of; text is a paragraph, markup stands as it is.
Block = str | Markup | Picture | Table | Facts | Headline | Missing | Part | SideBySide | Stack | Strip | Details | Code


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        anchor: its place in the page's address, lower-case letters and hyphens.
        blocks: its content; the first is the sentence that says how to read it.
    """

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Banner:
    """What a reader must know before all else, such as whether patients are real.

    Attributes:
        tone: "calm" or "warning"; never said by colour alone.
    """

    text: str
    tone: Literal["calm", "warning"] = "calm"


def render_page(title: str, sections: Sequence[Section], *, subtitle: str = "", banner: Banner | None = None) -> str:
    """A whole page.

    Args:
        title: of the page and the window.
        sections: in order, each with an entry in the list of contents.

    Raises:
        ValueError: an anchor is used twice or is none.
    """
    anchors = [section.anchor for section in sections]
    wrong = [anchor for anchor in anchors if not re.fullmatch(r"[a-z0-9-]+", anchor) or anchors.count(anchor) > 1]
    if wrong:
        raise ValueError(f"anchors of a page are different ones of letters, digits and hyphens, not {wrong}")
    return (
        environment()
        .get_template("page.html.j2")
        .render(title=title, subtitle=subtitle, banner=banner, sections=sections, version=__version__)
    )


def environment(*packages: str) -> jinja2.Environment:
    """Templates of this package, and of others that extend them: everything escaped, every unknown name an error.

    Args:
        packages: with a folder `templates`, looked into first.
    """
    homes = [*packages, "symile_clin.evaluation"]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(home) for home in homes]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["markup"] = lambda value: isinstance(value, Markup)
    return made


def write_page(path: Path, page: str, *, patient_level: bool) -> None:
    """Write a page atomically; one that shows single patients is its owner's alone."""
    with files.atomic(path) as temporary:
        temporary.touch(mode=0o600 if patient_level else 0o666)
        temporary.write_text(page, encoding="utf-8")


def _cell(value: Any, decimals: int) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}"
        return text.replace("-", "−")
    return str(value)
