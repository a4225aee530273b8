"""One step of training: from a batch to moved weights and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anytime_model.confidence import Criterion
from anytime_model.data.loading import Batch, normalise
from anytime_model.networks.base import Network, State
from anytime_model.training import losses
from anytime_model.training.averaging import WeightAverage
from anytime_model.training.muon import Muon
from anytime_model.training.processes import ALONE, ProcessRank
from anytime_model.training.recipe import Adam, MuonSettings, Optimiser, Recipe, Sgd


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did.

    Attributes:
        loss: of equation 1.
        exits: each exit's own loss.
        gradient: norm before clipping; NaN where nothing is clipped.
        active: share of positions that each stage but the first computed.
    """

    loss: float
    exits: tuple[float, ...]
    gradient: float
    active: tuple[float, ...]


class TrainStep:
    """Moves a network along its recipe's gradient.

    Args:
        network: what makes the steps: `plain`, or a wrapper of it for several processes.
        plain: the network itself.
        recipe: what to do.
        device: where.
        class_weights: (K,) for a balanced cross-entropy, or None.
        teacher: another network of the same outputs and map stride, whose last exit teaches all
            exits (`Recipe.taught`), or None.
        process: this process among those that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        plain: Network,
        recipe: Recipe,
        device: torch.device,
        *,
        class_weights: Tensor | None = None,
        teacher: Network | None = None,
        process: ProcessRank = ALONE,
    ) -> None:
        self.network = network
        self.optimisers = build_optimisers(network, recipe.optimiser)
        self.plain = plain
        self.average = WeightAverage(plain, recipe.average) if recipe.average else None
        self._recipe = recipe
        self._device = device
        self._process = process
        self._teacher = teacher.to(device).eval() if teacher else None
        self._class_weights = None if class_weights is None else class_weights.to(device)

    def step(
        self,
        batch: Batch,
        step: int,
        factor: float,
        criteria: Sequence[Criterion | None] | None,
    ) -> StepReport:
        """Make the 0-based step.

        Args:
            batch: what to learn from.
            step: which step this is.
            factor: of the recipe's peak rate.
            criteria: masks of each exit, or None to train without.
        """
        recipe = self._recipe
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
        self.network.train()
        batch = _move(batch, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.half):
            states: tuple[State, ...] = self.network(normalise(batch.images), criteria)
        maps = [state.logits for state in states if state.logits is not None]
        terms = losses.per_exit(
            recipe.loss,
            maps,
            batch,
            step,
            class_weights=self._class_weights,
            mean_over_processes=self._process.mean,
        )
        if self._teacher and batch.labels is not None:
            with torch.no_grad():
                last = self._teacher(normalise(batch.images), None)[-1].logits
            terms = terms + recipe.taught * losses.soft_targets(maps, last, batch.labels, step)
        loss = terms @ terms.new_tensor(recipe.exit_weights)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float("nan")
        if recipe.clip:
            norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip))
        for optimiser in self.optimisers:
            optimiser.step()
        if self.average:
            self.average.update(self.plain, step)
        return StepReport(
            float(loss.detach()),
            tuple(terms.tolist()),
            norm,
            tuple(state.active_share for state in states[:-1]),
        )


def build_optimisers(network: nn.Module, settings: Optimiser) -> list[torch.optim.Optimizer]:
    """The optimisers; biases, normalisation and lambdas are never decayed.

    Each group keeps its peak rate as `peak`, which a schedule's factor multiplies.
    """
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    match settings:
        case Sgd(rate, momentum, decay):
            return [torch.optim.SGD(_groups(matrices, others, rate, decay), momentum=momentum)]
        case Adam(rate, decay, decoupled, stages):
            kind = torch.optim.AdamW if decoupled else torch.optim.Adam
            if stages == 1:
                return [kind(_groups(matrices, others, rate, decay))]
            inside = {id(p) for n, p in network.named_parameters() if "exits." not in n}
            groups = [
                group
                for of_stages, its_rate in ((False, rate), (True, rate * stages))
                for group in _groups(
                    [p for p in matrices if (id(p) in inside) == of_stages],
                    [p for p in others if (id(p) in inside) == of_stages],
                    its_rate,
                    decay,
                )
            ]
            return [kind(groups)]
        case MuonSettings(rate, adam, momentum, decay):
            edges = {
                id(p)
                for name, p in network.named_parameters()
                if "predict" in name or name.endswith("stem.0.conv.weight")
            }
            hidden = [p for p in matrices if id(p) not in edges]
            ends = [p for p in matrices if id(p) in edges]
            muon = Muon(_groups(hidden, [], rate, decay), lr=rate, momentum=momentum)
            rest = _groups(ends, others, adam.rate, adam.weight_decay)
            return [muon, torch.optim.AdamW(rest)]


def _groups(
    decayed: list[nn.Parameter], others: list[nn.Parameter], rate: float, decay: float
) -> list[dict[str, Any]]:
    groups = [(decayed, decay), (others, 0.0)]
    return [
        {"params": params, "weight_decay": share, "lr": rate, "peak": rate}
        for params, share in groups
        if params
    ]


def _move(batch: Batch, device: torch.device) -> Batch:
    def to(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    return Batch(
        batch.images.to(device, non_blocking=True),
        to(batch.labels),
        to(batch.joints),
        to(batch.head_px),
        batch.names,
    )
