"""Calls that run code out of data, found in a module's syntax tree, under whatever name it imports them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

#: Whole modules that only unpickle, or run what they load.
MODULES: Final = frozenset(
    {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
)
#: Names by which reflection would get at them.
REFLECTED: Final = MODULES | {"system", "popen", "eval", "exec", "unsafe_load", "read_pickle"}
#: Functions by their full names.
FUNCTIONS: Final = frozenset({
    "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.jit.load", "torch.package.PackageImporter",
    "torch.export.load", "pandas.read_pickle",
    "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all", "yaml.load_all",
    "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
    "eval", "exec", "__import__", "builtins.eval", "builtins.exec",
    "code.interact", "runpy.run_path",
})  # fmt: skip
#: A keyword that a function must be given, with this value.
MUST_SAY: Final = {"torch.load": ("weights_only", True)}
#: A keyword that no call may have with this value.
MUST_NOT_SAY: Final = {"allow_pickle": True, "shell": True, "weights_only": False}
#: The only loaders that `yaml.load` may be given: subclasses of SafeLoader, by their names.
SAFE_LOADERS: Final = frozenset({"yaml.SafeLoader", "yaml.CSafeLoader", "_UniqueKeyLoader"})


def forbidden(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything in a module's source that could run code out of data."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from ((node.lineno, name) for name in found if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            full = _full_name(node, names)
            if full in FUNCTIONS or full.split(".")[-1] in ("read_pickle", "to_pickle", "unsafe_load"):
                yield node.lineno, full
        if isinstance(node, ast.Call):
            yield from _said(node, _full_name(node.func, names), names)


def _said(call: ast.Call, full: str, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    """What a call says that it must not, or leaves out."""
    said = {keyword.arg: keyword.value for keyword in call.keywords}
    for word, value in MUST_NOT_SAY.items():
        given = said.get(word)
        if given is not None and (not isinstance(given, ast.Constant) or given.value == value):
            yield call.lineno, f"{word}={ast.unparse(given)}"
    if full in MUST_SAY:
        word, value = MUST_SAY[full]
        has = said.get(word)
        if not isinstance(has, ast.Constant) or has.value is not value:
            yield call.lineno, f"{full} without {word}={value}"
    if full == "yaml.load":
        loader = said.get("Loader", call.args[1] if len(call.args) > 1 else None)
        if loader is None or _full_name(loader, names) not in SAFE_LOADERS:
            yield call.lineno, full
    if full in ("getattr", "importlib.import_module"):
        words = [str(one.value) for one in call.args if isinstance(one, ast.Constant)]
        yield from ((call.lineno, f"{full} of {word}") for word in words if word.split(".")[0] in REFLECTED)


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What each name of a module stands for: `import numpy as np`, `from torch import load as read`, `read = load`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id != ast.unparse(node.value):
                    yield target.id, ast.unparse(node.value)


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as numpy.load, following what names stand for; "" for what is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    first, seen = node.id, set()
    while first in names and first not in seen:
        seen.add(first)
        target, _, rest = names[first].partition(".")
        if rest:
            parts += reversed(rest.split("."))
        if target == first:
            break
        first = target
    return ".".join([first, *reversed(parts)])
