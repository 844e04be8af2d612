"""How the numbers came to be, and how to make them again. Holds no path of this machine and no id."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

from symile_clin import __version__
from symile_clin.data.store import Cohort
from symile_clin.evaluation.page import Code, Details, Facts, Section
from symile_clin.schema import RELEASES
from symile_clin.strict import dump_yaml

PACKAGES: Final = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib")


def provenance_section(
    *, run: str, config: Mapping[str, Any], manifest: Mapping[str, Any], cohort: Cohort, split: str, trained_here: bool
) -> Section:
    """Versions, settings, seeds and commands.

    Args:
        config: the run's resolved settings, plain.
        manifest: the run's manifest.json.
        trained_here: whether the run was trained on this cohort.
    """
    trained_on = manifest["cohort"]
    runtime = manifest.get("runtime", {})
    releases = cohort.manifest.get("inputs", {}).get(RELEASES, {})
    facts = {
        "This page": f"symile-clin {__version__}, Python {platform.python_version()}",
        "Packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "Training": f"symile-clin {manifest.get('version', 'unknown')}, torch {runtime.get('torch', 'unknown')} "
        f"on {runtime.get('device', 'unknown')}",
        "Seed of the run": str(config["seed"]),
        "Seed of the candidate lists": str(cohort.spec["candidates"].get("seed", "of the release")),
        "Cohort": f"{cohort.name}, hash {cohort.hash[:16]}",
        "Trained on": "this cohort" if trained_here else f"{trained_on['name']}, hash {str(trained_on['hash'])[:16]}",
        **{f"Source: {one['name']}": _release(one) for one in releases.values()},
    }
    return Section(
        "How it was made",
        "made",
        [
            "Equal settings, data and versions give equal numbers on the same kind of machine; seeds are of everything "
            "that is drawn at random.",
            Facts(facts),
            Details("Settings of the run", [Code(dump_yaml(without_places(config)))]),
            Details("Spec of the cohort", [Code(dump_yaml(without_places(cohort.spec)))]),
            Details(
                "Commands to make it again", [Code(commands(run=run, cohort=cohort, split=split, manifest=manifest))]
            ),
        ],
    )


def commands(*, run: str, cohort: Cohort, split: str, manifest: Mapping[str, Any]) -> str:
    """What to type in an empty folder, the two files above saved in it."""
    sources = sorted(cohort.manifest.get("inputs", {}).get(RELEASES, {}))
    roots = "".join(f" --{name.replace('_', '-')} DIR" for name in sources)
    lines = ["# save the two texts above as cohort.yaml and config.yaml"]
    if cohort.synthetic:
        lines.append(
            "symile-clin cohort build --demo  # if it is the demo's; otherwise as below, on trees of symile-clin synth"
        )
    if cohort.manifest.get("release") or not sources:
        lines.append("symile-clin cohort import DIR  # the release")
    else:
        lines.append(f"symile-clin cohort build cohort.yaml{roots}")
    if "adopted" in manifest:
        checkpoint = manifest["adopted"]
        lines.append(
            f"symile-clin eval --checkpoint {checkpoint['file']} --split {split}  # sha256 {checkpoint['sha256']}"
        )
    else:
        lines += [f"symile-clin train config.yaml --name {run}", f"symile-clin eval {run} --split {split}"]
    return "\n".join([*lines, f"symile-clin report {run} --split {split}"]) + "\n"


def without_places(value: Any) -> Any:
    """Settings without folders of this machine: of a path that starts at its root, only the name is kept."""
    if isinstance(value, Mapping):
        return {str(key): without_places(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(one) for one in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(PurePosixPath(value).name).name
    return value


def _release(one: Mapping[str, Any]) -> str:
    if one.get("synthetic"):
        return "synthetic, in its formats"
    return str(one.get("version") or "version unknown")
