"""An exported model, loaded: new files in, embeddings and scores out, without a cohort and without commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_clin import files
from symile_clin.config import resolve_config
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import modalities_of
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.pipeline.exporting import MODEL, STAGE
from symile_clin.pipeline.models import build_model, choose_device
from symile_clin.schema import MANIFEST, STATE_DIR
from symile_clin.sources import paths
from symile_clin.strict import nearest
from symile_clin.training.checkpoint import WEIGHTS, load_weights


@dataclass(frozen=True)
class ExportedModel:
    """A model with all that encoding takes.

    Attributes:
        about: its model.json: run, config, modalities, cohort.
        modalities: how files and arrays of each become tensors.
        state: by modality, what was fitted on the train split.
        model: in evaluation mode.
        objective: scores as in training.
    """

    about: Mapping[str, Any]
    modalities: Mapping[str, Modality]
    state: Mapping[str, Mapping[str, Any]]
    model: MultimodalEncoder
    objective: Objective
    device: torch.device

    def read(self, name: str, path: str | Path) -> dict[str, NDArray[Any]]:
        """One file as the stored arrays of one sample, by the rules of the cohort (docs/search.md has the formats).

        Raises:
            ConfigError: no such modality, or one that is not read from a file.
            SourceError: the file is missing or refused.
        """
        return self._modality(name).read_query(Path(path), self.state[name])

    def embed(self, samples: Mapping[str, str | Path | Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Normalised embeddings by modality, float32 on the CPU: (1, dim) of a file, (b, dim) of b samples' arrays.

        Args:
            samples: by modality a file, or stored arrays with the samples along the first axis; `read` gives those of
                one sample without that axis.

        Raises:
            ConfigError: no such modality.
            SourceError: a file is missing or refused.
            MismatchError: arrays that are missing, or of another shape or type than a cohort stores them in.
        """
        return {name: self._embed(name, given) for name, given in samples.items()}

    def score(self, queries: Mapping[str, Tensor], candidates: Tensor, *, target: str) -> Tensor:
        """(q, c) scores, as in training, of candidates (c, dim) of `target` for queries (q, dim) of all others.

        Raises:
            ConfigError: no such modality; the queries hold the target, or lack one: none is ever left out of a score.
        """
        others = [name for name in self.modalities if name != self._modality(target).name]
        if set(queries) != set(others):
            raise ConfigError(
                f"the queries hold {', '.join(queries) or 'nothing'}",
                expected=f"{' and '.join(others)}, from which {target} is to be found",
                remedy="`symile-clin search` answers for some of them, too",
            )
        with torch.inference_mode():
            return self.objective.score({name: queries[name] for name in others}, candidates, target=target)

    def _embed(self, name: str, given: str | Path | Mapping[str, NDArray[Any]]) -> Tensor:
        modality = self._modality(name)
        if isinstance(given, Mapping):
            arrays = _as_stored(modality, given)
        else:
            arrays = {key: np.asarray(one)[None] for key, one in self.read(name, given).items()}
        tensors = {key: torch.tensor(one).to(self.device) for key, one in arrays.items()}
        with torch.inference_mode():
            return self.model.encode(name, modality.to_input(tensors, None)).float().cpu()

    def _modality(self, name: str) -> Modality:
        if name not in self.modalities:
            raise ConfigError(
                f"this model has no modality '{name}'", remedy=nearest(name, self.modalities).capitalize()
            )
        return self.modalities[name]


def load(path: str | Path, *, device: str = "cpu") -> ExportedModel:
    """Load what `symile-clin export` wrote. Nothing in it is unpickled.

    Raises:
        NotFoundError: no exported model there.
        MismatchError: a folder of another kind, or files that are not the ones that were exported.
        ConfigError: no such device.
    """
    folder = Path(path)
    paths.refuse_link(folder, MANIFEST)
    manifest = files.read_manifest(folder)
    if manifest is None:
        raise NotFoundError(f"no exported model in {folder}", remedy="Write one with `symile-clin export`")
    if manifest.get("stage") != STAGE:
        raise MismatchError(f"{folder} holds a {manifest.get('stage')}", expected="what `symile-clin export` wrote")
    paths.refuse_links(folder)
    _require_unchanged(folder, manifest, [MODEL, WEIGHTS])
    about, specs = _described(folder / MODEL)
    _require_unchanged(folder, manifest, [_state_file(name) for name in specs])
    modalities = modalities_of({"modalities": specs})
    config = resolve_config(about["config"], source=str(folder / MODEL), modalities=modalities)
    model, objective = build_model(config, modalities, pretrained=False)
    load_weights(folder, model=model, objective=objective)
    chosen = choose_device(device)
    return ExportedModel(
        about=about,
        modalities=modalities,
        state={name: files.read_json(folder / _state_file(name)) for name in modalities},
        model=model.to(chosen).eval(),
        objective=objective.to(chosen).eval(),
        device=chosen,
    )


def _described(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """model.json, and its modalities in their order, under names that can be those of files in the folder."""
    about = files.read_json(path)
    order, specs = (about.get("order"), about.get("modalities")) if isinstance(about, dict) else (None, None)
    if (
        not isinstance(order, list)
        or not isinstance(specs, dict)
        or not isinstance(about.get("config"), dict)
        or not all(paths.is_plain_name(name) and isinstance(specs.get(name), dict) for name in order)
        or not all("room" in specs[name] for name in order)
    ):
        raise MismatchError(f"{path} describes no model", expected="what `symile-clin export` wrote")
    return about, {name: specs[name] for name in order}


def _as_stored(modality: Modality, given: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Arrays of b samples that fit the modality.

    Raises:
        MismatchError: saying which does not, and what it should be.
    """
    wanted = {name: (np.dtype(one.dtype), tuple(one.shape)) for name, one in modality.arrays.items()}
    wanted |= {column: (np.dtype(np.int64), ()) for column in modality.input_columns}
    found: dict[str, NDArray[Any]] = {}
    length = None
    for name, (dtype, shape) in wanted.items():
        expected = f"{dtype}[{', '.join(map(str, (length if length is not None else 'b', *shape)))}]"
        if name not in given:
            raise MismatchError(f"there is no array '{name}' of {modality.name}", expected=expected)
        array = np.asarray(given[name])
        length = len(array) if length is None and array.ndim else length
        if array.shape != (length, *shape) or not np.can_cast(array.dtype, dtype, "same_kind"):
            what = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
            raise MismatchError(f"'{name}' of {modality.name} is {what}", expected=expected)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MismatchError(f"'{name}' of {modality.name} holds values that are not finite")
        found[name] = array.astype(dtype, copy=False)
    return found


def _state_file(name: str) -> str:
    return f"{STATE_DIR}/{name}.json"


def _require_unchanged(folder: Path, manifest: Mapping[str, Any], names: Sequence[str]) -> None:
    """Files cut or changed on their way, which would give other numbers without a word; the card may be edited."""
    of_all = manifest.get("files")
    for name in names:
        listed = of_all.get(name) if isinstance(of_all, dict) else None
        digest = listed.get("sha256") if isinstance(listed, dict) else None
        if digest is None or not (folder / name).is_file() or files.sha256(folder / name) != digest:
            raise MismatchError(
                f"{folder / name} is not the file that was exported",
                expected="the one whose digest manifest.json has",
                remedy="Copy or export the model again",
            )
