"""Whether attribution maps are faithful to the score, and how much of them lies on what was planted.

    python scripts/bench_attribution.py [RUN] [--samples 120] [--figure deletion.png]

In a folder with a run on a synthetic cohort of `cohort build --demo`. Prints two tables. In the first, parts of an
input are covered, most relevant first, and the score's fall is compared with that of covering parts at random or the
least relevant first; the rivals are Grad-CAM with averaged gradients, and the map of a model with random weights. The
second asks how much of what raises the score lies where the synthetic patients' findings are drawn.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from symile_clin.data.dataset import CohortDataset
from symile_clin.evaluation import style
from symile_clin.evaluation.attribution import Attributed, attribute
from symile_clin.evaluation.bootstrap import bootstrap_interval
from symile_clin.modalities.attribution import ByLayer, ByOcclusion
from symile_clin.modalities.cxr import phantom
from symile_clin.modalities.labs.synthetic import PICTURES
from symile_clin.model import MultimodalEncoder
from symile_clin.pipeline.models import build_model
from symile_clin.pipeline.runs import cohort_of, open_run
from symile_clin.pipeline.trained import Trained, open_trained
from symile_clin.rng import stream
from symile_clin.schema import RUNS_ROOT, SUBJECT_ID

Maps = Sequence[NDArray[np.float64]]
#: Cells along a side of an X-ray, and seconds of an ECG, that are covered at once.
CELLS, WINDOW = 8, 0.2
COVERED: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
#: Of the strongest change that a finding makes in the phantom, what still counts as drawn there.
DRAWN: Final = 0.25


class Asked:
    """Some test samples of a run, and their scores with one input changed."""

    def __init__(self, trained: Trained, count: int) -> None:
        self.trained, self.target = trained, str(trained.cohort.spec["candidates"]["target"])
        rows = trained.cohort.rows("test")
        self.rows = np.sort(stream(0, "bench attribution").permutation(rows)[:count])
        self.subjects = trained.cohort.samples[SUBJECT_ID].to_numpy()[self.rows]
        dataset = CohortDataset(trained.cohort, trained.modalities, self.rows)
        self.batch = dataset.fetch(self.rows)
        self.inputs = dataset.inputs(self.batch)
        self.model = trained.model.eval()
        self.scorer = copy.deepcopy(trained.objective).double().eval()
        with torch.no_grad():
            self.embeddings = {name: self.model.encode(name, one).double() for name, one in self.inputs.items()}
        self.whole = self.scores(self.target, self.inputs[self.target])

    def scores(self, name: str, changed: Tensor) -> NDArray[np.float64]:
        """(n,) with another input of one modality."""
        with torch.no_grad():
            return self.of_embeddings(name, self.model.encode(name, changed).double()).numpy()

    def of_embeddings(self, name: str, changed: Tensor) -> Tensor:
        """(n,) with other embeddings of one modality."""
        given = {**self.embeddings, name: changed}
        each = [
            self.scorer.score(
                {other: one[i : i + 1] for other, one in given.items() if other != self.target},
                given[self.target][i : i + 1], target=self.target,
            )[0, 0]
            for i in range(len(changed))
        ]  # fmt: skip
        return torch.stack(each)

    def maps(self, name: str, *, trained: bool = True) -> Maps:
        """What the package finds, of the run's model or of one with random weights."""
        found = self._found if trained else self._found_at_random
        return [one.relevance[name].values for one in found]

    @cached_property
    def _found(self) -> list[Attributed]:
        return self._traced(self.model)

    @cached_property
    def _found_at_random(self) -> list[Attributed]:
        config = self.trained.config.model_copy(update={"seed": self.trained.config.seed + 1})
        return self._traced(build_model(config, self.trained.modalities, pretrained=False)[0])

    def _traced(self, model: MultimodalEncoder) -> list[Attributed]:
        return attribute(
            model=model, objective=self.trained.objective, cohort=self.trained.cohort,
            modalities=self.trained.modalities, rows=self.rows.tolist(), target=self.target, device="cpu",
        )  # fmt: skip

    def averaged(self, name: str) -> Maps:
        """Grad-CAM as published: the gradient of a feature map is averaged over places first."""
        way = self.trained.modalities[name].attribution
        assert isinstance(way, ByLayer)
        kept: list[Tensor] = []

        def cut(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().clone().requires_grad_())
            return kept[-1]

        with way.layer(self.model.encoders[name]).register_forward_hook(cut):
            embedding = self.model.encode(name, self.inputs[name]).double()
        (gradient,) = torch.autograd.grad(self.of_embeddings(name, embedding).sum(), kept[0])
        places = tuple(range(2, gradient.dim()))
        found = (gradient.mean(dim=places, keepdim=True) * kept[0].detach()).sum(dim=1)
        return list(found.double().numpy())


# --- covering ---


def cover_image(image: Tensor, parts: NDArray[np.int64]) -> Tensor:
    """(3, side, side) with cells replaced by what a strong blur leaves of them."""
    side = image.shape[-1]
    reach = side // 8
    padded = torch.nn.functional.pad(image[None], (reach,) * 4, mode="reflect")
    blurred = torch.nn.functional.avg_pool2d(padded, 2 * reach + 1, 1)[0]
    size, out = side // CELLS, image.clone()
    for part in parts.tolist():
        top, left = (part // CELLS) * size, (part % CELLS) * size
        where = (slice(None), slice(top, top + size), slice(left, left + size))
        out[where] = blurred[where]
    return out


def cover_signal(signal: Tensor, parts: NDArray[np.int64]) -> Tensor:
    """(1, time, leads) with windows replaced by straight lines between their ends."""
    step, out = round(500 * WINDOW), signal.clone()
    for part in parts.tolist():
        first, last = part * step, min((part + 1) * step, signal.shape[1]) - 1
        share = torch.linspace(0, 1, last - first + 1)[None, :, None]
        out[:, first : last + 1] = signal[:, first : first + 1] * (1 - share) + signal[:, last : last + 1] * share
    return out


def by_part(name: str, relevance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relevance of the parts that are covered at once: mean over a cell or window."""
    if name == "cxr":
        image = Image.fromarray(relevance.astype(np.float32)).resize((CELLS * 8, CELLS * 8), Image.Resampling.BILINEAR)
        cells: NDArray[np.float64] = np.asarray(image, dtype=np.float64).reshape(CELLS, 8, CELLS, 8).mean(axis=(1, 3))
        return cells.ravel()
    along = relevance.reshape(len(relevance), -1).sum(axis=1)
    steps = np.interp((np.arange(5000) + 0.5) / 5000, (np.arange(len(along)) + 0.5) / len(along), along)
    windows: NDArray[np.float64] = steps.reshape(-1, round(500 * WINDOW)).mean(axis=1)
    return windows


COVERS: Final[Mapping[str, Callable[[Tensor, NDArray[np.int64]], Tensor]]] = {"cxr": cover_image, "ecg": cover_signal}


def deletion(asked: Asked, name: str, orders: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(len(COVERED), n) how far scores fall when so large a share of the parts is covered, in that order."""
    fallen = []
    for share in COVERED:
        count = max(1, round(share * len(orders[0])))
        changed = [COVERS[name](one, order[:count]) for one, order in zip(asked.inputs[name], orders, strict=True)]
        fallen.append(asked.whole - asked.scores(name, torch.stack(changed)))
    return np.stack(fallen)


def deletions(asked: Asked, name: str) -> dict[str, NDArray[np.float64]]:
    """Fall of the score by order of covering."""
    rng = stream(0, "bench attribution", name)
    rivals = {
        "most relevant first": asked.maps(name),
        "the same, gradients averaged (Grad-CAM)": asked.averaged(name),
        "map of random weights": asked.maps(name, trained=False),
    }
    parts = {kind: [by_part(name, one) for one in maps] for kind, maps in rivals.items()}
    orders = {kind: [np.argsort(-one, kind="stable") for one in each] for kind, each in parts.items()}
    orders["at random"] = [rng.permutation(len(one)) for one in parts["most relevant first"]]
    orders["least relevant first"] = [order[::-1] for order in orders["most relevant first"]]
    return {kind: deletion(asked, name, order) for kind, order in orders.items()}


# --- what was planted ---


def planted_area(side: int, *, landscape: bool) -> NDArray[np.bool_]:
    """(side, side) where any of the four findings changes the phantom, on an untilted film cropped as pictures are."""
    rows, columns = (512, 624) if landscape else (624, 512)
    area = np.zeros((side, side), dtype=np.bool_)
    for finding in range(4):
        shown = [int(number == finding) for number in range(4)]
        change = np.zeros((rows, columns))
        for number in range(8):
            films = [
                phantom.place(
                    phantom.frontal(stream(number, "phantom"), factors, (0, 0, 0, 0)),
                    rows=rows, columns=columns, tilt=0, zoom=(1, 1), shift=(0, 0),
                )
                for factors in (shown, [0, 0, 0, 0])
            ]  # fmt: skip
            change += np.abs(films[0] - films[1]) / 8
        scale = side / min(rows, columns)
        size = (round(columns * scale), round(rows * scale))
        small = np.asarray(Image.fromarray(change.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        top, left = (small.shape[0] - side) // 2, (small.shape[1] - side) // 2
        small = small[top : top + side, left : left + side]
        area |= small > DRAWN * small.max()
    return area


def on_area(relevance: NDArray[np.float64], area: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Share of what raises the score that lies on an area, whether its largest value does, and the area's own share."""
    side = len(area)
    image = Image.fromarray(relevance.clip(min=0).astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float64)
    hit = area.ravel()[int(values.argmax())]
    return float(values[area].sum() / max(values.sum(), 1e-30)), float(hit), float(area.mean())


def on_items(asked: Asked, relevance: Maps) -> list[tuple[float, float, float]]:
    """The same of lab items: the ones that a factor shifts, among the observed ones, by size of what they change."""
    modality = asked.trained.modalities["labs"]
    shifted = np.isin(modality.items, [item for picture in PICTURES for item in picture])  # type: ignore[attr-defined]
    observed = asked.batch.arrays["labs"]["observed"].numpy()
    found = []
    for values, here in zip(relevance, observed, strict=True):
        mine, size = shifted[here], np.abs(values)
        found.append((float(size[mine].sum() / size.sum()), float(mine[size.argmax()]), float(mine.mean())))
    return found


def pointing(asked: Asked, *, trained: bool = True) -> dict[str, NDArray[np.float64]]:
    """(n, 3) by modality: share on what was planted, hit of the largest, chance."""
    found = {}
    if "cxr" in asked.trained.modalities:
        side = asked.inputs["cxr"].shape[-1]
        areas = {landscape: planted_area(side, landscape=landscape) for landscape in (False, True)}
        height, width = (asked.batch.arrays["cxr"][f"cxr_{one}"].numpy() for one in ("height", "width"))
        maps = asked.maps("cxr", trained=trained)
        found["cxr"] = np.array(
            [on_area(one, areas[bool(wide)]) for one, wide in zip(maps, width > height, strict=True)]
        )
    if isinstance(asked.trained.modalities["labs"].attribution, ByOcclusion):
        found["labs"] = np.array(on_items(asked, asked.maps("labs", trained=trained)))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(arguments)
    run = open_run(Path(RUNS_ROOT), options.run)
    asked = Asked(open_trained(run, cohort_of(run, None), device="cpu"), options.samples)
    spread = float(asked.whole.std())
    print(f"run {run.name}, {len(asked.rows)} test samples; falls in standard deviations of the score ({spread:.3g})\n")
    print("| input | order of covering | " + " | ".join(f"{100 * share:.0f} %" for share in COVERED) + " |")
    print("|---|---|" + "---|" * len(COVERED))
    fallen = {name: deletions(asked, name) for name in COVERS}
    for name, by_order in fallen.items():
        for kind, falls in by_order.items():
            cells = " | ".join(f"{value:.2f}" for value in falls.mean(axis=1) / spread)
            print(f"| {name} | {kind} | {cells} |", flush=True)
    print("\n| input | weights | chance | on what was planted | largest on it |\n|---|---|---|---|---|")
    for weights in ("trained", "random"):
        for name, table in pointing(asked, trained=weights == "trained").items():
            chance = table[:, 2].mean()
            ends = [
                bootstrap_interval(table[:, column], asked.subjects, rng=stream(0, "bench", name, column))
                for column in (0, 1)
            ]
            words = " | ".join(f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in ends)
            print(f"| {name} | {weights} | {chance:.2f} | {words} |", flush=True)
    if options.figure:
        draw(options.figure, fallen, spread)


def draw(path: Path, fallen: Mapping[str, Mapping[str, NDArray[np.float64]]], spread: float) -> None:
    """How far scores fall by share covered, a panel for each input."""
    looks = [(style.VERMILION, "-", "o"), (style.ORANGE, "--", "s"), (style.GREY, ":", "D"),
             (style.INK, "-.", "x"), (style.BLUE, "--", "^")]  # fmt: skip
    with style.figure(path, width=8.4, height=3.9) as figure:
        for axes, (name, by_order) in zip(figure.subplots(1, len(fallen)), fallen.items(), strict=True):
            for (color, dashes, marker), (kind, falls) in zip(looks, by_order.items(), strict=True):
                share = 100 * np.array(COVERED)
                axes.plot(
                    share, falls.mean(axis=1) / spread, dashes, color=color, marker=marker, markersize=4.5, label=kind
                )
            axes.axhline(0, color=style.INK, linewidth=0.8)
            axes.set_title(name)
            axes.set_xlabel("share covered, %")
            axes.set_ylabel("fall of the score, standard deviations")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)


if __name__ == "__main__":
    main()
