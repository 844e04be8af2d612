"""Plain lines where there is no terminal, silence when quiet, stdout untouched."""

import pytest

from symile_clin.progress import Console, Quiet, visible


def test_without_a_terminal_progress_is_plain_lines_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "SECONDS_BETWEEN_LINES", 0.0)
    console = Console()
    console.say("Reading.")
    with console.track("images", total=2000) as advance:
        advance(500)
        advance(1500)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["Reading.", "  images: 500 of 2,000", "  images: 2,000 of 2,000"]


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Console().track("images", total=2) as advance:
        advance(2)
    assert capsys.readouterr().out == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet().track("images", total=2) as advance:
        advance(1)
    Quiet().say("x")
    assert capsys.readouterr() == ("", "")


def test_what_a_terminal_would_obey_is_written_out() -> None:
    text = "a\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202eb\x00\ud800\tc\nµ é 胸\n"
    assert visible(text) == "a\\u001b[2J\\u001b]0;owned\\u0007\\u000d\\u009b31m\\u202eb\\u0000\\ud800\tc\nµ é 胸\n"
