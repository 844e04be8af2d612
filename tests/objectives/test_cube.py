"""The streamed cube against all of it at once: values, gradients, every way of cutting it, memory and rounding."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the one public-by-use way to see every allocation

from symile_clin.objectives import slabs
from symile_clin.objectives.cube import cube_losses
from symile_clin.objectives.epilogue import Fused, factor_gradients, online_logsumexp, softmax_weights
from symile_clin.objectives.slabs import Budget, Grid, cost
from symile_clin.ranks import Ranks

ALL_AT_ONCE = Budget(kept=10**9, slab=10**9)
ONE_TUPLE = Budget(kept=0, slab=1)
CASES = [((5, 6), 3), ((7, 4, 6), 4), ((3, 4, 5, 2), 2), ((2, 3, 2, 3, 2), 2), ((1, 4, 3), 1), ((1, 1), 1)]
BUDGETS = {
    "kept whole": ALL_AT_ONCE,
    "kept, a tuple a slab": Budget(kept=10**9, slab=1),
    "again, a tuple a slab": ONE_TUPLE,
    "again, a few rows a slab": Budget(kept=0, slab=600),
    "again, some outer tuples a slab": Budget(kept=0, slab=2500),
}


def batch(sizes: Sequence[int], p: int, *, d: int = 3, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """float64 vectors of each axis, and p tuples that use no vector twice."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True) for n in sizes]
    return tensors, torch.stack([torch.randperm(n, generator=generator)[:p] for n in sizes], dim=1)


def whole_cube(tensors: Sequence[Tensor], matched: Tensor) -> Tensor:
    """The same by plain autograd, all cells at once."""
    letters = "abcde"[: len(tensors)]
    cube = torch.einsum(",".join(f"{letter}z" for letter in letters) + f"->{letters}", *tensors)
    positive = cube[tuple(matched.unbind(1))]
    return torch.stack(
        [cube.movedim(axis, 0).flatten(1).logsumexp(1)[matched[:, axis]] - positive for axis in range(len(tensors))]
    )


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("sizes", "p"), CASES)
def test_losses_and_gradients_equal_those_of_the_whole_cube(sizes: Sequence[int], p: int, budget: str) -> None:
    tensors, matched = batch(sizes, p)
    upstream = torch.randn(len(sizes), p, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fast, plain = cube_losses(tensors, matched, budget=BUDGETS[budget]), whole_cube(tensors, matched)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad((fast * upstream).sum(), tensors)
    for one, other in zip(mine, torch.autograd.grad((plain * upstream).sum(), tensors), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("sizes", "p"), CASES[:4])
def test_gradients_equal_finite_differences(sizes: Sequence[int], p: int) -> None:
    tensors, matched = batch(sizes, p, d=2)
    assert torch.autograd.gradcheck(lambda *tensors: cube_losses(tensors, matched), tensors)


def test_float32_is_exact_to_its_rounding() -> None:
    tensors, matched = batch((40, 50, 60), 40, d=200)
    single = [tensor.detach().float().mul(0.3).requires_grad_() for tensor in tensors]
    double = [tensor.detach().double().requires_grad_() for tensor in single]
    fast, exact = cube_losses(single, matched), whole_cube(double, matched)
    torch.testing.assert_close(fast.double(), exact, rtol=1e-6, atol=1e-5)
    upstream = torch.ones(()) / fast.numel()
    mine = torch.autograd.grad(fast.sum() * upstream, single)
    for one, other in zip(mine, torch.autograd.grad(exact.sum() * upstream, double), strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 1e-6


def test_logits_beyond_any_exponential_are_safe() -> None:
    tensors, matched = batch((6, 7, 8), 5)
    single = [tensor.detach().float().mul(30).requires_grad_() for tensor in tensors]
    double = [tensor.detach().double().requires_grad_() for tensor in single]
    fast, exact = cube_losses(single, matched), whole_cube(double, matched)
    assert float(exact.detach().max()) > 10_000
    torch.testing.assert_close(fast.double(), exact, rtol=1e-5, atol=1e-2)
    mine = torch.autograd.grad(fast.sum(), single)
    for one, other in zip(mine, torch.autograd.grad(exact.sum(), double), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("start", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_value_is_the_same_and_nothing_is_kept(start: Callable[[], Any]) -> None:
    tensors, matched = batch((30, 30, 30), 30)
    loss = cube_losses(tensors, matched).detach()
    budget = Budget(kept=10**9, slab=slabs.SLAB_BYTES // 100)
    with start():
        assert torch.equal(cube_losses(tensors, matched), loss)
        assert peak_bytes(lambda: cube_losses(tensors, matched, budget=budget)) < 30**3 * 8


def test_backward_can_be_asked_twice_but_not_be_differentiated() -> None:
    tensors, matched = batch((4, 5, 6), 3)
    loss = cube_losses(tensors, matched).sum()
    first, second = (torch.autograd.grad(loss, tensors, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(torch.autograd.grad(loss**2, tensors, create_graph=True)[0].sum())


def test_operands_are_rounded_once_and_sums_are_not() -> None:
    tensors, matched = batch((5, 6, 7), 4, d=64)
    x, y, z = (tensor.detach().float().mul(0.5) for tensor in tensors)
    logits = torch.zeros(5, 6, 7, dtype=torch.float64)
    for i, j, m in product(range(5), range(6), range(7)):
        logits[i, j, m] = ((x[i] * y[j]).bfloat16().double() * z[m].bfloat16().double()).sum()
    positive = logits[tuple(matched.unbind(1))]
    expected = [logits.movedim(k, 0).flatten(1).logsumexp(1)[matched[:, k]] - positive for k in range(3)]
    rounded = cube_losses([x, y, z], matched, operands=torch.bfloat16)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), torch.stack(expected), rtol=1e-6, atol=1e-5)


def test_gradients_with_rounded_operands_are_close() -> None:
    tensors, matched = batch((20, 21, 22), 20, d=64)
    single = [tensor.detach().float().mul(0.5).requires_grad_() for tensor in tensors]
    for budget in (ALL_AT_ONCE, ONE_TUPLE):
        exact = torch.autograd.grad(cube_losses(single, matched).mean(), single)
        rounded = cube_losses(single, matched, operands=torch.bfloat16, budget=budget).mean()
        for one, other in zip(torch.autograd.grad(rounded, single), exact, strict=True):
            assert 1e-5 < float((one - other).norm() / other.norm()) < 0.01


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("sizes", [(5, 6), (4, 6, 5), (1, 3, 4), (2, 3, 4, 5)])
def test_slabs_cover_every_tuple_and_matched_tuple_once(sizes: Sequence[int], size: int) -> None:
    _, matched = batch(sizes, min(sizes))
    for capacity in (1, 2, 5, 6, 7, 13, 1000):
        budget = Budget(kept=0, slab=capacity * slabs._bytes_per_tuple(sizes[-1], 3, 8))
        covered: list[tuple[int, int]] = []
        samples: list[int] = []
        for rank in range(size):
            grid = Grid.of(matched, sizes=sizes, dim=3, element_size=8, budget=budget, ranks=Ranks(rank, size))
            for slab in grid.slabs:
                cells = [
                    (outer, row)
                    for outer in range(slab.outer.start, slab.outer.stop)
                    for row in range(slab.rows.start, slab.rows.stop)
                ]
                assert len(cells) == slab.tuples.stop - slab.tuples.start <= capacity
                assert slab.tuples.start == cells[0][0] * sizes[-2] + cells[0][1]
                covered += cells
                inside, (rows, columns) = grid.inside(slab)
                samples += inside.tolist()
                for sample, row, column in zip(inside.tolist(), rows.tolist(), columns.tolist(), strict=True):
                    place = torch.unravel_index(torch.tensor(slab.tuples.start + row), list(sizes[:-1]))
                    assert [*(int(index) for index in place), column] == matched[sample].tolist()
        assert covered == list(product(range(math.prod(sizes[:-2])), range(sizes[-2])))
        assert sorted(samples) == list(range(len(matched)))


@pytest.mark.parametrize(
    ("sizes", "dim", "kept"),
    [((40, 40, 40), 64, 10**6), ((40, 40, 40), 64, 0), ((300, 300), 64, 0), ((12, 12, 12, 12), 32, 0)],
)
def test_the_budget_bounds_what_is_allocated(sizes: Sequence[int], dim: int, kept: int) -> None:
    tensors = [torch.randn(size, dim, requires_grad=True) for size in sizes]
    matched = torch.arange(sizes[0]).unsqueeze(1).expand(-1, len(sizes))
    budget = Budget(kept=kept, slab=10**5)
    peak = peak_bytes(lambda: torch.autograd.backward(cube_losses(tensors, matched, budget=budget).sum()))
    vectors = 4 * sum(sizes) * dim
    bound = cost(sizes, dim, element_size=4, budget=budget).bytes
    assert bound / 4 < peak - vectors < bound


@pytest.mark.parametrize(("n", "d", "gigabytes"), [(280, 8192, 0.5), (2048, 1024, 1.0)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_sizes_of_the_paper_and_beyond_fit(n: int, d: int, gigabytes: float, device: str) -> None:
    budget = Budget.of(torch.device(device), cube=4 * n**3)
    assert cost((n, n, n), d, element_size=4, budget=budget).bytes < gigabytes * 1e9


def test_cost_by_hand() -> None:
    kept, again = Budget(kept=4 * 10**3, slab=1), Budget(kept=4 * 10**3 - 1, slab=1)
    assert cost((10, 10, 10), 7, element_size=4, budget=kept).flops == 3 * 2 * 10**3 * 7
    assert cost((10, 10, 10), 7, element_size=4, budget=again).flops == 4 * 2 * 10**3 * 7
    assert cost((10, 10, 10), 7, element_size=4, budget=again, processes=5).flops == 3 * 2 * 10**3 * 7 / 5


def test_what_cannot_be_compiled_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(function: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
        def run(*_: Tensor) -> Tensor:  # torch compiles when the function is called first
            raise RuntimeError(f"no compiler for {function.__name__}")

        return run

    monkeypatch.setattr(torch, "compile", failing)

    def twice(tensor: Tensor) -> Tensor:
        return tensor * 2

    double = Fused(twice, devices=["cpu"])
    with pytest.warns(UserWarning, match="no compiler"):
        assert double(torch.tensor(2.0)) == 4
    assert double(torch.tensor(3.0)) == 6  # and does not try again


@pytest.mark.slow
def test_compiled_and_uncompiled_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, rows, columns = (torch.randn(size, generator=generator) for size in ((6, 5), (6,), (5,)))
    outer, inner, gradient = (torch.randn(size, generator=generator) for size in ((2, 4), (3, 4), (2, 3, 4)))
    for fused, arguments in (
        (online_logsumexp, (logits, columns, columns.exp())),
        (softmax_weights, (logits, rows, rows, columns, columns)),
        (factor_gradients, (gradient, outer, inner)),
    ):
        compiled = Fused(fused.function, devices=["cpu"])
        plain = fused(*(argument.clone() for argument in arguments))
        torch.testing.assert_close(compiled(*(argument.clone() for argument in arguments)), plain)
        assert compiled.compiled is not fused.function


def peak_bytes(run: Callable[[], object]) -> int:
    """Largest sum of sizes of the storages that `run` made and still held."""
    with _Allocations() as allocations:
        run()
    peak: int = allocations.peak
    return peak


class _Allocations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.now: int = 0
        self.peak: int = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        value = function(*args, **(kwargs or {}))
        mine = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            if storage._cdata in self.known | mine:
                continue
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return value

    def _gone(self, identity: int, size: int) -> None:
        self.known.discard(identity)
        self.now -= size


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in _tensors(one)]
    return _tensors(list(value.values())) if isinstance(value, dict) else []
