"""Symile's loss and gradients of 2 and 3 processes against those of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from symile_clin.objectives import Symile, slabs
from symile_clin.ranks import ALONE, Ranks
from tests.objectives.oracles import embeddings, with_absence
from tests.processes import in_processes

#: Rows of a batch; neither 2 nor 3 processes get equal parts of it.
N = 7


def every_case(ranks: Ranks) -> dict[str, list[Tensor]]:
    """This process's share of the loss, and the gradients of the scale and of its own rows, case by case."""
    found = {}
    for case, objective, tensors, present in _cases():
        scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        mine = {name: tensor.detach()[ranks.mine(N)] for name, tensor in tensors.items()}
        gathered = {name: ranks.gather(tensor, N).requires_grad_() for name, tensor in mine.items()}
        generator = torch.Generator().manual_seed(3)
        # More slabs than processes, and a cube that is computed twice, as large ones are.
        kept, slabs.KEPT_BYTES = slabs.KEPT_BYTES, 0 if "again" in case else slabs.KEPT_BYTES
        largest, slabs.SLAB_BYTES = slabs.SLAB_BYTES, 1200
        try:
            loss = objective.share_of_loss(gathered, scale, ranks=ranks, present=present, generator=generator)
        finally:
            slabs.KEPT_BYTES, slabs.SLAB_BYTES = kept, largest
        of_scale, *of_whole = torch.autograd.grad(loss, [scale, *gathered.values()])
        found[case] = [loss.detach(), of_scale, *(ranks.sum(one)[ranks.mine(N)] for one in of_whole)]
    return found


def _cases() -> list[tuple[str, Symile, dict[str, Tensor], dict[str, Tensor] | None]]:
    few = with_absence(3, n=N, d=4, seed=0)
    # Sample 0 has nothing but one modality, sample 1 alone has its pair: one process has nothing to walk.
    rare = {"m0": torch.arange(N) < 2, "m1": torch.arange(N) == 1, "m2": torch.zeros(N, dtype=torch.bool)}
    nobody = {f"m{index}": torch.arange(N) == index for index in range(3)}
    whole = [(k, how) for k in (2, 3, 4) for how in ("", ", again")]
    every = [
        *((f"{k} modalities{how}", "exhaustive", embeddings(k, n=N, d=3), None) for k, how in whole),
        ("permuted", "permuted", embeddings(3, n=N, d=3), None),
        ("absence", "exhaustive", *few),
        ("permuted with absence", "permuted", *few),
        ("a single pair", "exhaustive", embeddings(3, n=N, d=3), rare),
        ("a single pair, permuted", "permuted", embeddings(3, n=N, d=3), rare),
        ("nothing", "exhaustive", embeddings(3, n=N, d=3), nobody),
    ]
    return [
        (case, Symile("exhaustive" if negatives == "exhaustive" else "permuted"), tensors, present)
        for case, negatives, tensors, present in every
    ]


@pytest.fixture(scope="module")
def parts() -> dict[int, list[dict[str, list[Tensor]]]]:
    """Results of all cases in each process, by number of processes."""
    return {size: in_processes(size, every_case) for size in (2, 3)}


@pytest.fixture(scope="module")
def alone() -> dict[str, list[Tensor]]:
    """Results of all cases in one process."""
    return every_case(ALONE)


@pytest.mark.parametrize("case", [case for case, *_ in _cases()])
@pytest.mark.parametrize("size", [2, 3])
def test_shares_add_up_to_the_loss_and_gradients_of_one_process(
    size: int, case: str, parts: dict[int, list[dict[str, list[Tensor]]]], alone: dict[str, list[Tensor]]
) -> None:
    mine = [part[case] for part in parts[size]]
    loss, scale, *rows = alone[case]
    torch.testing.assert_close(sum(part[0] for part in mine), loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sum(part[1] for part in mine), scale, rtol=1e-10, atol=1e-12)
    for index, whole in enumerate(rows):
        together = torch.cat([part[2 + index] for part in mine])
        torch.testing.assert_close(together, whole, rtol=1e-10, atol=1e-12)


def test_work_is_split_evenly() -> None:
    budget = slabs.Budget(kept=0, slab=10**7)
    alone, shared = (
        slabs.cost((280, 280, 280), 8192, element_size=4, budget=budget, processes=processes).flops
        for processes in (1, 3)
    )
    assert alone / 3 <= shared < alone / 3 * 1.01
