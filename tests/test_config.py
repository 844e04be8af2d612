"""Presets resolve completely, compare equal after a round trip, and fail with every problem named."""

from collections.abc import Mapping

import pytest
import yaml

from symile_clin.config import flatten, load_config, resolve_config
from symile_clin.errors import ConfigError, NotFoundError
from symile_clin.modalities.base import Modality
from symile_clin.modalities.registry import ROOMS, modalities_of
from symile_clin.pipeline.models import build_model
from symile_clin.strict import find_preset, load_yaml, preset_folder


@pytest.fixture(scope="module")
def modalities() -> Mapping[str, Modality]:
    spec = load_yaml(find_preset("cohorts", "demo"))
    spec["modalities"] = {name: {"room": name, **values} for name, values in spec["modalities"].items()}
    assert set(spec["modalities"]) <= set(ROOMS)
    return modalities_of(spec)


@pytest.mark.parametrize(
    "preset",
    sorted(path.stem for path in preset_folder("configs").glob("*.yaml") if "experiment" not in load_yaml(path)),
)
def test_every_preset_resolves_and_comes_back_equal_from_its_yaml(
    preset: str, modalities: Mapping[str, Modality]
) -> None:
    config = load_config(preset, overrides=[], objective=None, modalities=modalities)
    plain = config.model_dump(mode="json")
    again = resolve_config(yaml.safe_load(yaml.safe_dump(plain)), source="x", modalities=modalities)
    assert again.model_dump(mode="json") == plain
    assert set(config.model.encoders) == set(modalities)


def test_the_papers_presets_hold_the_papers_numbers(modalities: Mapping[str, Modality]) -> None:
    symile = load_config("paper_symile", overrides=[], objective=None, modalities=modalities)
    clip = load_config("paper_clip", overrides=[], objective=None, modalities=modalities)
    assert (symile.model.dim, symile.model.logit_scale_init) == (8192, -7.0)
    training = symile.training
    assert (training.batch_size, training.lr, training.weight_decay, training.epochs) == (280, 1e-3, 0.5, 80)
    assert training.decay_all
    paper = {"name": "symile", "negatives": "exhaustive", "normalization": "layernorm", "precision": "fp32"}
    assert symile.objective == paper
    assert clip.objective == {"name": "clip", "reduction": "sum", "normalization": "layernorm"}
    assert (clip.model, clip.training) == (symile.model, symile.training)
    arches = {name: options["arch"] for name, options in symile.model.encoders.items()}
    assert arches == {"cxr": "resnet50", "ecg": "resnet18_image", "labs": "mlp"}


def test_runs_of_two_objectives_have_the_same_parameter_names(modalities: Mapping[str, Modality]) -> None:
    symile = flatten(load_config("demo", overrides=[], objective=None, modalities=modalities))
    clip = flatten(load_config("demo", overrides=[], objective="clip", modalities=modalities))
    assert list(symile) == list(clip)
    assert (symile["objective.negatives"], clip["objective.negatives"]) == ("exhaustive", "-")
    assert (symile["objective.reduction"], clip["objective.reduction"]) == ("-", "mean")


def test_all_problems_come_at_once(modalities: Mapping[str, Modality]) -> None:
    overrides = [
        "training.epoch=3", "training.lr=-1", "objective.negativs=all", "model.encoders.xray.arch=small",
        "model.encoders.ecg.arch=huge",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load_config("demo", overrides=overrides, objective=None, modalities=modalities)
    text = str(caught.value)
    for expected in (
        "demo.yaml has 5 problems", "did you mean 'epochs'?", "'training.lr'", "did you mean 'negatives'?",
        "'model.encoders.xray'", "'model.encoders.ecg.arch'",
    ):  # fmt: skip
        assert expected in text


def test_a_preset_of_an_experiment_is_not_trained_on_a_cohort(modalities: Mapping[str, Modality]) -> None:
    with pytest.raises(ConfigError, match=r"xor\.yaml is a preset of the experiment xor.*`symile-clin xor xor`"):
        load_config("xor", overrides=[], objective=None, modalities=modalities)


def test_unknown_preset_and_objective_suggest_the_nearest(modalities: Mapping[str, Modality]) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'paper_symile'"):
        load_config("paper_symil", overrides=[], objective=None, modalities=modalities)
    with pytest.raises(ConfigError, match="did you mean 'symile'"):
        load_config("demo", overrides=[], objective="symil", modalities=modalities)


def test_the_same_seed_builds_the_same_model_and_a_checkpoints_model_needs_no_weights(
    modalities: Mapping[str, Modality],
) -> None:
    config = load_config("demo", overrides=[], objective=None, modalities=modalities)
    one, _ = build_model(config, modalities, pretrained=True)
    two, _ = build_model(config, modalities, pretrained=True)
    assert all(bool((a == b).all()) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    wanting = load_config(
        "demo", overrides=["model.encoders.cxr={arch: resnet18, weights: /gone.pt}"], objective=None,
        modalities=modalities,
    )  # fmt: skip
    with pytest.raises(NotFoundError, match=r"gone\.pt"):
        build_model(wanting, modalities, pretrained=True)
    build_model(wanting, modalities, pretrained=False)


def test_an_objective_that_is_not_defined_for_the_cohort_s_modalities_is_refused(
    modalities: Mapping[str, Modality],
) -> None:
    two = dict(list(modalities.items())[:2])
    with pytest.raises(ConfigError, match="'triangle' is defined for 3 modalities, and here are 2"):
        load_config("symile", overrides=[], objective="triangle", modalities=two)
    with pytest.raises(ConfigError, match=r"'objective\.anchor': no modality is called 'pulse' \(valid: "):
        load_config(
            "symile", overrides=["objective={name: gram, anchor: pulse}"], objective=None, modalities=modalities
        )
