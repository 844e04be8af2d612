"""The information report of one split: encode, measure, and write numbers, table and figure into one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from symile_clin import files
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.evaluation import style
from symile_clin.evaluation.embed import embed
from symile_clin.evaluation.found import Found
from symile_clin.evaluation.information import SATURATED, Encoded, Quantity, measure
from symile_clin.modalities.base import Modality
from symile_clin.objectives.base import Objective
from symile_clin.progress import Progress
from symile_clin.schema import SUBJECT_ID, Split
from symile_clin.synthetic.information import planted_information
from symile_clin.tracking import Artifact

INFORMATION: Final = "information.json"
FIGURE: Final = "information.png"


def report_split(
    *,
    model: nn.Module,
    objective: Objective,
    scale: float,
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    split: Split,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    directory: Path,
    progress: Progress,
) -> Found:
    """Measure the information between modalities on a split that did not train the model, and write what came out.

    Args:
        model: maps inputs by modality to normalised embeddings, on `device`.
        objective: the one that the model was trained with.
        scale: exp of the model's learned log scale.
        split: "test"; or "val", which chose the checkpoint, so that every row is an estimate.
        seed: of draws, resampling and the critics of pairs.
        directory: gets information.json and a figure; replaced whole.

    Raises:
        CohortError: too few patients have every modality.
        TrainingError: an embedding is not finite.
    """
    subjects = cohort.samples[SUBJECT_ID].to_numpy()

    def encode(name: Split) -> Encoded:
        dataset = CohortDataset(cohort, modalities, cohort.rows(name))
        embedded = embed(model=model, dataset=dataset, batch_size=batch_size, device=device, progress=progress)
        return Encoded(embedded=embedded, subjects=subjects[dataset.rows])

    quantities = measure(
        held_out=encode(split),
        calibration=encode("val") if split == "test" else None,
        train=encode("train"),
        objective=objective,
        scale=scale,
        seed=seed,
    )
    planted = {} if cohort.planted is None else planted_information(cohort.planted)
    metrics = metrics_of(quantities, planted, split=split)
    with files.atomic_directory(directory) as folder:
        files.write_json(folder / INFORMATION, metrics)
        draw(folder / FIGURE, quantities, planted, split=split)
    return Found(
        metrics=metrics,
        tracked=metrics,
        artifacts=(Artifact(directory / INFORMATION, False), Artifact(directory / FIGURE, False)),
        table=table(quantities, planted, split=split),
    )


def metrics_of(quantities: Sequence[Quantity], planted: Mapping[str, float], *, split: Split) -> dict[str, float]:
    """One flat object: `<split>/information/<quantity>/<lower_bound or estimate>`, with suffixes.

    `_ci_low`, `_ci_high`; `_n` candidates of an anchor and their `_cap` log n, where there is one; `_samples` and
    `_patients` with all modalities concerned, `_left_out` without; `_draws_se`; `_planted` of synthetic patients.
    """
    metrics: dict[str, float] = {}
    for row in quantities:
        name = f"{split}/information/{row.key}/{row.kind.replace(' ', '_')}"
        optional = {"n": row.n, "cap": row.cap, "draws_se": row.draws_se, "planted": planted.get(row.key)}
        metrics |= {
            name: row.interval.estimate,
            f"{name}_ci_low": row.interval.low,
            f"{name}_ci_high": row.interval.high,
            f"{name}_samples": float(row.samples),
            f"{name}_patients": float(row.patients),
            f"{name}_left_out": float(row.left_out),
            **{f"{name}_{key}": float(value) for key, value in optional.items() if value is not None},
        }
    return metrics


def table(quantities: Sequence[Quantity], planted: Mapping[str, float], *, split: Split) -> str:
    """The report as lines for a terminal."""
    width = max(len(row.label) for row in quantities)
    complete = quantities[0]
    lines = [
        f"Information between modalities, {split} split, in nats: {complete.samples:,} samples of "
        f"{complete.patients:,} patients",
        f"  {'':{width}}  {'value':>6}   {'95 % interval':16}  {'is a':11}  {'n':>6}  {'cap':>5}"
        + ("  planted" if planted else ""),
    ]
    for row in quantities:
        value = row.interval
        capped = f"{row.n:6,}  {row.cap:5.2f}" if row.n is not None else f"{'':6}  {'':5}"
        truth = f"  {planted[row.key]:7.2f}" if row.key in planted else ""
        lines.append(
            f"  {row.label:{width}}  {value.estimate:6.2f}{'*' if row.saturated else ' '}  "
            f"{f'[{value.low:.2f}, {value.high:.2f}]':16}  {row.kind:11}  {capped}{truth}".rstrip()
        )
    if any(row.saturated for row in quantities):
        lines.append(
            f"  * above {SATURATED:.0%} of its cap log n: the truth may be far larger, and synergy too small. More "
            "patients raise the cap."
        )
    if split == "val":
        lines.append("  The val split chose the checkpoint, so nothing here is a bound; the test split gives bounds.")
    lines += [
        f"  {row.label}: {row.left_out:,} samples lack one of them and are left out."
        for row in quantities
        if row.left_out and row.key.startswith(("joint", "pair"))
    ]
    return "\n".join(lines)


def draw(path: Path, quantities: Sequence[Quantity], planted: Mapping[str, float], *, split: Split) -> None:
    """Values with their intervals, the planted truth where it is known, and caps as text, for most are far off."""
    with style.figure(path, width=7.6, height=1.5 + 0.32 * len(quantities)) as figure:
        axes = figure.add_subplot()
        for kind, marker, color in (("lower bound", ">", style.BLUE), ("estimate", "o", style.VERMILION)):
            chosen = [(place, row.interval) for place, row in enumerate(quantities) if row.kind == kind]
            for place, one in chosen:
                axes.hlines(place, one.low, one.high, color=color, linewidth=2.2)
            places, values = [place for place, _ in chosen], [one.estimate for _, one in chosen]
            axes.plot(values, places, marker, color=color, markersize=5, label=kind)
        truth = [(planted[row.key], place) for place, row in enumerate(quantities) if row.key in planted]
        if truth:
            values, places = [value for value, _ in truth], [place for _, place in truth]
            axes.plot(values, places, "D", color=style.GREEN, markersize=7, fillstyle="none", label="planted")
        for place, row in enumerate(quantities):
            if row.cap is not None:
                color = style.VERMILION if row.saturated else style.GREY
                cap = f"cap log {row.n:,} = {row.cap:.1f}"
                axes.text(1.01, place, cap, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=color)
        axes.axvline(0, color=style.INK, linewidth=1)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(quantities)), [row.label for row in quantities])
        axes.invert_yaxis()
        axes.set_xlabel("nats, with 95 % intervals over patients")
        axes.set_title(f"Information between modalities, {split} split")
        figure.legend(loc="outside lower center", ncols=3)
