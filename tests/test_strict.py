"""Settings that fail loudly, all at once, with the nearest valid name."""

from pathlib import Path

import pytest

from symile_clin import strict
from symile_clin.errors import ConfigError, NotFoundError


class Window(strict.Strict):
    start: int
    end: float


class Spec(strict.Strict):
    name: str
    window: Window
    by_name: dict[str, Window]


def test_every_problem_is_listed_with_the_nearest_name() -> None:
    raw = {"nam": "x", "window": {"start": "soon", "ende": 3}, "by_name": {"a": {"start": 1, "end": 2, "stat": 3}}}
    with pytest.raises(ConfigError) as caught:
        strict.validate(Spec, raw, source="x.yaml")
    text = str(caught.value)
    assert text.startswith("x.yaml has 6 problems: ")
    assert "unknown key 'nam' (did you mean 'name'?)" in text
    assert "unknown key 'window.ende' (did you mean 'end'?)" in text
    assert "unknown key 'by_name.a.stat' (did you mean 'start'?)" in text
    assert "'name' is missing" in text
    assert "'window.end' is missing" in text
    assert "'window.start': input should be a valid integer" in text


def test_settings_are_frozen() -> None:
    window = strict.validate(Window, {"start": 1, "end": 2}, source="x")
    with pytest.raises(ValueError, match="frozen"):
        window.start = 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\na: 2\n", "key 'a' is repeated"),
        ("a: &x [1]\nb: *x\n", "YAML aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", "YAML tags"),
        ("- 1\n", r"x\.yaml holds a list\. Expected a mapping"),
        ("1\n", r"x\.yaml holds a single value\."),
        ("", r"x\.yaml is empty\."),
        ("a: [\n", r"not valid YAML: [^\n<]*, but found '<stream end>' in line 2\.$"),
        ("a: 1\na: 2\n", r"key 'a' is repeated in line 2\.$"),
        ("a: \xff\n", "not valid YAML"),
        # what the parser itself answered with ValueError, TypeError, RecursionError, or a minute of silence
        ("a: 2001-99-99\n", "a value that is none"),
        ("a: 2001-01-01T00:00:00+99:99\n", "a value that is none"),
        ("a: " + "9" * 5000 + "\n", "a value that is none"),
        ("a: " + "9" * 30 + "\n", "a number is beyond 64 bits in line 1"),
        # numbers that a person and YAML read differently: 64, 45045, 64, 8
        *(
            (f"b: 1\na: {text}\n", "a number is not plain decimal.* in line 2")
            for text in ("0100", "12:30:45", "0x40", "0b1000")
        ),
        ("? [a]\n: b\n", "a value that is none"),
        ("a: !!int abc\n", "YAML tags"),
        ("a: " + "[" * 40_000, "nested more than 32 levels"),
        ("? " * 4000, "nested more than 32 levels"),
    ],
)
def test_yaml_that_is_not_plain_settings_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=complaint):
        strict.load_yaml(path)


def test_a_huge_yaml_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: " + "x" * (strict.MAX_YAML_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        strict.load_yaml(path)


@pytest.mark.parametrize("value", ["[&a x, *a]", "[" * 5000, "!!int abc", "2001-99-99", "{[1]: 2}", "x" * 200_000])
def test_overrides_are_plain_values_too(value: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        strict.apply_overrides({}, [f"key={value}"])


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
def test_settings_hold_no_number_that_is_none(tmp_path: Path, number: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"start: 1\nend: {number}\n")
    with pytest.raises(ConfigError, match="'end'"):
        strict.validate(Window, strict.load_yaml(path), source="x")


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "true"])
def test_a_word_is_no_number(word: str) -> None:
    with pytest.raises(ConfigError, match=r"'start': (true|false) is no number"):
        strict.validate(Window, strict.apply_overrides({"start": 0, "end": 1}, [f"start={word}"]), source="x")


def test_overrides_go_deep_and_leave_the_original_alone() -> None:
    raw = {"splits": {"train": 1}, "views": ["AP"]}
    changed = strict.apply_overrides(raw, ["splits.train=0.8", "views=[AP, PA]", "new.key=x"])
    assert changed == {"splits": {"train": 0.8}, "views": ["AP", "PA"], "new": {"key": "x"}}
    assert raw == {"splits": {"train": 1}, "views": ["AP"]}


@pytest.mark.parametrize("override", ["splits.train", "=3", "views.deeper=1", "a=[1"])
def test_an_override_that_makes_no_sense_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        strict.apply_overrides({"views": 1}, [override])


def test_presets_are_found_by_name_or_path_and_the_nearest_is_suggested(tmp_path: Path) -> None:
    assert strict.find_preset("cohorts", "symile_mimic").name == "symile_mimic.yaml"
    own = tmp_path / "mine.yaml"
    own.write_text("name: mine\n")
    assert strict.find_preset("cohorts", str(own)) == own
    with pytest.raises(NotFoundError, match="Did you mean 'symile_mimic'"):
        strict.find_preset("cohorts", "symile_mimc")
    with pytest.raises(NotFoundError, match=r"no file .*gone\.yaml"):
        strict.find_preset("cohorts", str(tmp_path / "gone.yaml"))
    with pytest.raises(NotFoundError):
        strict.find_preset("cohorts", "../pyproject")


def test_presets_travel_in_the_wheel_and_a_checkout_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages" / "symile_clin"
    (site / "presets" / "cohorts").mkdir(parents=True)
    monkeypatch.setattr(strict, "__file__", str(site / "strict.py"))
    assert strict.preset_folder("cohorts") == site / "presets" / "cohorts"
    (tmp_path / "site-packages" / "cohorts").mkdir()
    assert strict.preset_folder("cohorts") == site / "presets" / "cohorts", "a stray folder is not a checkout"
    (tmp_path / "site-packages" / "pyproject.toml").touch()
    assert strict.preset_folder("cohorts") == tmp_path / "site-packages" / "cohorts"


def test_what_is_written_twice_is_written_out(tmp_path: Path) -> None:
    shared = {"start": 1, "end": 2.0}
    (tmp_path / "x.yaml").write_text(strict.dump_yaml({"a": shared, "b": shared}))
    assert strict.load_yaml(tmp_path / "x.yaml") == {"a": shared, "b": shared}
