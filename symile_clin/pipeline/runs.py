"""Run directories: naming, opening and checking that a run fits a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from symile_clin import files
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.modalities.base import Modality
from symile_clin.pipeline.reserved import new_directory
from symile_clin.schema import CONFIG, MANIFEST
from symile_clin.sources import paths
from symile_clin.strict import load_yaml, nearest
from symile_clin.tracking.journal import tracked_as

#: Key of a manifest whose run was trained elsewhere: file and digest of the checkpoint it was taken from.
ADOPTED: Final = "adopted"


@dataclass(frozen=True)
class Run:
    """A complete training run.

    Attributes:
        config: the resolved settings, plain.
        manifest: the run directory's manifest.json.
    """

    path: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def tracked_as(self) -> str | None:
        """The tracking store's id of the run, if it was tracked, or was delivered since."""
        run_id: str | None = tracked_as(self.path) or self.manifest["tracked_as"]
        return run_id

    def touch(self) -> None:
        """Make this the run that was worked on last, so that the next command takes it by default."""
        (self.path / MANIFEST).touch()


def open_run(root: Path, name: str | None) -> Run:
    """A complete run by name or path; without a name the one that finished last.

    Raises:
        NotFoundError: no such run, or none that finished.
        MismatchError: a directory of another kind, or one with a link out of it.
    """
    complete = {path.parent.name: path.parent for path in root.glob(f"*/{MANIFEST}")}
    if name is None:
        if not complete:
            raise NotFoundError(f"no finished run in {root}", remedy="Train one with `symile-clin train`")
        path = max(complete.values(), key=lambda run: (run / MANIFEST).stat().st_mtime_ns)
    else:
        path = complete.get(name) or named_directory(name)
    paths.refuse_link(path, MANIFEST)
    manifest = files.read_manifest(path)
    if manifest is None:
        if (root / str(name)).is_dir():
            raise NotFoundError(
                f"run '{name}' did not finish", remedy=f"Go on with it: symile-clin train --resume --name {name}"
            )
        hint = nearest(str(name), complete) if complete else "Train one with `symile-clin train`"
        raise NotFoundError(f"no run called '{name}' in {root}", remedy=hint.capitalize())
    if manifest.get("stage") != "run":
        raise MismatchError(f"{path} holds a {manifest.get('stage')}", expected="a training run")
    paths.refuse_links(path)
    return Run(path=path, config=load_yaml(path / CONFIG), manifest=manifest)


def named_directory(name: str) -> Path:
    """A run's directory as it is given; `.` and `..` by their own names, for its lock and its report are called so."""
    path = Path(name)
    return path.resolve() if path.name in ("", "..") else path


def new_run_directory(root: Path, name: str | None, *, default: str) -> AbstractContextManager[tuple[Path, Path]]:
    """A new run directory, `root/name` or the first free `root/<default>-<number>`, and where to fill it.

    Raises:
        ConfigError: the name is taken, or is not a plain name.
    """
    return new_directory(
        root,
        name,
        defaults=(f"{default}-{number}" for number in count(1)),
        kind="run",
        taken="Choose another --name, or go on with it by --resume",
    )


def cohort_of(run: Run, cohort: Path | None) -> Cohort:
    """The cohort in a directory; without one, the cohort that the run was trained on.

    Raises:
        NotFoundError: no such cohort, or it is gone.
    """
    if cohort is not None:
        return open_cohort(cohort)
    path = Path(run.manifest["cohort"]["path"])
    try:
        data = open_cohort(path)
    except NotFoundError:
        raise NotFoundError(
            f"the cohort of run '{run.name}' is no longer in {path}", remedy="Name a cohort with --cohort"
        ) from None
    return data


def home_of(run: Run) -> Cohort:
    """The cohort that the run was trained on, just as it was then: what it fitted on train belongs to the weights.

    Raises:
        NotFoundError: it is gone.
        MismatchError: another one has its place.
    """
    data = cohort_of(run, None)
    if data.hash != str(run.manifest["cohort"]["hash"]):
        raise MismatchError(
            f"{data.path} is no longer the cohort that run '{run.name}' was trained on",
            expected=f"content hash {str(run.manifest['cohort']['hash'])[:12]}, not {data.hash[:12]}",
            remedy="Build that one again in its place, or train on this one",
        )
    return data


def signature(modalities: Mapping[str, Modality]) -> dict[str, Any]:
    """What a model's inputs look like: a checkpoint fits every cohort with the same signature."""
    return {
        name: {
            "room": modality.room,
            "columns": [column for column in modality.columns if column not in modality.input_columns],
            "input_shape": list(modality.input_shape),
        }
        for name, modality in modalities.items()
    }


def check_fit(run: Run, cohort: Cohort, modalities: Mapping[str, Modality]) -> None:
    """Refuse a cohort whose inputs are not those the run was trained on.

    Raises:
        MismatchError: naming the first modality that differs.
    """
    trained, found = run.manifest["signature"], signature(modalities)
    if set(trained) != set(found):
        raise MismatchError(
            f"run '{run.name}' was trained on {', '.join(sorted(trained))} but cohort '{cohort.name}' has "
            f"{', '.join(sorted(found))}",
            remedy="Choose a cohort with the same modalities, or train on this one",
        )
    for name, one in found.items():
        if one != trained[name]:
            different = next(key for key in one if one[key] != trained[name].get(key))
            raise MismatchError(
                f"the checkpoint of run '{run.name}' does not fit cohort '{cohort.name}': {name} differs in its "
                f"{different.replace('_', ' ')}",
                remedy=f"Evaluate on a cohort built with the same {name} options, or train on this one",
            )
