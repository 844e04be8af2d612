"""The released checkpoint: read safely, mapped exactly, evaluated like any run, and a start for training."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symile_clin.config import load_config, resolve_config
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.encoders.lightning import read_lightning
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.evaluation.embed import embed
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.modalities.registry import modalities_of
from symile_clin.objectives.base import Objective
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.evaluation import evaluate
from symile_clin.pipeline.models import build_model
from symile_clin.pipeline.published import own_names, published_config, start_from
from symile_clin.pipeline.runs import open_run
from symile_clin.pipeline.training import _equal_run as equal_run
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from symile_clin.training.checkpoint import load_weights
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree

DIM = 24


class Images(nn.Module):
    """A ResNet, and LayerNorm."""

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.resnet = resnet
        self.resnet.fc = nn.Linear(resnet.fc.in_features, DIM)
        self.layer_norm = nn.LayerNorm(DIM)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.layer_norm(self.resnet(images))
        return embedding


class Values(nn.Module):
    """Three layers, and LayerNorm."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(2 * items, 256), nn.Linear(256, 1024), nn.Linear(1024, DIM)
        self.layer_norm = nn.LayerNorm(DIM)

    def forward(self, values: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.fc2(nn.functional.gelu(self.fc1(values))))
        embedding: Tensor = self.layer_norm(self.fc3(hidden))
        return embedding


class Published(nn.Module):
    """The published modules, written down from their description: what is in the file, and what it computes."""

    def __init__(self, *, items: int = 50) -> None:
        from torchvision import models

        super().__init__()
        ecg = models.resnet18()
        ecg.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.cxr_encoder, self.ecg_encoder = Images(models.resnet50()), Images(ecg)
        self.labs_encoder = Values(items)
        self.logit_scale = nn.Parameter(torch.tensor(-6.2))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoders = {"cxr": self.cxr_encoder, "ecg": self.ecg_encoder, "labs": self.labs_encoder}
        return {name: encoder(inputs[name]) for name, encoder in encoders.items()}


def published(*, items: int = 50) -> Published:
    """With batch statistics, gains and biases that are not those of a new network."""
    torch.manual_seed(0)
    model = Published(items=items).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "layer_norm.bias")):
                tensor.normal_(0, 0.1)
            if name.endswith(("running_var", "layer_norm.weight")):
                tensor.uniform_(0.8, 1.2)
    return model


def write_checkpoint(path: Path, model: nn.Module, **changes: Any) -> Path:
    """A file as Lightning writes it for the published module."""
    hyper_parameters = {
        "experiment": "symile_mimic", "d": DIM, "logit_scale_init": -7.0, "loss_fn": "symile",
        "negative_sampling": "n_squared", "lr": 1e-3, "weight_decay": 0.5, "epochs": 80, "batch_sz_train": 280,
        "pretrained": False, "seed": 0,
        "data_dir": PosixPath("/somewhere/else"), "save_dir": PosixPath("/ckpts"), "freeze_logit_scale": False,
    }  # fmt: skip
    content = {
        "epoch": 56, "global_step": 2052, "pytorch-lightning_version": "2.4.0", "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}, "lr_schedulers": [], "hparams_name": "kwargs",
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": {**hyper_parameters, **changes},
    }  # fmt: skip
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort of the 50 items and a checkpoint."""
    root = tmp_path_factory.mktemp("published")
    tree = Tree(root / "tree")
    for number in range(24):
        tree.complete(10_000_000 + number, 20_000_000 + number, ADMITTED + number * HOUR)
    spec = root / "spec.yaml"
    spec.write_text(dump_yaml(apply_overrides(SPEC, ["candidates.n=3"])))
    build_cohort(spec=str(spec), out=root / "cohort", workers=1, tracking_uri=None, progress=Quiet(), **tree.write())  # type: ignore[arg-type]  # sources by option
    write_checkpoint(root / "symile_mimic_model.ckpt", published(items=_items(root)))
    return root


def _items(root: Path) -> int:
    return open_cohort(root / "cohort").array("labs", "percentile").shape[0]


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run commands in."""
    monkeypatch.chdir(tmp_path)
    return root


def _embeddings(cohort: Cohort, model: nn.Module) -> Mapping[str, np.ndarray[Any, Any]]:
    dataset = CohortDataset(cohort, modalities_of(cohort.spec), cohort.rows("test"))
    return embed(model=model, dataset=dataset, batch_size=3, device="cpu").embeddings


def _by_hand(cohort: Cohort, model: Published) -> dict[str, Tensor]:
    dataset = CohortDataset(cohort, modalities_of(cohort.spec), cohort.rows("test"))
    with torch.inference_mode():
        return model.forward(dataset.inputs(dataset.fetch(dataset.rows)))


def test_the_same_embeddings_as_the_modules_built_by_hand(root: Path) -> None:
    cohort = open_cohort(root / "cohort")
    modalities = modalities_of(cohort.spec)
    checkpoint = read_lightning(root / "symile_mimic_model.ckpt")
    config = published_config(checkpoint, modalities, source="it", objective=None, progress=Quiet())
    model, _ = build_model(config, modalities, pretrained=False)
    model.load_state_dict(own_names(checkpoint, modalities, source="it"))
    expected = _by_hand(cohort, published(items=_items(root)))
    for name, array in _embeddings(cohort, model).items():
        np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-4, atol=1e-5)
    assert float(model.logit_scale.detach()) == pytest.approx(-6.2)


def test_its_hyper_parameters_become_a_config(root: Path) -> None:
    modalities = modalities_of(open_cohort(root / "cohort").spec)
    checkpoint = read_lightning(root / "symile_mimic_model.ckpt")
    assert checkpoint.epoch == 56
    assert checkpoint.hyper_parameters["data_dir"] == Path("/somewhere/else")
    found = published_config(checkpoint, modalities, source="it", objective=None, progress=Quiet())
    paper = load_config("paper_symile", overrides=[f"model.dim={DIM}"], objective=None, modalities=modalities)
    assert found.objective == paper.objective
    assert found.model.encoders == paper.model.encoders
    assert found.model.logit_scale_init == paper.model.logit_scale_init == -7.0
    for field in ("epochs", "batch_size", "lr", "weight_decay", "decay_all", "schedule", "precision"):
        assert getattr(found.training, field) == getattr(paper.training, field), field
    clip = published_config(checkpoint, modalities, source="it", objective="clip", progress=Quiet())
    paper = load_config("paper_clip", overrides=[], objective=None, modalities=modalities)
    assert clip.objective == paper.objective


def test_eval_takes_the_file_over_as_a_run_and_scores_it(here: Path) -> None:
    file, cohort = here / "symile_mimic_model.ckpt", open_cohort(here / "cohort")
    result = evaluate(checkpoint=file, cohort=cohort.path, tracking_uri=None, progress=Quiet())
    assert (result.run, result.objective) == ("symile_mimic_model", "symile")
    assert result.directory == Path("runs/symile_mimic_model/eval/test")
    embeddings = {name: tensor.numpy() for name, tensor in _by_hand(cohort, published(items=_items(here))).items()}

    class Product(Objective):
        """The published score of the released model, by itself."""

        name = "product"

        def score(self, queries, candidates, *, target, present=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
            return torch.stack(list(queries.values())).prod(dim=0) @ candidates.T

    Product.__abstractmethods__ = frozenset()  # it is asked for its score only
    lists = cohort.candidates("test")
    scores = score_lists(Product("layernorm"), embeddings, cohort.rows("test"), lists, "cxr")  # type: ignore[abstract]
    expected = float(rank(scores).recall_at(1).mean())
    assert result.metrics["test/cxr/recall_at_1"] == pytest.approx(expected)
    # a second time it is there already, and a run like any other
    run = open_run(Path("runs"), None)
    before = (run.path / "manifest.json").stat().st_mtime_ns
    evaluate(checkpoint=file, cohort=cohort.path, split="val", tracking_uri=None, progress=Quiet())
    assert (run.path / "manifest.json").stat().st_mtime_ns == before
    assert evaluate(run="symile_mimic_model", tracking_uri=None, progress=Quiet()).metrics == result.metrics
    # it is never taken for a training of ours with the same settings, and says nothing of where the file lay
    assert run.manifest["adopted"]["file"] == file.name
    assert str(here / "symile") not in json.dumps(dict(run.manifest))
    modalities = modalities_of(cohort.spec)
    config = resolve_config(run.config, source="it", modalities=modalities)
    assert equal_run(Path("runs"), None, config, cohort) is None
    # another file of that name is not mistaken for it
    other = write_checkpoint(Path("symile_mimic_model.ckpt"), published(items=_items(here)), loss_fn="clip")
    with pytest.raises(ConfigError, match="is another run"):
        evaluate(checkpoint=other, cohort=cohort.path, tracking_uri=None, progress=Quiet())


def test_training_starts_from_the_files_weights(here: Path) -> None:
    overrides = [
        f"model.dim={DIM}", "training.epochs=1", "training.lr=1e-12", "training.weight_decay=0",
        "training.batch_size=8", "training.workers=0",
    ]  # fmt: skip
    result = train(
        preset="paper_symile", cohort=here / "cohort", init_from=here / "symile_mimic_model.ckpt", overrides=overrides,
        tracking_uri=None, progress=Quiet(),
    )  # fmt: skip
    run = open_run(Path("runs"), result.run.name)
    assert run.config["init_from"]["file"] == "symile_mimic_model.ckpt"
    modalities = modalities_of(open_cohort(here / "cohort").spec)
    config = load_config("paper_symile", overrides=overrides, objective=None, modalities=modalities)
    model, objective = build_model(config, modalities, pretrained=False)
    load_weights(run.path / "checkpoints" / "last", model=model, objective=objective)
    released = own_names(read_lightning(here / "symile_mimic_model.ckpt"), modalities, source="it")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), released[name], rtol=1e-5, atol=1e-6)
    # and from a run of ours
    again, _ = build_model(config, modalities, pretrained=False)
    start_from(run.path / "checkpoints" / "last" / "model.safetensors", again, modalities)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_start_that_cannot_be_read_is_not_called_one_of_another_size(here: Path) -> None:
    Path("junk.safetensors").write_bytes(b"no weights")
    with pytest.raises(MismatchError) as caught:
        train(
            preset="paper_symile", cohort=here / "cohort", init_from=Path("junk.safetensors"), tracking_uri=None,
            overrides=[f"model.dim={DIM}"], progress=Quiet(),
        )  # fmt: skip
    assert "cannot be read as weights" in str(caught.value)
    assert "Train with the dim" not in str(caught.value)


def test_a_model_of_another_size_is_refused_before_anything_is_written(here: Path) -> None:
    with pytest.raises(MismatchError, match=r"of another shape: .* instead of .*Train with the dim"):
        train(
            preset="paper_symile", cohort=here / "cohort", init_from=here / "symile_mimic_model.ckpt",
            overrides=["model.dim=16"], tracking_uri=None, progress=Quiet(),
        )  # fmt: skip
    assert [path for path in Path("runs").iterdir() if not path.name.endswith(".lock")] == []


class Evil:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "everything"])
def test_nothing_in_a_hostile_file_is_run(here: Path, place: str) -> None:
    path = Path("evil.ckpt")
    if place == "everything":
        path.write_bytes(pickle.dumps(Evil()))
    else:
        content = {"state_dict": {"logit_scale": torch.zeros(())}, "hyper_parameters": {}}
        torch.save({**content, place: {"x": Evil()}}, path)
    with pytest.raises(MismatchError, match="cannot be read as a Lightning checkpoint"):
        evaluate(checkpoint=path, cohort=here / "cohort", tracking_uri=None, progress=Quiet())
    assert not Path("owned").exists()
    assert not Path("runs").exists()


def test_what_is_no_released_checkpoint_is_said_in_one_line(here: Path) -> None:
    cohort = here / "cohort"

    def fails(path: Path, kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words):
            evaluate(checkpoint=path, cohort=cohort, tracking_uri=None, progress=Quiet())

    fails(Path("absent.ckpt"), NotFoundError, "no checkpoint absent.ckpt")
    torch.save({"weights": 1}, "other.ckpt")
    fails(Path("other.ckpt"), MismatchError, "has no 'state_dict'")
    Path("truncated.ckpt").write_bytes((here / "symile_mimic_model.ckpt").read_bytes()[:5000])
    fails(Path("truncated.ckpt"), MismatchError, "cannot be read")
    stranger = nn.ModuleDict({"text_encoder": nn.Linear(2, 2)})
    fails(write_checkpoint(Path("stranger.ckpt"), stranger), MismatchError, "'text_encoder.weight', which no modality")
    unknown = write_checkpoint(Path("unknown.ckpt"), published(items=_items(here)), loss_fn="triplet")
    fails(unknown, ConfigError, "does not say what it was trained with.*--objective")
    fewer = write_checkpoint(Path("fewer.ckpt"), published(items=3))
    fails(fewer, MismatchError, "of another shape: encoders.labs.0.weight")
