"""Loading of batches: order, workers and seeds, all fixed by (seed, epoch, index).

A batch is a function of the seed, the epoch and its place in it, whatever the number of workers,
so a training that stopped anywhere goes on with the batch that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anytime_model.data.sample import Sample, SampleSource

Pipeline = Callable[[Sample, int], Sample]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Normalisation of RGB in [0, 1], ImageNet's."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one size, stacked.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        labels: (B, H, W) uint8 class ids with 255 to ignore, or None.
        joints: (B, J, 3) float32 as in `Sample`, or None.
        head_px: (B,) float32, NaN where unknown, or None.
        names: B names.
    """

    images: Tensor
    labels: Tensor | None
    joints: Tensor | None
    head_px: Tensor | None
    names: tuple[str, ...]


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 RGB to the network's float32 input, channels last."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1) * 255
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size."""
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2)
    labels = [s.labels for s in samples if s.labels is not None]
    joints = [s.joints for s in samples if s.joints is not None]
    heads = [np.nan if s.head_px is None else s.head_px for s in samples]
    return Batch(
        images,
        torch.from_numpy(np.stack(labels)) if labels else None,
        torch.from_numpy(np.stack(joints)) if joints else None,
        torch.tensor(heads, dtype=torch.float32) if joints else None,
        tuple(s.name for s in samples),
    )


class AugmentedSet(Dataset[Sample]):
    """A source read through a pipeline; its keys are (epoch, index).

    Args:
        source: a split.
        pipelines: the pipeline of an epoch.
        seed: of the training.
    """

    def __init__(
        self, source: SampleSource, pipelines: Callable[[int], Pipeline], seed: int
    ) -> None:
        self._source = source
        self._pipelines = pipelines
        self._seed = seed

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        seed = np.random.SeedSequence([self._seed, epoch, index]).generate_state(1)[0]
        return self._pipelines(epoch)(self._source[index], int(seed))


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """Which samples make up the batches of one epoch, on one of several processes.

    Attributes:
        size: samples in the source.
        batch: samples a step, over all processes.
        epoch: which epoch, from 0.
        seed: of the whole training.
        rank: this process, from 0.
        world: processes; `batch` is divisible by it.
        first_step: steps already done in this epoch.
    """

    size: int
    batch: int
    epoch: int
    seed: int
    rank: int = 0
    world: int = 1
    first_step: int = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(self.size)
        share = self.batch // self.world
        for step in range(self.first_step, steps_per_epoch(self.size, self.batch)):
            start = step * self.batch + self.rank * share
            picked = np.take(order, range(start, start + share), mode="wrap")
            yield [(self.epoch, int(index)) for index in picked]

    def __len__(self) -> int:
        return steps_per_epoch(self.size, self.batch) - self.first_step


def steps_per_epoch(size: int, batch: int) -> int:
    """Whole batches in an epoch; a set smaller than one batch is wrapped around."""
    return max(1, size // batch)


def epoch_batches(data: AugmentedSet, order: EpochOrder, workers: int) -> Iterable[Batch]:
    """The batches of one epoch."""
    loader: Iterable[Batch] = DataLoader(
        data,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )
    return loader


def _one_thread(_worker: int) -> None:
    """Keep a worker from taking the cores that the network computes on."""
    torch.set_num_threads(1)
    import cv2  # noqa: PLC0415  (only workers that augment need it)

    cv2.setNumThreads(0)
