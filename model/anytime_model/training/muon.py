"""Muon: momentum whose matrices are made orthogonal before they move the weights.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); convolutions are
taken as matrices of (outputs, inputs x taps). torch has a Muon for two-dimensional parameters
only, hence this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """The optimiser; its parameters have two or more dimensions.

    Args:
        params: what to move, or groups of it.
        lr: rate; about 0.02, whatever the layer.
        momentum: share of the momentum kept at each step.
        weight_decay: share of a weight lost at each step, times lr.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; a closure is not supported."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure; compute the gradients beforehand.")
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                kept = state["momentum"].lerp_(parameter.grad, 1 - momentum)
                ahead = parameter.grad.lerp(kept, momentum).flatten(1)
                rows, columns = ahead.shape
                direction = orthogonal(ahead).mul_(max(1.0, rows / columns) ** 0.5)
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(direction.view(parameter.shape), alpha=-rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the nearest (semi-)orthogonal matrix: singular values become about 0.7 to 1.2.

    Five steps of a quintic Newton-Schulz iteration, in bfloat16.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result
