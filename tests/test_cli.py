"""Bad input: one line with the remedy, the right exit code, nothing half-written. Help that costs nothing."""

import json
from pathlib import Path

import pytest

from symile_clin import cli
from symile_clin.errors import CohortError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _fails(capsys: pytest.CaptureFixture[str], arguments: str, code: int) -> str:
    """Run a command that must fail; return its one line."""
    assert cli.run(arguments.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("symile-clin: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_eval_before_a_train(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "Train one with `symile-clin train`" in _fails(capsys, "eval", 2)
    assert list(tmp_path.iterdir()) == []


def test_train_before_a_cohort(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "symile-clin cohort build --demo" in _fails(capsys, "train", 2)
    assert list(tmp_path.iterdir()) == []


def test_missing_source_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = _fails(capsys, "cohort build --mimic-iv nowhere --mimic-cxr nowhere --mimic-ecg nowhere", 3)
    assert "nowhere" in line
    assert "--mimic-iv" in line
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_source_that_was_not_given(capsys: pytest.CaptureFixture[str]) -> None:
    line = _fails(capsys, "cohort build --mimic-iv x", 2)
    assert "--mimic-cxr" in line
    assert "--mimic-ecg" in line


def test_unknown_spec_and_key_suggest_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sources = "--mimic-iv x --mimic-cxr x --mimic-ecg x"
    assert "id you mean 'symile_mimic'" in _fails(capsys, f"cohort build symile_mimc {sources}", 2)
    assert "did you mean 'train'" in _fails(capsys, f"cohort build {sources} --set splits.trian=1", 2)
    spec = tmp_path / "mine.yaml"
    spec.write_text("name: mine\n")
    assert "is missing" in _fails(capsys, f"cohort build mine.yaml {sources}", 2)


def test_describe_without_a_cohort(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cohort build --demo" in _fails(capsys, "cohort describe", 2)


def test_ui_without_a_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "symile-clin" in _fails(capsys, "ui", 2)
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_are_clicks_own_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--presett"]) == 2
    assert "No such option" in capsys.readouterr().err


def _pretend(monkeypatch: pytest.MonkeyPatch, outcome: object) -> None:
    class Result:
        def text(self) -> str:
            return "text"

        def record(self) -> dict[str, object]:
            return {"a": 1}

    def describe_cohort(**_: object) -> Result:
        if isinstance(outcome, BaseException):
            raise outcome
        return Result()

    monkeypatch.setattr("symile_clin.pipeline.describe_cohort", describe_cohort, raising=False)


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        (CohortError("empty cohort", remedy="Widen the window"), 3, "symile-clin: empty cohort. Widen the window."),
        (KeyboardInterrupt(), 130, "symile-clin: Interrupted."),
        (OSError(28, "No space left on device", "/data/x"), 1, "symile-clin: No space left on device (/data/x)."),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    outcome: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, outcome)
    assert cli.run(["cohort", "describe"]) == code
    assert capsys.readouterr().err.strip() == says


def test_json_is_one_object_and_quiet_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, None)
    assert cli.run(["cohort", "describe"]) == 0
    assert capsys.readouterr().out == "text\n"
    assert cli.run(["cohort", "describe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    assert cli.run(["cohort", "describe", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "command",
    ["", "cohort", "cohort build", "cohort describe", "synth", "train", "eval", "compare", "information", "demo", "ui"],
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command.split(), "--help"]) == 0
    assert "Usage: symile-clin" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["", "cohort"])
def test_no_command_is_summed_up_in_half_a_sentence(capsys: pytest.CaptureFixture[str], group: str) -> None:
    assert cli.run([*group.split(), "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("...") and "Usage" not in line] == []
