"""Presets of the experiment resolve, are the published ones, and fail with every problem named."""

import pytest

from symile_clin.errors import ConfigError, NotFoundError
from symile_clin.experiments.settings import XorConfig, load_xor_config
from symile_clin.strict import load_yaml, preset_folder

PRESETS = sorted(path.stem for path in preset_folder("configs").glob("*.yaml") if "experiment" in load_yaml(path))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_comes_back_equal(preset: str) -> None:
    config = load_xor_config(preset, overrides=[])
    assert XorConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_presets_hold_the_published_numbers() -> None:
    paper, eight, missing = (load_xor_config(name, overrides=[]) for name in ("xor", "xor_eight", "xor_missing"))
    assert (paper.variables, paper.bits, paper.target) == (3, 5, "b")
    assert paper.p == tuple(tenth / 10 for tenth in range(11))
    assert [one["name"] for one in paper.objectives] == ["symile", "clip"]
    assert (eight.variables, eight.bits, eight.p, eight.target, eight.missing) == (8, 1, (1.0,), "a", 0.0)
    assert (missing.variables, missing.bits, missing.p, missing.target, missing.missing) == (3, 1, (1.0,), "a", 0.2)
    for config in (paper, eight, missing):
        assert (config.dim, config.logit_scale_init, config.training.lr) == (16, -0.3, 0.1)
        assert {**config.objectives[0], "negatives": "permuted", "normalization": "l2"} == config.objectives[0]
        assert (config.samples.train, config.samples.val, config.samples.test) == (10_000, 1000, 5000)
    for config in (eight, missing):
        assert (config.training.epochs, config.training.batch_size) == (50, 1000)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_xor_config("xor", overrides=["p=[0.5, 1.5]", "trainig.lr=1", "bits=0", "samples.test=1", "seeds=[]"])
    for expected in (
        "xor.yaml has 5 problems",
        "'p.1'",
        "did you mean 'training'?",
        "'bits'",
        "'samples.test'",
        "'seeds'",
    ):
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("target=d", "no variable 'd'"),
        ("p=[0.1, 0.1]", "'p': a value is repeated"),
        ("objectives=[{name: symil}]", "did you mean 'symile'"),
        ("objectives=[{name: symile, negativs: all}]", "did you mean 'negatives'"),
        ("objectives=[{negatives: permuted}]", "'objectives.0.name'"),
    ],
)
def test_what_disagrees_is_named(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_xor_config("xor", overrides=[override])


def test_a_training_preset_is_not_this_experiment() -> None:
    with pytest.raises(ConfigError, match=r"demo\.yaml is no preset of the XOR experiment.*symile-clin train demo"):
        load_xor_config("demo", overrides=[])
    with pytest.raises(NotFoundError, match="xor_eight"):
        load_xor_config("xor_eigth", overrides=[])
