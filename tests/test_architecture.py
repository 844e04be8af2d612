"""Rules of the house that import-linter cannot see."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forbidden_code import forbidden

PACKAGE = Path(__file__).parents[1] / "symile_clin"
SOURCES = sorted(PACKAGE.rglob("*.py"))
#: Rooms, and the two places that may name them: the registry and the sources, by their options and release names.
NAMES_MODALITIES = {"modalities/registry.py"}
SOURCE_OPTIONS = {"mimic_iv", "mimic_cxr", "mimic_ecg", "mimic-iv", "mimic-cxr", "mimic-ecg", "mimic-iv-ecg"}
RELEASE_NAMES = {"MIMIC-CXR", "MIMIC-IV-ECG"}
MODALITY = re.compile(r"(?:^|[^a-z])(?:cxrs?|ecgs?|labs?)(?:[^a-z]|$)", re.IGNORECASE)
HEAVY = ("torch", "mlflow", "pandas", "ibis", "duckdb", "matplotlib", "numpy")


def _relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _names_and_literals(tree: ast.Module) -> list[tuple[int, str]]:
    """Identifiers and string literals of a module, without its docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.append((node.lineno, node.value))
        elif isinstance(node, ast.Name):
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute):
            found.append((node.lineno, node.attr))
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            found.append((node.lineno, node.arg))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name))
    return found


def _mentions_modality(text: str) -> bool:
    for option in sorted(SOURCE_OPTIONS | RELEASE_NAMES, key=len, reverse=True):
        text = text.replace(option, "")
    return MODALITY.search(text) is not None


def test_no_code_outside_the_rooms_names_a_modality() -> None:
    offenders = []
    for path in SOURCES:
        name = _relative(path)
        in_room = name.startswith("modalities/") and len(Path(name).parts) > 2
        if in_room or name in NAMES_MODALITIES or name.startswith("cli/"):
            continue
        for line, text in _names_and_literals(ast.parse(path.read_text())):
            if _mentions_modality(text):
                offenders.append(f"{name}:{line} {text!r}")
    assert offenders == []


def test_the_rule_above_sees_what_it_should() -> None:
    tree = ast.parse("def f(ecg_path): return row['cxr_view'], LABS, source['mimic_cxr'], 'collaboration', 'label'")
    assert [text for _, text in _names_and_literals(tree) if _mentions_modality(text)] == [
        "ecg_path",
        "LABS",
        "cxr_view",
    ]


def test_files_stay_small() -> None:
    long = {_relative(path): lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_every_public_thing_has_a_docstring() -> None:
    missing = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path.read_text().strip() and not ast.get_docstring(tree):
            missing.append(_relative(path))
        named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        missing += [
            f"{_relative(path)}:{node.name}"
            for node in named
            if not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    assert missing == []


#: Modules of the tests that may run code out of bytes, what of it, and why. In the package and the scripts, none may.
RUN_CODE = {
    "tests/contracts/test_modalities.py": ({"pickle"}, "our own bytes: modalities travel to processes"),
    "tests/data/test_dataset.py": ({"pickle"}, "our own bytes: what a worker of a loader is sent"),
    "tests/test_errors.py": ({"pickle"}, "our own bytes: errors come back from processes"),
    "tests/processes.py": (
        {"weights_only=False", "torch.load without weights_only=True"},
        "our own bytes: what a rank came to",
    ),
    "tests/pipeline/test_features.py": ({"exec"}, "runs the code of a page of the docs"),
    "tests/modalities/test_features.py": ({"allow_pickle=True"}, "writes a hostile file"),
    "tests/modalities/test_query_files.py": ({"allow_pickle=True"}, "writes a hostile file"),
    "tests/pipeline/test_release_import.py": ({"allow_pickle=True"}, "writes a hostile file"),
    "tests/pipeline/test_published.py": ({"pickle", "os.system"}, "writes a hostile file"),
    "tests/faults/evil.py": (
        {"pickle", "os.system", "allow_pickle=True", "weights_only=False", "torch.load without weights_only=True",
         "yaml.unsafe_load"},
        "writes hostile files, and shows that they run where nobody looks",
    ),
}  # fmt: skip


def test_nothing_runs_code_from_data() -> None:
    """Neither the package nor the scripts; tests where they say why, and no longer than they need to."""
    found: dict[str, set[str]] = {}
    root = PACKAGE.parent
    for path in sorted(
        path for folder in ("symile_clin", "scripts", "tests") for path in (root / folder).rglob("*.py")
    ):
        what = {name for _, name in forbidden(path.read_text())}
        if what:
            found[path.relative_to(root).as_posix()] = what
    assert found == {name: what for name, (what, _) in RUN_CODE.items()}


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch\ntorch.load(p, weights_only=flag)",
        "import torch as t\nt.load(p, map_location='cpu')",
        "from torch import load as read\nread(p)",
        "import torch\nread = torch.load\nread(p)",
        "from torch import hub\nhub.load('a/b', 'c')",
        "import torch\ntorch.hub.load_state_dict_from_url(u)",
        "import torch\ntorch.jit.load(p)",
        "import pickle",
        "from pickle import loads as fine",
        "import cloudpickle, dill",
        "import joblib\njoblib.load(p)",
        "import marshal",
        "import shelve",
        "import importlib\nimportlib.import_module('pickle')",
        "__import__('pickle')",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "from numpy import load\nload(p, mmap_mode='r', allow_pickle=1)",
        "import pandas as pd\npd.read_pickle(p)",
        "frame.to_pickle(p)",
        "import yaml\nyaml.load(p)",
        "import yaml\nyaml.load(p, Loader=yaml.Loader)",
        "import yaml\nyaml.load(p, yaml.UnsafeLoader)",
        "from yaml import full_load as safe_load\nsafe_load(p)",
        "from yaml import unsafe_load\nunsafe_load(p)",
        "import subprocess\nsubprocess.run(c, shell=True)",
        "import subprocess as s\ns.Popen(c, shell=flag)",
        "import os\nos.system(c)",
        "from os import popen as look\nlook(c)",
        "import os\ngetattr(os, 'system')(c)",
        "import subprocess\nsubprocess.getoutput(c)",
        "eval(c)",
        "exec(c)",
        "import builtins\nbuiltins.eval(c)",
    ],
)
def test_the_rule_above_sees_every_way(code: str) -> None:
    assert list(forbidden(code))


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(p, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(p, mmap_mode='r', allow_pickle=False)",
        "import yaml\nyaml.safe_load(p)\nyaml.load(p, Loader=yaml.SafeLoader)",
        "import subprocess\nsubprocess.run([c], shell=False)",
        "import json\njson.load(p)",
        "model.eval()\nre.compile(c)",
    ],
)
def test_the_rule_above_lets_the_rest_be(code: str) -> None:
    assert list(forbidden(code)) == []


def _modules_after(code: str) -> set[str]:
    listing = f"import sys\n{code}\nprint('\\n'.join(sorted(sys.modules)), file=sys.__stdout__)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()}


def test_help_imports_nothing_heavy() -> None:
    loaded = _modules_after(
        "from click.testing import CliRunner\nfrom symile_clin.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0"
    )
    assert loaded.isdisjoint(HEAVY)


def test_rooms_are_cheap_to_import() -> None:
    loaded = _modules_after("import symile_clin.modalities.registry")
    assert loaded.isdisjoint({"torch", "torchvision", "monai", "mlflow", "matplotlib", "duckdb"})


def test_a_command_stays_a_function_whatever_was_imported_before() -> None:
    loaded = _modules_after(
        "import symile_clin.pipeline as pipeline\n"
        "for name in 2 * list(pipeline._HOME): assert type(getattr(pipeline, name)).__name__ == 'function', name"
    )
    assert "torch" in loaded


def test_the_page_of_reliability_names_tests_that_exist() -> None:
    root = PACKAGE.parent
    page = (root / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"\b(?:tests|scripts)/[\w/]+\.py", page))
    assert named, "the page names no test"
    assert {file for file in named if not (root / file).is_file()} == set()
    tests = sorted((root / "tests").rglob("test_*.py"))
    defined = {name for file in tests for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert set(re.findall(r"\btest_\w+", page)) - defined - {file.stem for file in tests} == set()
