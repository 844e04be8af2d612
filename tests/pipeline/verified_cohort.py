"""A tiny cohort in which every patient's recordings are their own, and manifests that agree with what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symile_clin import files
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree, jpeg

SAMPLES = 24
SOURCES = ("mimic_iv", "mimic_cxr", "mimic_ecg")


def build_tiny(root: Path, *overrides: str, tree: Tree | None = None) -> Path:
    """Build `root`/cohorts/tiny from `root`/tree: 24 admissions of 16 patients, unless another tree is given."""
    tree = tree or full_tree(root / "tree")
    roots = tree.write()
    (root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, overrides)))
    options: dict[str, Any] = {"workers": 1, "tracking_uri": None, "progress": Quiet(), **roots}
    build_cohort(spec=str(root / "tiny.yaml"), out=root / "cohorts" / "tiny", **options)
    return root / "cohorts" / "tiny"


def full_tree(root: Path) -> Tree:
    """Admissions that qualify, each with a picture and a record of its own."""
    tree = Tree(root)
    for number in range(SAMPLES):
        subject, hadm, time = 10_000_000 + number * 2 // 3, 20_000_000 + number, ADMITTED + number % 3 * 400 * HOUR
        tree.admission(subject, hadm, time)
        tree.xray(subject, 50_000_000 + number, time + 30 * HOUR, content=jpeg(level=40 + 6 * number))
        tree.ecg(subject, 40_000_000 + number, time + HOUR)
        tree.lab(subject, time + HOUR, float(hadm % 97))
        tree.lab(subject, time + HOUR, float(hadm % 89), item=50931)
    return tree


def forge(cohort: Path, *names: str) -> None:
    """Make the manifest say that changed files are as they were built: only what must hold of them can speak now."""
    manifest = json.loads((cohort / "manifest.json").read_text())
    found = files.listing(cohort)
    manifest["files"] |= {name: found[name] for name in names}
    (cohort / "manifest.json").write_text(json.dumps(manifest))
