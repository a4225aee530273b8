"""Broyden's method for z = f(z), one evaluation of f at a time.

The "good" method (Broyden 1965) with the inverse Jacobian of g(z) = f(z) - z kept as -I + U V, from
g's first-order behaviour near 0, as the authors of MDEQ start it (NeurIPS 2020, section 3.2). Each
sample of a batch has its own. A library's solver runs to its end; here a caller stops between two
evaluations and goes on later, so that all there is is one value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_TOO_SMALL = 1e-30
"""A denominator below which the Jacobian is not updated: the last step was too short."""


class Iterate(NamedTuple):
    """How far the method has come.

    Attributes:
        z: (B, N) the iterate.
        step: (B, N) what the last evaluation has added to it.
        residual: (B, N) g where that evaluation was made.
        left: (B, N, k) U, a column for each evaluation but the first.
        right: (B, k, N) V.
    """

    z: Tensor
    step: Tensor
    residual: Tensor
    left: Tensor
    right: Tensor


def start(zero: Tensor) -> Iterate:
    """Before the first evaluation.

    Args:
        zero: (B, N) where to start.
    """
    batch, length = zero.shape
    return Iterate(
        zero,
        zero.new_zeros(batch, 0),
        zero.new_zeros(batch, 0),
        zero.new_zeros(batch, length, 0),
        zero.new_zeros(batch, 0, length),
    )


def advance(at: Iterate, function: Callable[[Tensor], Tensor]) -> Iterate:
    """One evaluation of the function, and the step that it leads to.

    Args:
        at: unchanged.
        function: (B, N) to (B, N).
    """
    residual = function(at.z) - at.z
    if not at.step.shape[1]:
        return Iterate(at.z + residual, residual, residual, at.left, at.right)
    change = residual - at.residual
    row = _from_left(at, at.step)
    column = at.step - _times(at, change)
    scale = (row * change).sum(dim=1, keepdim=True)
    learnt = scale.abs() > _TOO_SMALL
    column = torch.where(learnt, column / scale, torch.zeros_like(column))
    left = torch.cat([at.left, column[:, :, None]], dim=2)
    right = torch.cat([at.right, row[:, None, :]], dim=1)
    now = Iterate(at.z, at.step, residual, left, right)
    step = -_times(now, residual)
    return Iterate(at.z + step, step, residual, left, right)


def _times(at: Iterate, x: Tensor) -> Tensor:
    """The inverse Jacobian times (B, N) columns."""
    return torch.einsum("bnk,bk->bn", at.left, torch.einsum("bkn,bn->bk", at.right, x)) - x


def _from_left(at: Iterate, x: Tensor) -> Tensor:
    """(B, N) rows times the inverse Jacobian."""
    return torch.einsum("bk,bkn->bn", torch.einsum("bn,bnk->bk", x, at.left), at.right) - x
