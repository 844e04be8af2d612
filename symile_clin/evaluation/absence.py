"""What takes the place of a modality that a query lacks, or that is taken from it to see what it contributes.

A model that was trained on samples without a modality has a learned placeholder for it. Any other model has never seen
it absent: its score is marginalised over what the modality could have been, the embeddings of a fixed set of training
samples. The factor is never simply left out: a product of fewer embeddings has another spread and another meaning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort
from symile_clin.errors import CohortError
from symile_clin.evaluation.embed import Embedded, embed
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.progress import Progress
from symile_clin.rng import stream
from symile_clin.schema import Split, present_column

#: Training samples whose embeddings stand for a modality that has no placeholder.
REFERENCE_SAMPLES: Final = 256
#: Not the run's seed: all runs on a cohort are measured with the same training samples and the same shuffles.
SEED: Final = 0


@dataclass(frozen=True)
class StandIns:
    """What stands where a modality is absent.

    Attributes:
        placeholders: by modality that the model has one for, its learned placeholder, (d,) float32.
        reference: by modality that it has none for, the embeddings of the same r training samples, each (r, d) float32,
            so that several absent modalities keep what they have in common.
        scale: exp of the model's learned log scale: log-odds per unit of score.
    """

    placeholders: Mapping[str, NDArray[np.float32]]
    reference: Mapping[str, NDArray[np.float32]]
    scale: float

    @property
    def samples(self) -> int:
        """Training samples of the reference, r."""
        return len(next(iter(self.reference.values()), ()))

    def method(self, absent: Collection[str]) -> str:
        """In words, what stands for these modalities."""
        marginalised = f"marginalised over {self.samples:,} training samples"
        ways: dict[str, list[str]] = {}
        for name in absent:
            ways.setdefault("learned placeholder" if name in self.placeholders else marginalised, []).append(name)
        if len(ways) > 1:
            return ", ".join(f"{way} for {' and '.join(names)}" for way, names in sorted(ways.items()))
        return ", ".join(ways)


def stand_ins(
    *,
    model: MultimodalEncoder,
    names: Sequence[str],
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> StandIns:
    """A model's placeholders, and the embeddings of `REFERENCE_SAMPLES` training samples for what has none.

    The samples are drawn, without replacement, from those of the cohort's train split that have every such
    modality; all of them, if there are fewer.

    Args:
        names: the modalities that queries may lack; with none of them, nothing is encoded.

    Raises:
        CohortError: no training sample has all those modalities.
        TrainingError: an embedding is not finite.
    """
    found = every_stand_ins(
        model=model,
        names={"": names},
        cohort=cohort,
        modalities=modalities,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    return found[""]


def every_stand_ins(
    *,
    model: MultimodalEncoder,
    names: Mapping[str, Sequence[str]],
    cohort: Cohort,
    modalities: Mapping[str, Modality],
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> dict[str, StandIns]:
    """As `stand_ins`, for several sets of `names`, each under its key; no training sample is encoded twice."""
    placeholders = learned_placeholders(model, {name for some in names.values() for name in some})
    without = {key: [name for name in some if name not in placeholders] for key, some in names.items()}
    rows = {key: reference_rows(cohort, some) for key, some in without.items() if some}
    encoded_rows = np.unique(np.concatenate([*rows.values(), np.empty(0, dtype=np.int64)]))
    reference: dict[str, dict[str, NDArray[np.float32]]] = {key: {} for key in names}
    if len(encoded_rows):
        encoded = embed(
            model=model,
            dataset=CohortDataset(cohort, modalities, encoded_rows),
            batch_size=batch_size,
            device=device,
            progress=progress,
        ).embeddings
        for key, of_key in rows.items():
            places = np.searchsorted(encoded_rows, of_key)
            reference[key] = {name: encoded[name][places] for name in without[key]}
    return {
        key: StandIns(
            placeholders={name: placeholders[name] for name in some if name in placeholders},
            reference=reference[key],
            scale=float(model.scale.detach()),
        )
        for key, some in names.items()
    }


def learned_placeholders(model: MultimodalEncoder, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """(d,) float32 by modality, of those among `names` that the model has a placeholder for."""
    with torch.inference_mode():
        learned = {name: model.placeholder(name) for name in names}
    return {name: one.float().cpu().numpy() for name, one in learned.items() if one is not None}


def log_mean_exp(scores: torch.Tensor, scale: float) -> torch.Tensor:
    """(b, c) log of the mean over r samples of exp(scale * scores), (b, r, c), in units of the scores.

    What a score is when it is marginalised over a reference of r training samples.
    """
    largest = scores.amax(dim=1, keepdim=True)
    mean = (scores - largest).mul_(scale).expm1_().mean(dim=1)
    return largest.squeeze(1) + torch.log1p(mean) / scale


def reference_rows(cohort: Cohort, names: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the training samples over which absent modalities `names` are marginalised, the same for every run.

    Raises:
        CohortError: no training sample has all of them.
    """
    train = cohort.rows("train")
    rows = train[cohort.samples[[present_column(name) for name in names]].to_numpy(dtype=np.bool_)[train].all(axis=1)]
    if not len(rows):
        raise CohortError(
            f"no training sample of cohort {cohort.name} has {' and '.join(names)}",
            expected="some, for the model has no placeholder for what a query lacks",
            remedy="Evaluate on a cohort whose train split has them",
        )
    rng = stream(SEED, "marginalised over")
    return np.sort(rng.choice(rows, size=min(REFERENCE_SAMPLES, len(rows)), replace=False))


def without(encoded: Embedded, absent: Collection[str], stand_ins: StandIns) -> Embedded:
    """The same samples as if all of them lacked the modalities `absent`."""
    embeddings, present = dict(encoded.embeddings), dict(encoded.present)
    for name in absent:
        n, d = embeddings[name].shape
        # NaN where there is no placeholder: a score that used it would be an error
        embeddings[name] = np.broadcast_to(stand_ins.placeholders.get(name, np.float32(np.nan)), (n, d))
        present[name] = np.zeros(n, dtype=np.bool_)
    return replace(encoded, embeddings=embeddings, present=present)


def shuffled(encoded: Embedded, name: str, rng: np.random.Generator) -> Embedded:
    """The same samples, each with another one's embedding of `name`; samples that lack it stay as they are.

    The samples that have it stand in random order in a ring, and each takes its neighbour's: so none keeps its own.
    """
    having = rng.permutation(np.flatnonzero(encoded.present[name]))
    changed = encoded.embeddings[name].copy()
    changed[having] = changed[np.roll(having, 1)]
    return replace(encoded, embeddings={**encoded.embeddings, name: changed})


def absence_report(
    *, present: Mapping[str, NDArray[np.bool_]], queries: NDArray[np.bool_], split: Split, target: str
) -> dict[str, float]:
    """How many queries lack each modality, and how many samples are no queries because they lack the target.

    Args:
        present: by modality (n,), which samples of the split have it.
        queries: (n,) which of them are queries.

    Returns:
        `<split>/<target>/recall_at_1_n_without_<name>`, only for modalities that some sample of the split lacks.
    """
    counts = {name: here if name == target else here[queries] for name, here in present.items()}
    return {
        f"{split}/{target}/recall_at_1_n_without_{name}": float((~counts[name]).sum())
        for name, here in present.items()
        if not here.all()
    }


def absence_lines(metrics: Mapping[str, float], *, split: Split, target: str, stand_ins: StandIns) -> list[str]:
    """The same in words, a line each."""
    prefix = f"{split}/{target}/recall_at_1_n_without_"
    lines = []
    for key, count in metrics.items():
        name = key.removeprefix(prefix)
        if name == target:
            lines.append(f"  {_count(count, 'sample', 'samples')} {name}: neither queries nor candidates")
        elif name != key:
            lines.append(f"  {_count(count, 'query', 'queries')} {name}: {stand_ins.method([name])}")
    return lines


def _count(count: float, one: str, many: str) -> str:
    return f"{count:,.0f} {one} lacks" if count == 1 else f"{count:,.0f} {many} lack"
