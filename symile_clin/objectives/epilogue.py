"""What is done to a slab of logits between its matrix products; compiled into a few kernels on a CUDA device.

Written for both: operations in place are on temporaries only, so that an uncompiled pass touches memory as little as
it can and a compiled one may drop the temporaries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import Any, final

import torch
from torch import Tensor


@final
class Fused:
    """A function of tensors that torch.compile fuses where its first argument is on one of some devices.

    Whatever keeps it from being compiled (no Triton, no C compiler) costs speed and a warning, not the run.

    Args:
        function: leaves its arguments as they are when compiled.
        devices: types of devices on which it pays; on a CPU the matrix products take nearly all of the time.
    """

    def __init__(self, function: Callable[..., Any], devices: Collection[str] = ("cuda",)) -> None:
        self.function = function
        self.devices = devices
        self.compiled: Callable[..., Any] | None = None

    def __call__(self, first: Tensor, *others: Tensor) -> Any:
        """The function's value."""
        if first.device.type not in self.devices:
            return self.function(first, *others)
        if self.compiled is None:
            self.compiled = torch.compile(self.function, dynamic=True)
        if self.compiled is not self.function:
            try:
                return self.compiled(first, *others)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler fails in any way it likes, and later for shapes it has not seen
                warnings.warn(f"{self.function.__name__} is not compiled, and slower: {error}", stacklevel=2)
                self.compiled = self.function
        return self.function(first, *others)


@Fused
def online_logsumexp(logits: Tensor, maxima: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logsumexp of each row of a slab, and that of columns, to which each slab adds its part.

    Args:
        logits: (s, n).
        maxima: (n,) of the columns so far.
        sums: (n,) of exp(logit - maximum) so far.

    Returns:
        (s,) of the rows; new maxima and sums of the columns.
    """
    largest = torch.maximum(maxima, logits.amax(0))
    sums = sums * (maxima - largest).exp() + (logits - largest).exp_().sum(0)
    highest = logits.amax(1)
    rows = (logits - highest.unsqueeze(1)).exp_().sum(1).log() + highest
    return rows, largest, sums


@Fused
def softmax_weights(
    logits: Tensor, rows: Tensor, row_weights: Tensor, columns: Tensor, column_weights: Tensor
) -> Tensor:
    """Derivative of all anchors' weighted logsumexps by each logit of a slab.

    Args:
        logits: (s, n).
        rows: (s,) logsumexp of each row.
        row_weights: (s,) weights of its exponential exp(logit - row), over all leading anchors.
        columns: (n,) logsumexp of each column, over all slabs.
        column_weights: (n,) weights of exp(logit - column).

    Returns:
        (s, n).
    """
    change = (logits - rows.unsqueeze(1)).exp_().mul_(row_weights.unsqueeze(1))
    return change.addcmul_((logits - columns).exp_(), column_weights)


@Fused
def factor_gradients(gradient: Tensor, outer: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the factors of a slab's products, outer (b, 1, d) times rows (r, d).

    Args:
        gradient: (b, r, d) of the products; not to be used again.
        outer: (b, d).
        rows: (r, d).

    Returns:
        (b, d) and (r, d).
    """
    if torch.compiler.is_compiling():  # both become one kernel; uncompiled, each would write out (b, r, d) once more
        return (gradient * rows).sum(1), (gradient * outer.unsqueeze(1)).sum(0)
    to_rows = torch.zeros_like(rows)
    for one, factor in zip(gradient.unbind(), outer.unbind(), strict=True):
        to_rows.addcmul_(one, factor)
    return gradient.mul_(rows).sum(1), to_rows
