"""A page is one file that loads nothing, escapes everything and can be read without colours or pictures."""

from __future__ import annotations

import base64
import re
import stat
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from PIL import Image

from symile_clin.evaluation import style
from symile_clin.evaluation.page import (
    Banner,
    Block,
    Code,
    Details,
    Facts,
    Headline,
    Missing,
    Part,
    Picture,
    Section,
    SideBySide,
    Table,
    render_page,
    write_page,
)

HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;"""


def png() -> bytes:
    written = BytesIO()
    Image.fromarray(np.zeros((3, 7), np.uint8)).save(written, "PNG")
    return written.getvalue()


def svg() -> bytes:
    written = BytesIO()
    with style.figure(written, width=2, height=1, form="svg") as figure:
        figure.add_subplot().plot([1, 2])
    return written.getvalue()


class Outline(HTMLParser):
    """Tags with their attributes in order, and that every one is closed."""

    EMPTY = frozenset({"meta", "link", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def everything(text: str) -> list[Block]:
    frame = pd.DataFrame({text: [text, "b"], "n": [1, 2000], "v": [-0.12345, np.nan]})
    return [
        text,
        Headline(text, text),
        Facts({text: text}),
        Missing(text),
        Part(text, [Table(frame, text, decimals={"v": 2}, marked=[0])]),
        SideBySide([Picture(png(), text, text), Picture(svg(), text, text, mark="true", width=90)]),
        Details(text, [Code(text)]),
    ]


def page_of(text: str) -> str:
    return render_page(text, [Section(text, "one", everything(text))], subtitle=text, banner=Banner(text, "warning"))


def test_no_text_becomes_markup() -> None:
    plain, hostile = Outline(page_of("plain")), Outline(page_of(HOSTILE))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not hostile.named("script")
    assert all(set(one) == set(other) for (_, one), (_, other) in zip(hostile.tags, plain.tags, strict=True))
    assert {one["alt"] for one in hostile.named("img")} == {HOSTILE}
    assert sum(text == HOSTILE for text in hostile.texts) > 10


def test_nothing_is_loaded() -> None:
    page = page_of("plain")
    outline = Outline(page)
    (policy,) = [one["content"] for one in outline.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    addresses = [
        value for _, attributes in outline.tags for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert all(value is not None and value.startswith(("data:", "#")) for value in addresses)
    assert not re.search(r"url\(|@import", page)


def test_pictures_come_back_as_they_were() -> None:
    sources = [one["src"] for one in Outline(page_of("plain")).named("img")]
    forms = [(source or "").split(",")[0] for source in sources]
    assert forms == ["data:image/png;base64", "data:image/svg+xml;base64"]
    assert [base64.b64decode((source or "").split(",")[1]) for source in sources] == [png(), svg()]
    assert Outline(page_of("plain")).named("img")[0]["width"] == "7"
    assert Outline(page_of("plain")).named("img")[0]["height"] == "3"


def test_tables_can_be_heard() -> None:
    outline = Outline(page_of("plain"))
    assert [one.get("scope") for one in outline.named("th")] == ["col", "col", "col", "row", "row"]
    assert "2,000" in outline.texts
    assert "−0.12" in outline.texts
    assert outline.texts.count("–") == 1  # the value that is not there
    assert [tag for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)] == ["h1", "h2", "h3"]


def test_markup_stands_as_it_is() -> None:
    page = render_page("t", [Section("s", "s", [Markup("<b>bold</b>"), "<b>not</b>"])])
    assert "<b>bold</b>" in page
    assert "&lt;b&gt;not" in page


@pytest.mark.parametrize("anchors", [("one", "one"), ("a b",), ("",), ('"x',)])
def test_anchors_are_checked(anchors: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="anchors"):
        render_page("t", [Section("s", anchor, []) for anchor in anchors])


def test_a_page_of_patients_is_its_owners_alone(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "é", patient_level=True)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "é"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_equal_figures_are_equal_bytes() -> None:
    assert svg() == svg()
