"""What an installed wheel carries: the presets, found by name, and nothing of the workshop."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel has been unpacked, as pip does it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_presets_are_found_by_name_in_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import symile_clin, symile_clin.strict as s; print(symile_clin.__file__)\n"
        "for name in ('symile_mimic', 'demo'): print(s.find_preset('cohorts', name))\n"
        "for name in ('symile', 'demo'): print(s.find_preset('configs', name))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert all(Path(line).is_relative_to(installed) for line in done.stdout.splitlines())


def test_the_wheel_holds_the_package_and_nothing_else(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"symile_clin"}
    presets = {path.relative_to(installed / "symile_clin" / "presets") for path in installed.rglob("presets/*/*.yaml")}
    for kind in ("cohorts", "configs"):
        assert {path.name for path in presets if path.parts[0] == kind} == {p.name for p in (ROOT / kind).iterdir()}
    assert (installed / "symile_clin" / "py.typed").is_file()
    templates = {path.name for path in (installed / "symile_clin" / "evaluation" / "templates").iterdir()}
    assert templates == {"base.html.j2", "blocks.html.j2", "page.css", "page.html.j2"}
