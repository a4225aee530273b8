"""Training in several processes, as torchrun starts them.

Two processes with half a batch each compute what one computes with all of it: gradients are
averaged (DistributedDataParallel), losses are divided by what all processes count together, and
normalisation takes its statistics over all of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from anytime_model.networks.base import Network


@dataclass(frozen=True, slots=True)
class ProcessRank:
    """The rank of this process among those that share a training.

    Attributes:
        rank: from 0.
        world: how many processes there are.
        local: rank on this machine: which of its GPUs to use.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes; no gradient goes through it."""
        if self.world == 1:
            return value.detach()
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.world


def join() -> ProcessRank:
    """This process's rank, as torchrun's environment says; alone without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ProcessRank()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return ProcessRank(dist.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))


def leave(process: ProcessRank) -> None:
    """End what `join` began."""
    if process.world > 1 and dist.is_initialized():
        dist.destroy_process_group()


def share(network: Network, process: ProcessRank) -> nn.Module:
    """The network as this process trains it: itself if alone, else wrapped.

    Its normalisation layers are replaced by ones that see all processes; names and values stay.
    """
    if process.world == 1:
        return network
    _share_normalisation(network)
    # Without masks the lambdas have no part in the loss.
    return nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)


ALONE = ProcessRank()


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over all processes, which must have batches of one shape.

    torch has one for GPUs only (SyncBatchNorm); this one runs anywhere.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        world = dist.get_world_size()
        wide = x.float()
        moments = torch.stack([wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))])
        mean, square = all_reduce(moments) / world  # type: ignore[no-untyped-call]
        variance = square - mean.square()
        self._remember(mean.detach(), variance.detach(), world * x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        y = wide * scale.view(1, -1, 1, 1) + (self.bias - mean * scale).view(1, -1, 1, 1)
        result: Tensor = y.to(x.dtype)
        return result

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        share_of_new = self.momentum if self.momentum is not None else 1.0
        self.running_mean.lerp_(mean, share_of_new)
        self.running_var.lerp_(variance * count / max(1, count - 1), share_of_new)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def _share_normalisation(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.to(child.weight.device))
        else:
            _share_normalisation(child)
