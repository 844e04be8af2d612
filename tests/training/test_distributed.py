"""N processes at batch n are one process at N·n: the loss, every gradient, and the weights after a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symile_clin.data.dataset import Batch, CohortDataset
from symile_clin.errors import ConfigError, MismatchError, StoppedError, TrainingError
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.progress import Quiet
from symile_clin.ranks import ALONE, Ranks
from symile_clin.schema import present_column
from symile_clin.tracking import NullTracker
from symile_clin.training import distributed
from symile_clin.training.distributed import check_same, sum_gradients, with_shared_statistics
from symile_clin.training.fit import fit
from symile_clin.training.step import optimisation_step
from tests.data.vectors import NAMES, candidate_lists, modalities, vector_cohort
from tests.processes import in_processes

CPU = torch.device("cpu")
WIDTH, DIM, MANY = 5, 8, 11
OBJECTIVES: Mapping[str, Objective] = {
    "exhaustive": Symile(),
    "permuted": Symile("permuted"),
    "clip": PairwiseClip(),
}


def _model(dtype: torch.dtype) -> MultimodalEncoder:
    torch.manual_seed(0)
    encoders = {name: nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, DIM)) for name in "abc"}
    model = MultimodalEncoder(
        encoders, dim=DIM, normalization="layernorm", logit_scale_init=-1.0, placeholders=("a", "b", "c")
    )
    return model.to(dtype)


def _batch(dtype: torch.dtype, absence: str) -> Batch:
    """All samples: a third without "a"; the first process's, whichever the number of processes, all without "b"."""
    generator = torch.Generator().manual_seed(1)
    present = {name: torch.ones(MANY, dtype=torch.bool) for name in "abc"}
    if absence == "absent":
        present["a"][::3] = False
        present["b"][: Ranks(0, 2).sizes(MANY)[0]] = False
        present["c"][10] = False
    vectors = {name: torch.randn(MANY, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for name in "abc"}
    return Batch(
        arrays={name: {"vector": vectors[name][here]} for name, here in present.items()},
        draws={name: vectors[name][here] for name, here in present.items()},
        present=present,
        row=torch.arange(100, 100 + MANY),
    )


def _inputs(batch: Batch) -> dict[str, Tensor]:
    return {name: arrays["vector"] for name, arrays in batch.arrays.items()}


def _steps(
    ranks: Ranks,
    objective: Objective,
    dtype: torch.dtype,
    absence: str,
    embed_chunk: int | None = None,
    clip_norm: float | None = None,
) -> dict[str, Any]:
    """Loss and gradients of a first step, weights after three."""
    model, whole = _model(dtype), _batch(dtype, absence)
    mine = ranks.mine(MANY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    losses, gradients = [], {}
    for step in range(3):
        losses.append(
            optimisation_step(
                model=model,
                objective=objective,
                optimizer=optimizer,
                batch=whole.part(mine.start, mine.stop),
                prepare=_inputs,
                ranks=ranks,
                size=MANY,
                embed_chunk=embed_chunk,
                place="epoch 1",
                seed=0,
                step=step,
                autocast=None,
                clip_norm=clip_norm,
            )
        )
        if step == 0:
            gradients = {name: None if one.grad is None else one.grad.clone() for name, one in model.named_parameters()}
    return {"losses": losses, "gradients": gradients, "weights": {n: p.detach() for n, p in model.named_parameters()}}


@cache
def _cases() -> list[tuple[Any, ...]]:
    cases: list[tuple[Any, ...]] = [
        (f"{name}, {dtype}, {absence}", objective, dtype, absence)
        for name, objective in OBJECTIVES.items()
        for dtype in (torch.float32, torch.float64)
        for absence in ("complete", "absent")
    ]
    cases += [
        ("chunks of two", OBJECTIVES["exhaustive"], torch.float64, "absent", 2),
        ("clipped", OBJECTIVES["exhaustive"], torch.float64, "absent", None, 0.01),
        ("clipped, chunks of three", OBJECTIVES["clip"], torch.float64, "complete", 3, 0.01),
    ]
    return cases


def _run_cases(ranks: Ranks) -> dict[str, Any]:
    """Every case in one set of processes: starting them takes longer than training."""
    return {name: _steps(ranks, *case) for name, *case in _cases()}


@cache
def _found(size: int) -> list[dict[str, Any]]:
    return in_processes(size, _run_cases) if size > 1 else [_run_cases(ALONE)]


@pytest.mark.parametrize("case", [name for name, *_ in _cases()])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_have_the_loss_the_gradients_and_the_weights_of_one(size: int, case: str) -> None:
    (alone,) = _found(1)
    expected, tolerance = alone[case], 1e-12 if "64" in case or "chunk" in case or "clipped" in case else 2e-6
    for found in (one[case] for one in _found(size)):
        assert found["losses"] == pytest.approx(expected["losses"], rel=tolerance, abs=tolerance)
        for name, gradient in expected["gradients"].items():
            if gradient is None:
                assert found["gradients"][name] is None
            else:
                torch.testing.assert_close(found["gradients"][name], gradient, rtol=tolerance, atol=tolerance)
        for name, weight in expected["weights"].items():
            # AdamW divides by the gradient's size: its rounding counts where the gradient is near zero
            torch.testing.assert_close(found["weights"][name], weight, rtol=1e3 * tolerance, atol=1e3 * tolerance)


@pytest.mark.parametrize("case", [name for name, *_ in _cases()])
def test_all_processes_have_the_same_bits(case: str) -> None:
    first, *others = (one[case] for one in _found(3))
    for other in others:
        assert other["losses"] == first["losses"]
        assert all(torch.equal(other["weights"][name], weight) for name, weight in first["weights"].items())


def test_gradients_are_large_enough_to_tell_a_sum_from_a_mean() -> None:
    """A factor of the number of processes hides behind a tolerance, or behind AdamW, which does not see it."""
    (alone,) = _found(1)
    for name, case in alone.items():
        trained = {key: one for key, one in case["gradients"].items() if not key.startswith("placeholders")}
        assert min(float(gradient.abs().max()) for gradient in trained.values()) > 1e-5, name


def test_losses_fall_and_a_clipped_gradient_has_its_norm() -> None:
    (alone,) = _found(1)
    for case in alone.values():
        assert case["losses"][-1] < case["losses"][0]
    norm = sum(float(one.square().sum()) for one in _found(3)[1]["clipped"]["gradients"].values() if one is not None)
    assert norm**0.5 == pytest.approx(0.01)


def _some_gradients(ranks: Ranks) -> list[Any]:
    parameters = [nn.Parameter(torch.zeros(2, 3)) for _ in range(5)]
    parameters += [nn.Parameter(torch.zeros(4, dtype=torch.float64)), nn.Parameter(torch.zeros(()))]
    parameters[1].grad = torch.full((2, 3), 1.0 + ranks.rank)
    parameters[2].grad = torch.arange(6.0).reshape(3, 2).T  # not contiguous
    if ranks.rank == 1:
        parameters[3].grad = torch.ones(2, 3)
        parameters[5].grad = torch.full((4,), 2.0, dtype=torch.float64)
    parameters[6].grad = torch.tensor(1.0)
    distributed.BUCKET_BYTES = 30  # type: ignore[misc]  # a bucket for each
    sum_gradients(parameters, ranks)
    return [parameter.grad for parameter in parameters]


def test_missing_gradients_are_zeros_and_those_missing_everywhere_stay_so() -> None:
    for found in in_processes(3, _some_gradients):
        assert [one is None for one in found] == [True, False, False, False, True, False, False]
        assert torch.equal(found[1], torch.full((2, 3), 6.0))
        assert torch.equal(found[2], 3 * torch.arange(6.0).reshape(3, 2).T)
        assert torch.equal(found[3], torch.ones(2, 3))
        assert torch.equal(found[5], torch.full((4,), 2.0, dtype=torch.float64))
        assert float(found[6]) == 3


def _bad_step(ranks: Ranks) -> str:
    model, whole = _model(torch.float32), _batch(torch.float32, "complete")
    whole.arrays["b"]["vector"][9, 1] = float("nan")  # of the last process
    mine = ranks.mine(MANY)
    try:
        optimisation_step(
            model=model,
            objective=Symile(),
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            batch=whole.part(mine.start, mine.stop),
            prepare=_inputs,
            ranks=ranks,
            size=MANY,
            embed_chunk=None,
            place="epoch 1, step 4",
            seed=0,
            step=3,
            autocast=None,
            clip_norm=None,
        )
    except TrainingError as error:
        return str(error)
    return "nothing happened"


def test_a_bad_sample_of_one_process_stops_all_of_them_and_all_name_it() -> None:
    for text in in_processes(2, _bad_step):
        assert text.startswith("the loss is nan at epoch 1, step 4 (rows 109).")


def _fit(ranks: Ranks, place: Path, batch_size: int = 25, lacking: bool = False, **settings: Any) -> dict[str, Any]:
    """A real run; the weights and figures it comes to."""
    cohort = vector_cohort(place / f"cohort-{ranks.rank}-of-{ranks.size}")
    if lacking:  # the first process may well have none of a modality
        for number, name in enumerate(NAMES):
            here = np.random.default_rng(number).random(len(cohort.samples)) < 0.3
            cohort.samples[present_column(name)] = here | (cohort.samples["split"] == "val")
    torch.manual_seed(ranks.rank)  # processes that start from other weights than the first
    encoders = {name: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, DIM)) for name in NAMES}
    model = MultimodalEncoder(
        encoders, dim=DIM, normalization="layernorm", logit_scale_init=-1.0, placeholders=NAMES
    ).double()
    directory = place / f"run-of-{ranks.size}"
    directory.mkdir(exist_ok=True)
    val = cohort.rows("val")
    defaults: dict[str, Any] = {
        "objective": Symile(), "seed": 0, "epochs": 2, "lr": 1e-2, "weight_decay": 0.01, "decay_all": False,
        "warmup_epochs": 1, "schedule": "cosine", "clip_norm": 1.0, "precision": "auto", "patience": None,
        "select_by": "retrieval", "workers": 0, "embed_chunk": None, "sync_batchnorm": False, "memory_format": "auto",
        "compile": False, "checkpoint_minutes": None,
    }  # fmt: skip
    result = fit(
        model=model,
        train=CohortDataset(cohort, _doubled(), cohort.rows("train")),
        val=CohortDataset(cohort, _doubled(), val),
        candidates=candidate_lists(val),
        target="blue",
        directory=directory,
        batch_size=batch_size,
        device=CPU,
        ranks=ranks,
        tracker=NullTracker(),
        progress=Quiet(),
        **{**defaults, **settings},
    )
    history = [{name: value for name, value in one.items() if name != "train/data_wait"} for one in result.history]
    return {"weights": model.state_dict(), "history": history, "best": result.best_epoch}


def _doubled() -> Any:
    """Modalities whose inputs are float64."""
    found = modalities()
    for one in found.values():
        single = one.to_input
        one.to_input = lambda arrays, draws, single=single: single(arrays, draws).double()  # type: ignore[method-assign,misc]
    return found


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (2, {}),
        (3, {"lacking": True, "objective": Symile("permuted"), "batch_size": 40, "embed_chunk": 4}),
    ],
)
def test_a_run_of_processes_is_the_run_of_one(tmp_path: Path, size: int, settings: dict[str, Any]) -> None:
    alone = _fit(ALONE, tmp_path, **settings)
    first, *others = in_processes(size, _fit_with, tmp_path, settings)
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-8, atol=1e-8)
    for one, other in zip(alone["history"], first["history"], strict=True):
        assert other == pytest.approx(one, rel=1e-6)
    assert alone["best"] == first["best"]
    for other in others:
        assert other["history"] == first["history"]
        assert all(torch.equal(other["weights"][name], weight) for name, weight in first["weights"].items())
    assert len((tmp_path / f"run-of-{size}" / "metrics.jsonl").read_text().splitlines()) == 2


def _fit_with(ranks: Ranks, place: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return _fit(ranks, place, **settings)


def _stopped_fit(ranks: Ranks, place: Path) -> str:
    asked = 0

    def stop() -> int:
        nonlocal asked
        asked += 1
        return 15 if ranks.rank == 1 and asked == 2 else 0

    try:
        _fit(ranks, place, stop=stop)
    except StoppedError as error:
        return f"{error} {error.exit_code}"
    return "nothing happened"


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path) -> None:
    assert in_processes(2, _stopped_fit, tmp_path) == ["SIGTERM stopped training after step 2 of 8. 143"] * 2
    assert (tmp_path / "run-of-2" / "checkpoints" / "last").is_dir()


def _small_batches(ranks: Ranks, place: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        _fit(ranks, place, batch_size=3)
    return str(caught.value)


def test_a_batch_has_a_sample_for_every_process(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the smallest batch has 2 samples, for 3 processes"):
        distributed.check_divisible(Ranks(0, 3), smallest=2)
    distributed.check_divisible(Ranks(0, 2), smallest=2)
    for text in in_processes(4, _small_batches, tmp_path):
        assert "the smallest batch has 3 samples, for 4 processes" in text


def test_statistics_over_processes_are_refused_where_they_cannot_be() -> None:
    model = _model(torch.float32)
    assert with_shared_statistics(model, ALONE, device=CPU, embed_chunk=2) is model
    with pytest.raises(ConfigError, match="needs CUDA devices"):
        with_shared_statistics(model, Ranks(0, 2), device=CPU, embed_chunk=None)
    with pytest.raises(ConfigError, match="encode all of its part at once"):
        with_shared_statistics(model, Ranks(0, 2), device=torch.device("cuda", 0), embed_chunk=None)


def test_statistics_over_processes_keep_every_name_and_value() -> None:
    torch.manual_seed(0)
    encoders = {name: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for name in "ab"}
    model = MultimodalEncoder(encoders, dim=4, normalization="l2", logit_scale_init=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shared = with_shared_statistics(model, Ranks(0, 2), device=torch.device("cuda", 0), embed_chunk=None)
    assert [type(one) for one in shared.modules()].count(nn.SyncBatchNorm) == 2
    assert shared.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())


def _differ(ranks: Ranks) -> str:
    check_same(ranks, "cohort", "the same")
    try:
        check_same(ranks, "cohort", "one" if ranks.is_first else "two")
    except MismatchError as error:
        return str(error)
    return "no complaint"


def test_processes_that_would_train_different_things_are_refused() -> None:
    first, second = in_processes(2, _differ)
    assert first == "no complaint"
    assert second.startswith("process 1 has another cohort than the first. Expected one, found two.")
