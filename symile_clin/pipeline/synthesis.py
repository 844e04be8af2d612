"""`symile-clin synth`: synthetic patients in MIMIC's own file formats, with planted structure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from symile_clin import __version__, files
from symile_clin.cohort.spec import load_spec
from symile_clin.errors import ConfigError
from symile_clin.modalities.registry import ROOMS
from symile_clin.modalities.synthetic_ids import MAX_PATIENTS
from symile_clin.modalities.synthetic_patient import SyntheticOptions
from symile_clin.progress import Progress
from symile_clin.synthetic.tree import write_tree
from symile_clin.synthetic.truth import Planting, expected_recall

STAGE: Final = "synthetic"
#: The spec whose modalities are written, and whose target carries the planted synergy.
SPEC: Final = "demo"
CANDIDATES: Final = 10  #: of the printed ceilings


@dataclass(frozen=True)
class SynthResult:
    """A complete synthetic tree.

    Attributes:
        rows: number of rows by table.
        ceilings: best expected recall_at_1 over random candidates, from "pairs" alone and in "full".
        skipped: the same tree was there already.
    """

    path: Path
    target: str
    rows: Mapping[str, int]
    ceilings: Mapping[str, float]
    skipped: bool

    def text(self) -> str:
        """What was written and what a perfect model could reach."""
        rows = ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        return (
            f"Synthetic tree {self.path}: {rows}.\n"
            f"Best {self.target} recall_at_1 over {CANDIDATES} random candidates: "
            f"{self.ceilings['full']:.3f} from all modalities, {self.ceilings['pairs']:.3f} from pairs alone, "
            f"{1 / CANDIDATES:.3f} by chance."
        )

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return {**asdict(self), "path": str(self.path)}


def synth(
    *,
    out: Path,
    patients: int,
    seed: int,
    full_size: bool = False,
    dicom: bool = False,
    workers: int | None = None,
    progress: Progress,
) -> SynthResult:
    """Write the synthetic tree `out`, unless the same one is there already.

    Args:
        out: a new or empty directory, or an earlier synthetic tree, which is replaced.
        patients: 1 to 100,000.
        workers: processes; one per core by default. Their number changes nothing in the files.

    Raises:
        ConfigError: `out` holds something else, or too many patients.
        BusyError: another process is writing there.
    """
    if not 1 <= patients <= MAX_PATIENTS:
        raise ConfigError(f"{patients:,} synthetic patients", expected=f"1 to {MAX_PATIENTS:,}")
    spec = load_spec(SPEC, (), ROOMS)
    modalities = spec.make_modalities(ROOMS)
    target = spec.candidates.target
    planting = Planting(target=target, queries=tuple(name for name in modalities if name != target))
    for name, count in planting.factors.items():
        if count > modalities[name].synthetic_factors:
            raise ConfigError(
                f"{name} can show {modalities[name].synthetic_factors} planted factors", expected=f"{count} or more"
            )
    options = SyntheticOptions(full_size=full_size, dicom=dicom)
    content = {
        "settings": {"patients": patients, "seed": seed, **asdict(options)},
        "planted": planting.model_dump(mode="json"),
    }
    ceilings = expected_recall(content["planted"], CANDIDATES)

    found = files.read_manifest(out)
    if found is None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is not empty and not a synthetic tree", remedy="Choose another directory")
    if found is not None and found.get("stage") != STAGE:
        raise ConfigError(f"{out} holds a {found.get('stage')}", expected="a synthetic tree", remedy="Choose another")
    wanted = {"stage": STAGE, "version": __version__, **content}
    if found is not None and wanted.items() <= found.items():
        files.tidy(out)
        progress.say(f"{out} is up to date: {patients:,} synthetic patients, seed {seed}")
        return SynthResult(path=out, target=target, rows=found["rows"], ceilings=ceilings, skipped=True)

    with files.atomic_directory(out) as building:
        rows = write_tree(
            building,
            modalities=list(modalities.values()),
            planting=planting,
            patients=patients,
            seed=seed,
            options=options,
            workers=len(os.sched_getaffinity(0)) if workers is None else workers,
            progress=progress,
        )
        files.write_manifest(building, stage=STAGE, content={**content, "rows": rows})
    return SynthResult(path=out, target=target, rows=rows, ceilings=ceilings, skipped=False)
