"""report.html of the demo, opened from disk in a real browser: all pictures, no request, no overflow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.chromium import Browser, browser
from tests.test_readme import run_metrics

DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        DRIVER is None,
        reason="NOT TESTED: report.html. It needs a browser: apt-get install chromium chromium-driver",
    ),
]

RUN = "demo-symile-1"
RECALL = "test/cxr/recall_at_1"


@pytest.fixture(scope="module")
def page(newcomer: Path) -> Path:
    return newcomer / "runs" / RUN / "eval" / "test" / "report.html"


@pytest.fixture(scope="module")
def window(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert DRIVER is not None
    with browser(DRIVER, tmp_path_factory.mktemp("profile")) as opened:
        opened.open(f"file://{quote(str(page))}")
        yield opened


def test_it_says_what_was_measured(newcomer: Path, window: Browser) -> None:
    assert window.run("return document.title") == f"{RUN} on demo, test split"
    assert window.run("return document.querySelector('.headline strong').innerText") == (
        f"{run_metrics(newcomer, RUN)[RECALL]:.3f}"
    )
    assert "SYNTHETIC PATIENTS" in window.run("return document.querySelector('.banner').innerText")
    assert window.run("return document.querySelectorAll('main > section').length") == 9


def test_nothing_is_requested_and_nothing_runs(window: Browser) -> None:
    requested = window.run("return performance.getEntriesByType('resource').map(one => one.name.slice(0, 30))")
    assert all(name.startswith("data:") for name in requested)
    assert window.run("return document.scripts.length") == 0
    # what the page itself might try is refused: a picture of a server never arrives
    assert window.run(
        "const refused = [];"
        "document.addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective));"
        "window.__refused = refused; const i = new Image(); i.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(i); return true"
    )
    deadline = time.monotonic() + 30
    while not window.run("return window.__refused.length"):
        assert time.monotonic() < deadline, "the picture was not refused"
        time.sleep(0.1)
    assert window.run("return window.__refused") == ["img-src"]
    window.run("document.body.lastElementChild.remove()")


def test_all_pictures_are_there_and_have_words(window: Browser) -> None:
    shown = window.run(
        "return [...document.images].map(i => [i.naturalWidth, i.complete, i.alt.length, i.clientWidth])"
    )
    assert len(shown) > 30
    assert all(natural > 0 and complete and words > 10 for natural, complete, words, _ in shown)
    sheets = window.run(
        "return [...document.querySelectorAll('#gallery figure img')].filter(i => i.naturalWidth >= 1200)"
        ".map(i => i.clientWidth)"
    )
    assert len(sheets) == 5
    assert min(sheets) > 600  # an ECG that can be read


def test_the_truth_is_marked_in_words_too(window: Browser) -> None:
    marked = window.run("return [...document.querySelectorAll('#gallery figure.true')].map(f => f.innerText)")
    assert len(marked) == 5
    assert all("the truth" in words for words in marked)


@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_hangs_over_the_side(window: Browser, width: int) -> None:
    window.resize(width, 1000)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert window.run("return innerWidth") == width
    assert window.run(overflow) == 0
    window.run(
        "document.body.insertAdjacentHTML('beforeend', '<p id=wide style=\"width: 3000px; max-width: none\">x</p>')"
    )
    assert window.run(overflow) > 1000  # the measure sees what it should
    window.run("document.getElementById('wide').remove()")


def test_details_open_and_headings_go_down_step_by_step(window: Browser) -> None:
    levels = window.run("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    opened = window.run(
        "const all = [...document.querySelectorAll('details')]; all.forEach(d => d.open = true);"
        "return all.every(d => d.lastElementChild.getBoundingClientRect().height > 0)"
    )
    assert opened
    assert "symile-clin report demo-symile-1 --split test" in window.text()
